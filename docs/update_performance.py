"""Bring the tables of docs/performance.md up to date.

    ./run exec python docs/update_performance.py RESULTS [PART ...]

runs the benchmarks whose reports (``PART.json``) are not in the folder RESULTS yet, and rewrites what stands
between the page's markers. Parts: pipeline, embedder, detector, ros_640, ros_1280, soak; all by default. Run
it on a machine that does nothing else, with a new folder whenever weights or code have changed. The scenes of
the pipeline show photographs from $FACE_RECOGNITION_PICTURES (a zip or folder), where that is set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from face_recognition_node.evaluation import performance_tables as tables
from face_recognition_node.evaluation.figures import fill

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
SOAK_PLOT = ROOT / "docs" / "images" / "soak.png"
PARTS = {
    "pipeline": ["pipeline"],
    "embedder": ["embedder"],
    "detector": ["detector"],
    "ros_640": ["ros"],
    "ros_1280": ["ros", "--size", "1280x720"],
    "soak": ["soak", "--plot", str(SOAK_PLOT)],
}


def main() -> None:
    """Read or make the reports, and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of the benchmarks' reports")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"{', '.join(unknown)}: expected one of {', '.join(PARTS)}")
    reports = {part: read_report(part, arguments.results) for part in parts}
    text = PAGE.read_text(encoding="utf-8")
    if "pipeline" in reports:
        text = fill(text, "pipeline", tables.pipeline_section(reports["pipeline"]))
    for part in {"embedder", "detector"} & set(reports):
        text = fill(text, part, tables.tables_section(reports[part]))
    if "soak" in reports:
        text = fill(text, "soak", tables.soak_section(reports["soak"]))
    if running := [reports[part] for part in ("ros_640", "ros_1280") if part in reports]:
        text = fill(text, "ros", tables.ros_section(running))
    PAGE.write_text(text, encoding="utf-8")


def read_report(part: str, folder: Path) -> dict[str, Any]:
    """Return the report of a part, running its benchmark if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.json"
    if not path.exists():
        command = [sys.executable, "-m", "face_recognition_node.cli", "benchmark", *PARTS[part]]
        pictures = os.environ.get("FACE_RECOGNITION_PICTURES")
        if part == "pipeline" and pictures:
            command += ["--pictures", pictures]
        subprocess.run([*command, "--json", str(path)], check=True)
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


if __name__ == "__main__":
    main()

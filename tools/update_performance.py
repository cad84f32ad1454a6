"""Bring the tables of docs/notes/performance.md up to date.

    ./run exec python tools/update_performance.py RESULTS [PART ...]

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from update_figures import fill

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "notes" / "performance.md"
SOAK_PLOT = ROOT / "docs" / "images" / "soak.png"
VERB = ["-m", "face_recognition_node.cli", "benchmark"]
PARTS = {
    "pipeline": ["tools/benchmark_pipeline.py"],
    "embedder": ["tools/benchmark_embedder.py"],
    "detector": ["tools/benchmark_detector.py"],
    "ros_640": [*VERB, "ros"],
    "ros_1280": [*VERB, "ros", "--size", "1280x720"],
    "soak": ["tools/benchmark_soak.py", "--plot", str(SOAK_PLOT)],
}

Report = Mapping[str, Any]


def machine_line(report: Report) -> str:
    """Return on what a report was measured, and how busy it was."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:g} GB; "
        f"{machine['system']}; load {machine['load']:g} at the start; {versions}."
    )


def short_machine_line(report: Report) -> str:
    """Return the machine and the load without the versions, which the page names once."""
    machine = report["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:g}."


def pipeline_section(report: Report) -> str:
    """Return the table, stage profiles and start of ``benchmark pipeline``."""
    start = report["start"]
    parts = [machine_line(report), race_table(report["scenes"])]
    for scene in report["scenes"]:
        stages = ", ".join(f"{name} {value:.2f}" for name, value in scene["profile_ms"].items())
        parts.append(
            f"Stages of the first row ({scene['task']}), mean wall ms: {stages}. Faces seen in a frame: "
            f"{scene['faces_seen']:.2f}, of them certain {scene['certain']:.2f}."
        )
    parts.append(
        f"A fresh process without ROS, caches warm: models loaded after {start['loaded_s']:.2f} s, first "
        f"frame answered after {start['first_frame_s']:.2f} s, {start['resident_mb']:.0f} MB resident then."
    )
    return "\n\n".join(parts) + "\n"


def tables_section(report: Report) -> str:
    """Return the races of ``benchmark detector`` or ``benchmark embedder`` as one table."""
    return f"{short_machine_line(report)}\n\n{race_table(report['tables'])}\n"


def race_table(races: Sequence[Report]) -> str:
    """Return races of the same contestants, a column each: wall (CPU) ms, and times the first row's wall."""
    by_name = [{timing["name"]: timing for timing in race["timings"]} for race in races]
    names = list(dict.fromkeys(name for race in by_name for name in race))
    rows = []
    for name in names:
        timings = [race.get(name) for race in by_name]
        cells = [_time(timing, is_first=name == names[0]) if timing else "" for timing in timings]
        notes = dict.fromkeys(timing["note"] for timing in timings if timing)
        rows.append((name, *cells, " / ".join(notes)))
    tasks = (f"{race['task']}, {race['timings'][0]['runs']} rounds" for race in races)
    return _table(("", *tasks, ""), rows)


def _time(timing: Report, *, is_first: bool) -> str:
    """Return one contestant's time in one race."""
    text = f"{timing['median_ms']:.1f} ({timing['cpu_ms']:.1f})"
    ratio = f", {timing['ratio']:.2f} × [{timing['ratio_low']:.2f}, {timing['ratio_high']:.2f}]"
    return text if is_first else text + ratio


def ros_section(reports: Sequence[Report]) -> str:
    """Return one table of several runs of ``benchmark ros``."""
    rows = []
    for report in reports:
        latency = f"{report['latency_p50_ms']:.1f} / {report['latency_p95_ms']:.1f}"
        cpu_ms = 10 * report["cpu_percent"] / max(report["answered_hz"], 1e-9)
        rows.append((
            f"{report['size']}, {report['faces']} faces, {report['rate']:g} Hz",
            f"{report['answered']} of {report['sent']}",
            latency,
            f"{report['cpu_percent']:.0f} %",
            f"{cpu_ms:.1f}",
            f"{report['resident_mb']:.0f}",
            f"{report['start_s']:.2f}",
            f"{report['load']:.1f}",
        ))  # fmt: skip
    header = (
        "images", "answered", "latency p50 / p95, ms", "node's CPU, of a core", "CPU ms an answer",
        "resident, MB", "active after, s", "load",
    )  # fmt: skip
    stages = [
        f"Stages at {report['size']}, mean ms: "
        + ", ".join(f"{name} {value:.2f}" for name, value in report["stages_ms"].items())
        + "."
        for report in reports
    ]
    return _table(header, rows) + "\n\n" + "\n\n".join(stages) + "\n"


def soak_section(report: Report) -> str:
    """Return the verdict of ``benchmark soak``."""
    growth = report["growth"]
    verdict = "grew by more than is allowed" if growth["is_growing"] else "did not grow"
    last = report["samples"][-1]
    answered = sum(sample["answered_hz"] for sample in report["samples"]) / len(report["samples"])
    return (
        f"{report['task']}: resident memory {verdict}: slope {growth['mb_per_hour']:+.2f} MB/h "
        f"[{growth['low']:+.2f}, {growth['high']:+.2f}] over {growth['seconds'] / 60:.0f} minutes after "
        f"{growth['warm_up_s'] / 60:.0f} of warm-up, median {growth['resident_mb']:.0f} MB; "
        f"{answered:.1f} answers a second, {last['tracks']} tracks begun and ended.\n\n"
        f"{short_machine_line(report)}\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


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
        text = fill(text, "pipeline", pipeline_section(reports["pipeline"]))
    for part in {"embedder", "detector"} & set(reports):
        text = fill(text, part, tables_section(reports[part]))
    if "soak" in reports:
        text = fill(text, "soak", soak_section(reports["soak"]))
    if running := [reports[part] for part in ("ros_640", "ros_1280") if part in reports]:
        text = fill(text, "ros", ros_section(running))
    PAGE.write_text(text, encoding="utf-8")


def read_report(part: str, folder: Path) -> dict[str, Any]:
    """Return the report of a part, running its benchmark if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.json"
    if not path.exists():
        command = [sys.executable, *PARTS[part]]
        pictures = os.environ.get("FACE_RECOGNITION_PICTURES")
        if part == "pipeline" and pictures:
            command += ["--pictures", pictures]
        subprocess.run([*command, "--json", str(path.resolve())], cwd=ROOT, check=True)
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


if __name__ == "__main__":
    main()

"""Bring the figures in README.md and docs/identity.md up to date.

    ./run exec python docs/update_figures.py RESULTS

replays the packaged scenarios, unless their reports (``NAME.json``, as ``face-recognition evaluate replay
NAME --json`` prints them) are in the folder RESULTS already, and rewrites what stands between the markers.
Run it with a new folder whenever the weights, their calibration or the rule for naming have changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.evaluation.figures import (
    INTRODUCTION,
    SCENARIOS,
    Report,
    calibration_table,
    fill,
    replay_table,
    track_table,
)

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "models" / "efficientnet_b0_64.json"


def main() -> None:
    """Read or make the reports, and rewrite the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of the replays' reports")
    reports = read_reports(parser.parse_args().results)
    calibration = json.loads(CARD.read_text(encoding="utf-8"))["calibration"]["report"]
    pages = {
        "README.md": {"figures": INTRODUCTION + replay_table(reports)},
        "docs/identity.md": {
            "calibration_figures": calibration_table(calibration),
            "track_figures": track_table(calibration),
        },
    }
    for name, sections in pages.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for section, content in sections.items():
            text = fill(text, section, content)
        (ROOT / name).write_text(text, encoding="utf-8")


def read_reports(folder: Path) -> dict[str, Report]:
    """Return the reports of all scenarios, replaying those of which the folder holds none."""
    folder.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Report] = {}
    for name in SCENARIOS:
        path = folder / f"{name}.json"
        if not path.exists():
            verb = ["-m", "face_recognition_node.cli", "evaluate", "replay", name, "--json"]
            said = subprocess.run([sys.executable, *verb], cwd=ROOT, stdout=subprocess.PIPE, check=False)
            if said.returncode not in (
                0,
                1,
            ):  # 1: a requirement was missed; the figures are true all the same
                raise ConfigurationError(f"the replay of {name} failed with exit code {said.returncode}")
            path.write_bytes(said.stdout)
        reports[name] = json.loads(path.read_text(encoding="utf-8"))
        for sentence in reports[name]["unmet"]:
            print(f"{name}: NOT MET: {sentence}", file=sys.stderr)
    return reports


if __name__ == "__main__":
    main()

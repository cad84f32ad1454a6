"""Bring the figures in README.md and docs/identity.md up to date.

    ./run exec python tools/update_figures.py RESULTS

replays the packaged scenarios, unless their reports (``NAME.json``, as ``face-recognition evaluate replay
NAME --json`` prints them) are in the folder RESULTS already, and rewrites what stands between the markers.
Run it with a new folder whenever the weights, their calibration or the rule for naming have changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from face_recognition_node.common.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "models" / "efficientnet_b0_64.json"

Report = Mapping[str, Any]
# the scenarios whose reports :func:`replay_table` needs
SCENARIOS = ("orl", "orl_few", "lfw", "signers", "couple", "nobody_enrolled")
INTRODUCTION = (
    "Measured by `face-recognition evaluate replay SCENARIO` with the weights in `models/`. `[ ]` are 95 % "
    "intervals. The target for strangers' tracks is 1 %.\n\n"
)


def replay_table(reports: Mapping[str, Report]) -> str:
    """Return the README's table of the scenarios' figures; ``reports`` by name of the scenario."""
    orl, few, lfw = reports["orl"], reports["orl_few"], reports["lfw"]
    signers, couple, nobody = reports["signers"], reports["couple"], reports["nobody_enrolled"]
    tracks = _enrolled(lfw)
    single = sum(track["frames"] == 1 for track in tracks)
    return _table(
        ("scenario", "enrolled people", "strangers"),
        [
            (
                "`orl`: 20 people enrolled from three pictures each, 20 strangers; five splits",
                _identified(orl),
                _named_strangers(orl),
            ),
            (
                "`orl_few`: three people enrolled, 37 strangers; five splits",
                _identified(few),
                _named_strangers(few),
            ),
            (
                "`lfw`: 100 people enrolled, 200 strangers; pictures of different days, "
                f"{single} of {len(tracks)} tracks are single pictures; half of the people were used for the "
                "calibration",
                _identified(lfw),
                _named_strangers(lfw),
            ),
            (
                "`signers`: video, three people enrolled, faces of 35–45 pixels behind hands",
                f"{_right_frames(signers)}, {_wrong_seconds(signers)}; {_time_to_name(signers)}",
                "",
            ),
            (
                "`couple`: video, two people enrolled, side by side, heads tilted; two strangers, twice",
                f"{_right_frames(couple)}, {_wrong_seconds(couple)}",
                _stranger_ids(couple),
            ),
            (
                "`nobody_enrolled`: video, six strangers, one of whom is then enrolled",
                "",
                f"{_named_strangers(nobody)}; {_stranger_ids(nobody)}",
            ),
        ],
    )


def calibration_table(report: Report) -> str:
    """Return docs/identity.md's table of how well the calibration holds, from the model card's report."""
    promised = " / ".join(f"{_power(rate)}" for rate, _ in report["false_match"])
    measured = " / ".join(f"{_power(rate)}" for _, rate in report["false_match"])
    return _table(
        (f"on {report['n_people']:,} people not fitted on", ""),
        [
            (
                "Cllr (best possible by any monotone recalibration)",
                f"{report['cllr']:.3f} ({report['cllr_minimum']:.3f})",
            ),
            ("expected calibration error at even odds", f"{report['expected_calibration_error']:.3f}"),
            (f"false match rate promised {promised}", measured),
            ("memory τ of the noise in a face, measured on video", f"{report['correlation_s']:.2f} s"),
            (
                "independent comparisons L that a stranger's track amounts to",
                f"{report['comparisons_per_track']:.1f}",
            ),
        ],
    )


def track_table(report: Report) -> str:
    """Return docs/identity.md's table of whole tracks at the default target."""
    rows = [
        (
            f"LFW, {rate['n_enrolled']} enrolled",
            f"{100 * rate['strangers_named']:.1f} % of {rate['n_strangers']:,}",
            f"{100 * rate['enrolled_named']:.0f} %",
            f"{100 * rate['enrolled_mistaken']:.1f} %",
        )
        for rate in report["tracks"]
    ]
    return _table(
        (
            "whole tracks, target 0.01",
            "strangers' tracks named",
            "enrolled people's tracks named",
            "wrong name",
        ),
        rows,
    )


def fill(text: str, section: str, content: str) -> str:
    """Return a page with what stands between the markers of a section replaced.

    Raises:
        ConfigurationError: If the page has no such section.
    """
    begin, end = f"<!-- begin {section} -->\n", f"<!-- end {section} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ConfigurationError(f"expected one pair of markers {begin.strip()} and {end}")
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end)[1]


def _enrolled(report: Report) -> list[Mapping[str, Any]]:
    return [track for episode in report["episodes"] for track in episode["tracks"] if track["is_enrolled"]]


def _share(estimate: Mapping[str, float], digits: int = 0) -> str:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f} % [{low:.{digits}f}, {high:.{digits}f}]"


def _identified(report: Report) -> str:
    estimate = report["identification_rate"]
    wrong = sum(track["wrong_frames"] > 0 for track in _enrolled(report))
    return (
        f"{_share(estimate)} of {estimate['count']} tracks identified, {wrong or 'none'} under a wrong name"
    )


def _named_strangers(report: Report) -> str:
    estimate = report["false_positive_identification_rate"]
    named = round(estimate["value"] * estimate["count"])
    return f"{named} of {estimate['count']} tracks named: {_share(estimate, 1)}"


def _right_frames(report: Report) -> str:
    tracks = _enrolled(report)
    right, frames = (sum(track[key] for track in tracks) for key in ("right_frames", "enrolled_frames"))
    where = f"frames of {len(tracks)} tracks"
    if right == frames:
        return f"the right name in all {where}"
    worst = min(track["named_share"] for track in tracks)
    return f"the right name in {100 * right / frames:.1f} % of the {where} ({100 * worst:.0f} % in the worst)"


def _wrong_seconds(report: Report) -> str:
    return f"{report['seconds_under_a_wrong_name']:.2g} s under a wrong one"


def _time_to_name(report: Report) -> str:
    times = sorted(t["seconds_to_name"] for t in _enrolled(report) if t["seconds_to_name"] is not None)
    return f"named after {times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s at most" if times else "-"


def _stranger_ids(report: Report) -> str:
    strangers = [one for episode in report["episodes"] for one in episode["strangers"] if one["frames"]]
    steady = [one["id_consistency"] for one in strangers if one["ids"]]
    main = sum(one["main_id_share"] for one in strangers) / len(strangers)
    share = f"{100 * main:.0f} % of frames under one id"
    if steady:
        share += f", {100 * sum(steady) / len(steady):.0f} % of those with an id"
    counts = Counter(one["fragments"] for one in strangers)
    ids = ", ".join(f"{ids} ({count}×)" for ids, count in sorted(counts.items()))
    return (
        f"{share}; ids per stranger: {ids}; shared by two people: {report['stranger_ids_shared_by_persons']}"
    )


def _power(rate: float) -> str:
    """Return a rate as ``9.3·10⁻⁴``, a power of ten as ``10⁻⁴``."""
    mantissa, exponent = f"{rate:.1e}".split("e")
    ten = f"10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return ten if mantissa == "1.0" else f"{mantissa}·{ten}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
            completed = subprocess.run([sys.executable, *verb], cwd=ROOT, stdout=subprocess.PIPE, check=False)
            if completed.returncode not in (
                0,
                1,
            ):  # 1: a requirement was missed; the figures are true all the same
                raise ConfigurationError(f"the replay of {name} failed with exit code {completed.returncode}")
            path.write_bytes(completed.stdout)
        reports[name] = json.loads(path.read_text(encoding="utf-8"))
        for sentence in reports[name]["unmet"]:
            print(f"{name}: NOT MET: {sentence}", file=sys.stderr)
    return reports


if __name__ == "__main__":
    main()

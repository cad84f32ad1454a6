"""Hold a replay's figures against what its scenario requires."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import nan
from typing import Any

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.evaluation.replay.replay_report import ReplayReport

# figures that must reach the number that a scenario requires; shares are the worst stranger's
AT_LEAST: dict[str, Callable[[ReplayReport], float]] = {
    "identification_rate": lambda report: report.identification_rate.value,
    "stranger_share": lambda report: _worst(s.main_id_share for s in report.followed),
    "id_consistency": lambda report: _worst(s.id_consistency for s in report.followed),
}
# figures that must not exceed it; NaN where nothing was measured
AT_MOST: dict[str, Callable[[ReplayReport], float]] = {
    "false_positive_rate": lambda report: report.false_positive_rate.value,
    "wrong_seconds": lambda report: report.wrong_seconds if _saw(report) else nan,
    "stranger_frames": lambda report: report.stranger_frames if _saw(report, of_enrolled=True) else nan,
    "swaps": lambda report: report.swaps if _saw(report) else nan,
    "shared_ids": lambda report: report.shared_ids if any(s.ids for s in report.followed) else nan,
    "seconds_to_name": lambda report: report.seconds_to_name.value,
}
# a table of person and the least share of their frames under the right name, in every recording of them
NAMED_SHARE = "named_share"


def unmet(report: ReplayReport, require: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each requirement not met or measured; ConfigurationError if none is called so."""
    missed = []
    for name, wanted in require.items():
        if name == NAMED_SHARE:
            shares = {who: report.named_share.get(who, 0.0) for who in wanted}
            missed += [
                f"{who} was named in {share:.3f} of the frames, expected {wanted[who]}"
                for who, share in shares.items()
                if not share >= wanted[who]
            ]
        elif name in AT_LEAST:
            value = AT_LEAST[name](report)
            if not value >= wanted:
                missed.append(f"{name} is {value:.3f}, expected at least {wanted}")
        elif name in AT_MOST:
            value = AT_MOST[name](report)
            if not value <= wanted:
                missed.append(f"{name} is {value:.3f}, expected at most {wanted}")
        else:
            known = ", ".join(sorted([*AT_LEAST, *AT_MOST, NAMED_SHARE]))
            raise ConfigurationError(f"require: {name}: no such figure; known are {known}")
    failed = report.failed_enrollments
    return missed + [f"enrollment of {one.name} failed: {one.message}" for one in failed]


def _worst(shares: Iterable[float]) -> float:
    """Return the least share; a stranger without any (NaN: never found, or never given an id) has 0."""
    return min((share if share >= 0 else 0.0 for share in shares), default=nan)


def _saw(report: ReplayReport, of_enrolled: bool = False) -> bool:
    """Whether a face was found in any frame; ``of_enrolled``: that of somebody enrolled."""
    return any(track.enrolled if of_enrolled else track.claims for track in report.tracks)

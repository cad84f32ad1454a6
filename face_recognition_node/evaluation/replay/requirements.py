"""Hold a replay's figures against what its scenario requires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.evaluation.replay.replay_report import ReplayReport

AT_LEAST: dict[str, Callable[[ReplayReport], float]] = {
    "identification_rate": lambda report: report.identification_rate.value,
    "stranger_share": lambda report: min(
        (s.main_id_share for e in report.episodes for s in e.strangers if s.frames), default=float("nan")
    ),
    "id_consistency": lambda report: min(
        (s.id_consistency for e in report.episodes for s in e.strangers if s.ids), default=float("nan")
    ),
}
"""Figures that must reach the number that a scenario requires; shares are the worst stranger's."""
AT_MOST: dict[str, Callable[[ReplayReport], float]] = {
    "false_positive_rate": lambda report: report.false_positive_rate.value,
    "wrong_seconds": lambda report: report.wrong_seconds,
    "stranger_frames": lambda report: float(report.stranger_frames),
    "swaps": lambda report: float(report.swaps),
    "shared_ids": lambda report: float(report.shared_ids),
    "seconds_to_name": lambda report: report.seconds_to_name.value,
}
"""Figures that must not exceed it."""
NAMED_SHARE = "named_share"
"""A table of person and the least share of his frames under the right name, in every recording of him."""


def unmet(report: ReplayReport, require: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each requirement that was missed; a figure that was not measured is missed.

    Raises:
        ConfigurationError: For a requirement that no figure answers to.
    """
    known = sorted([*AT_LEAST, *AT_MOST, NAMED_SHARE])
    missed = []
    for name, wanted in require.items():
        if name == NAMED_SHARE:
            shares = report.named_share
            for who, least in wanted.items():
                if not shares.get(who, 0.0) >= least:
                    missed.append(
                        f"{who} was named in {shares.get(who, 0.0):.3f} of the frames, expected {least}"
                    )
        elif name in AT_LEAST:
            value = AT_LEAST[name](report)
            if not value >= wanted:
                missed.append(f"{name} is {value:.3f}, expected at least {wanted}")
        elif name in AT_MOST:
            value = AT_MOST[name](report)
            if not value <= wanted:
                missed.append(f"{name} is {value:.3f}, expected at most {wanted}")
        else:
            raise ConfigurationError(f"require: {name}: no such figure; known are {', '.join(known)}")
    missed += [
        f"enrollment of {failed.name} failed: {failed.message}" for failed in report.failed_enrollments
    ]
    return missed

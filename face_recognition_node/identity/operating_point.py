"""What the target false-accept rate costs in a gallery of this size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from face_recognition_node.config import IdentityConfig
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.identity.calibration import Calibration

_GOOD_QUALITY = 0.9


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The target false-accept rate and what it costs at this size of the gallery."""

    target: float  # chance that a stranger's track is ever given a name
    strangers_named: float  # expected share of strangers who are given a name, in [0, 1]
    # expected share of enrolled people named from a single good view; a track gives several
    people_named: float
    # what was measured on videos when the model was calibrated, in a sentence; may be empty
    measured: str = ""


def operating_point(calibration: Calibration, config: IdentityConfig, snapshot: Snapshot) -> OperatingPoint:
    """Return what the target false-accept rate costs with these people enrolled.

    The share of people named is that of same-person comparisons beyond the decision threshold. The density of
    their similarities follows from the tables: that of different people times the likelihood ratio.
    """
    n = max(sum(not person.is_stranger for person in snapshot.persons.values()), 1)
    target = config.target_false_accept_rate
    grid = calibration.similarities.astype(np.float64)
    log_beyond = calibration.log_false_match(grid, _GOOD_QUALITY, _GOOD_QUALITY)
    ratio = calibration.log_likelihood_ratio(grid, _GOOD_QUALITY, _GOOD_QUALITY)
    different = np.clip(-np.diff(np.exp(log_beyond), append=0.0), 0.0, None)
    same = different * np.exp(np.clip(ratio, -50.0, 50.0))
    prior = math.log((1 - config.new_person_prior) / config.new_person_prior) - math.log(n)
    posterior_limit = math.log(config.minimum_probability / (1 - config.minimum_probability)) - prior
    is_clear = ratio >= posterior_limit
    by_one_view = is_clear & (log_beyond <= calibration.log_name_limit(target, n, n_views=1.0))
    share = float(same[by_one_view].sum() / max(float(same.sum()), 1e-12))
    by_track = is_clear & (log_beyond <= calibration.log_name_limit(target, n))
    limit = float(np.exp(log_beyond[by_track].max())) if by_track.any() else 0.0
    spent = 1.0 + math.log(calibration.comparisons_per_track)  # by the looser limits of the first views, too
    strangers = min(1.0, limit * n * calibration.comparisons_per_track * spent)
    return OperatingPoint(target, strangers, share, _measured(calibration, n))


def _measured(calibration: Calibration, n_people: int) -> str:
    """Return the measurement at the gallery size closest to this one, in a sentence; empty: there is none."""
    rows = list((calibration.report or {}).get("tracks") or ())
    if not rows:
        return ""
    row = min(rows, key=lambda one: abs(math.log(one["n_enrolled"] / n_people)))
    return (
        f"Measured on videos with {row['n_enrolled']} people enrolled and a target of {row['target']:.1%}: "
        f"{row['strangers_named']:.1%} of {row['n_strangers']} strangers were given a name, "
        f"{row['enrolled_named']:.0%} of the enrolled people were named."
    )

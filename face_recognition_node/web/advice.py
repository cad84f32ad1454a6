"""What the target false-accept rate costs, and which entries of a gallery may be one person."""

from __future__ import annotations

import math

import numpy as np

from face_recognition_node.config import IdentityConfig
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.person_models import pairs_of_one_person
from face_recognition_node.web.operator import TWIN_PROBABILITY, OperatingPoint, Pair

_STRANGER_PROBABILITY = 0.3
"""From which on an entry without a name that may be another one is shown."""
_GOOD_QUALITY = 0.9


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
    is_named = (log_beyond <= calibration.log_name_limit(target, n)) & (ratio >= posterior_limit)
    share = float(same[is_named].sum() / max(float(same.sum()), 1e-12))
    limit = float(np.exp(log_beyond[is_named].max())) if is_named.any() else 0.0
    strangers = min(1.0, limit * n * calibration.looks)
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


def pairs_that_may_be_one(calibration: Calibration, snapshot: Snapshot) -> tuple[Pair, ...]:
    """Return pairs that are probably one person, most probable first; the one with a name comes first."""
    return tuple(
        Pair(first, second, chance)
        for first, second, chance in pairs_of_one_person(calibration, snapshot, _STRANGER_PROBABILITY)
        if snapshot.persons[second].is_stranger or chance >= TWIN_PROBABILITY
    )

"""What the page says about the operating point, about entries that may be one person, and about problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.comparison import pairs_of_one_person
from face_recognition_node.identity.identity import IdentityConfig
from face_recognition_node.web.operator import Card, OperatingPoint, Pair, Problem, Verification

LEAST_PROBABILITY = 0.3
"""Of a pair that is worth the operator's attention."""
_GOOD_QUALITY = 0.9


def operating_point(calibration: Calibration, config: IdentityConfig, n_people: int) -> OperatingPoint:
    """Return what the target false-accept rate costs with so many people enrolled.

    The share of people named is that of same-person comparisons beyond the decision threshold. The density of
    their similarities follows from the tables: that of different people times the likelihood ratio.
    """
    target, n = config.target_false_accept_rate, max(n_people, 1)
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
    return OperatingPoint(target, n_people, strangers, share, _measured(calibration, n))


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
    """Return pairs with at least one stranger that are probably one person, most probable first."""
    return tuple(
        Pair(*pair)
        for pair in pairs_of_one_person(calibration, snapshot, LEAST_PROBABILITY)
        if snapshot.persons[pair[1]].is_stranger  # the one with a name comes first
    )


def explain(
    is_sound: bool,
    found: Sequence[str],
    suspicious: Mapping[int, str],
    n_entries: int,
    n_views: int,
) -> Verification:
    """Return a check's result with what to do about each problem.

    Args:
        is_sound: Nothing is wrong with the file, its keys and the index.
        found: What is wrong, a sentence each.
        suspicious: Views that resemble somebody else more: number and whose they are stored as.
        n_entries: Persons and strangers.
        n_views: Of all of them.
    """
    problems = [Problem(text, _cure(text), is_error=True) for text in found]
    problems += [
        Problem(
            f"View {view} of {name} does not fit the other views of {name}, or fits somebody else better",
            f"Look at the views of {name} and split this one off if it shows another person.",
        )
        for view, name in suspicious.items()
    ]
    summary = f"{n_entries} entries with {n_views} views: " + (
        "no problem found" if not problems else f"{len(problems)} things to look at"
    )
    return Verification(is_sound, summary, tuple(problems))


def _cure(problem: str) -> str:
    """Return what to do about a problem of the gallery that does not name its cure itself."""
    if "chmod" in problem:
        return ""
    if "key is not on this machine" in problem:
        return "Copy the folder of keys from the machine the gallery came from, or go on without undo."
    if "search index" in problem:
        return "Restart the node: it builds the index anew from the file."
    return "Export everybody, move the gallery file away, restart and import the export."


def changes(before: Sequence[Card], after: Sequence[Card]) -> list[tuple[str, str]]:
    """Return what differs between two versions of a gallery: person_id and a sentence each."""
    old, found = {card.person_id: card for card in before}, []
    for card in after:
        label, was = card.name or card.person_id, old.pop(card.person_id, None)
        if was is None:
            found.append((card.person_id, f"{label} added with {card.n_templates} views"))
            continue
        if was.name != card.name:
            found.append((card.person_id, f"{was.name or was.person_id} is now called {label}"))
        if was.n_templates != card.n_templates:
            found.append((card.person_id, f"{label} has {card.n_templates} views, had {was.n_templates}"))
    return found + [(gone.person_id, f"{gone.name or gone.person_id} removed") for gone in old.values()]

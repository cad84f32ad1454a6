"""Open-set identification: is somebody of the gallery there, who, and how often is a stranger given a name?

Terms of Grother & Ngan (NIST FRVT, 1:N): probes of enrolled people are *mated*, probes of strangers
*non-mated*. FPIR is the share of non-mated probes whose best candidate reaches the threshold; DIR (rank 1)
the share of mated probes whose best candidate is the right person and reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.bootstrap import TAILS
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.vision.faces import FloatArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One operating point, averaged over repetitions, with a 95 % bootstrap interval over people."""

    fpir: float  # false positive identification rate asked for
    dir: float  # detection and identification rate at rank 1, with `low` and `high` of its interval
    low: float
    high: float
    threshold: float  # cosine at which the rate is met (mean over repetitions)
    # where only some faces are counted (a group, a range of yaw): the share of *their* strangers that reach
    # the threshold, which all strangers set; nan if there are none
    counted_fpir: float | None = None
    # whether there are strangers enough for even one to be named at this rate; if not, the threshold is that
    # of no false name at all
    is_resolved: bool = True

    def __str__(self) -> str:
        text = f"DIR {100 * self.dir:5.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] at FPIR "
        text += f"{100 * self.fpir:g} %" + (
            "" if self.is_resolved else " (too few strangers: at no false name)"
        )
        return text + ("" if self.counted_fpir is None else f" (of these {100 * self.counted_fpir:.1f} %)")


@dataclass(frozen=True, slots=True)
class IdentificationResult:
    """What one gallery size and number of shots gave; numbers of probes are means over repetitions."""

    gallery_size: int
    shots: int  # faces enrolled of each of the `gallery_size` people
    repetitions: int  # random galleries
    mated: float  # probes of enrolled people
    non_mated: float  # probes of strangers
    rank_one: float  # share of mated probes whose best candidate is right, whatever its score
    points: tuple[RatePoint, ...]  # one per FPIR asked for

    def __str__(self) -> str:
        return f"rank 1 {100 * self.rank_one:5.1f} %  {'  '.join(map(str, self.points))}"


def person_similarity(
    probes: FloatArray, gallery: FloatArray, people: LabelArray
) -> tuple[FloatArray, LabelArray]:
    """Return (P, G) best similarities of (P, D) probes with people of (T, D) vectors, and the (G,) people."""
    order = np.argsort(people, kind="stable")
    names, starts = np.unique(people[order], return_index=True)
    if len(names) == 0 or len(probes) == 0:
        return np.empty((len(probes), len(names)), np.float32), names
    return np.maximum.reduceat(probes @ gallery[order].T, starts, axis=1), names


def identify(probes: FloatArray, gallery: FloatArray, people: LabelArray) -> tuple[FloatArray, LabelArray]:
    """Return each probe's best similarity (P,) and the person it belongs to (P,)."""
    scores, names = person_similarity(probes, gallery, people)
    if len(names) == 0:
        raise InputError("expected a gallery of at least one person, got an empty one")
    best = scores.argmax(axis=1)
    return scores[np.arange(len(scores)), best], names[best]


def rejection_threshold(stranger_scores: FloatArray, fpir: float) -> float:
    """Return what at most a share ``fpir``, in [0, 1], of the strangers' best scores (one or more) exceed."""
    if len(stranger_scores) == 0 or not 0 <= fpir <= 1:
        raise InputError(f"expected strangers and a rate in [0, 1], got {len(stranger_scores)} and {fpir}")
    ordered = np.sort(stranger_scores)[::-1]
    allowed = int(np.floor(fpir * len(ordered)))
    return float(ordered[allowed]) if allowed < len(ordered) else -np.inf


def open_set_identification(
    embeddings: FloatArray,
    labels: LabelArray,
    gallery_size: int,
    shots: int,
    fpir: Sequence[float] = (0.1, 0.01),
    repetitions: int = 10,
    seed: int = 0,
    probes: FloatArray | None = None,
    counted: BoolArray | None = None,
) -> IdentificationResult:
    """Enroll random people, show everybody's other faces, and count.

    In each repetition ``gallery_size`` people with more than ``shots`` faces are enrolled with ``shots``
    random faces each. All their other faces are mated probes; all faces of all other people are non-mated
    ones.

    Args:
        embeddings: (N, D) unit vectors.
        labels: (N,) identities.
        gallery_size: People to enroll.
        shots: Faces of each.
        fpir: Rates to report.
        repetitions: Random galleries.
        seed: Of the random choice and the bootstrap.
        probes: (N, D) what the faces give when they are probes (reduced or blurred); default: ``embeddings``.
        counted: (N,) which faces count as mated probes (those turned away, those of a group); default: all.
            Of strangers all set the threshold, and how many of the counted ones reach it is reported beside.

    Raises:
        InputError: If too few people have enough faces, or nobody is left as a stranger.
    """
    if gallery_size < 1 or shots < 1:
        raise InputError(f"gallery size and shots: expected at least 1, got {gallery_size} and {shots}")
    probes = embeddings if probes is None else probes
    values, counts = np.unique(labels, return_counts=True)
    able = values[counts > shots]
    if len(able) < gallery_size or len(values) <= gallery_size:
        raise InputError(
            f"gallery of {gallery_size} x {shots}: expected more people, got {len(able)} with over "
            f"{shots} faces among {len(values)}"
        )
    random = np.random.default_rng(seed)
    trials: list[_Trial] = []
    for _ in range(repetitions):
        enrolled = random.choice(able, gallery_size, replace=False)
        is_enrolled = np.isin(labels, enrolled)
        chosen = np.concatenate(
            [random.choice(np.flatnonzero(labels == person), shots, replace=False) for person in enrolled]
        )
        is_mated = is_enrolled.copy()
        is_mated[chosen] = False
        if counted is not None:
            is_mated &= counted
        if not is_mated.any():
            continue
        scores, found = identify(probes, embeddings[chosen], labels[chosen])
        right = found == labels
        strangers = ~is_enrolled
        trials.append(
            _Trial(
                scores[is_mated], right[is_mated], labels[is_mated], scores[strangers], labels[strangers],
                None if counted is None else counted[strangers],
            )
        )  # fmt: skip
    if not trials:
        raise InputError("counted: expected mated probes among these faces, got none in any gallery")
    return IdentificationResult(
        gallery_size,
        shots,
        repetitions,
        mated=float(np.mean([len(trial.scores) for trial in trials])),
        non_mated=float(np.mean([len(trial.strangers) for trial in trials])),
        rank_one=float(np.mean([trial.right.mean() for trial in trials])),
        points=tuple(_rate_point(trials, rate, random) for rate in fpir),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One random gallery: (M,) mated and (S,) non-mated probes, their best scores and whose they are."""

    scores: FloatArray
    right: BoolArray  # whether the best candidate is the right person
    people: LabelArray
    strangers: FloatArray
    stranger_people: LabelArray
    counted: BoolArray | None  # which non-mated probes are counted; None for all


def _rate_point(
    trials: Sequence[_Trial], fpir: float, random: np.random.Generator, resamples: int = 20
) -> RatePoint:
    rates, thresholds, spread, of_counted = [], [], [], []
    for trial in trials:
        limit = rejection_threshold(trial.strangers, fpir)
        thresholds.append(limit)
        rates.append(float((trial.right & (trial.scores > limit)).mean()))
        if trial.counted is not None and trial.counted.any():
            of_counted.append(float((trial.strangers[trial.counted] > limit).mean()))
        for _ in range(resamples):
            drawn = _resample_people(trial.stranger_people, random)
            kept = _resample_people(trial.people, random)
            again = rejection_threshold(trial.strangers[drawn], fpir)
            spread.append(float((trial.right[kept] & (trial.scores[kept] > again)).mean()))
    low, high = np.quantile(spread, TAILS)
    return RatePoint(
        fpir,
        float(np.mean(rates)),
        float(low),
        float(high),
        float(np.mean(thresholds)),
        None if trials[0].counted is None else float(np.mean(of_counted or [np.nan])),
        all(fpir * len(trial.strangers) >= 1 for trial in trials),
    )


def _resample_people(people: LabelArray, random: np.random.Generator) -> LabelArray:
    """Indices of all faces of people drawn with replacement: faces of one person are not independent."""
    order = np.argsort(people, kind="stable")
    _, starts, counts = np.unique(people[order], return_index=True, return_counts=True)
    drawn = random.integers(0, len(starts), len(starts))
    return np.concatenate([order[starts[one] : starts[one] + counts[one]] for one in drawn])

"""Verification: are these two pictures of the same person? Metrics of the official LFW protocol and beyond.

Accuracy follows "View 2" of LFW (Huang et al. 2007): for each of ten folds the threshold that is best on
the other nine judges the held-out one; reported are the mean and the standard deviation of the ten. ROC words
as in NIST's reports: FAR is the share of different pairs accepted, TAR that of same pairs accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.bootstrap import Estimate, estimate
from face_recognition_node.vision.faces import FloatArray

FALSE_ACCEPT_RATES = (1e-2, 1e-3, 1e-4, 1e-5)
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """Every threshold at which an answer changes, from strictest to loosest."""

    # (T,) a pair is accepted if its similarity is at least this; the first accepts none
    threshold: NDArray[np.float64]
    false_accept_rate: NDArray[np.float64]  # (T,) ascending
    true_accept_rate: NDArray[np.float64]  # (T,) ascending

    @property
    def area(self) -> float:
        """Area under the curve: the chance that a same pair is more similar than a different one."""
        widths, heights = np.diff(self.false_accept_rate), self.true_accept_rate
        return float((widths * (heights[1:] + heights[:-1]) / 2).sum())

    @property
    def equal_error_rate(self) -> float:
        """Error rate where as many different pairs are accepted as same pairs are rejected."""
        rejected = 1 - self.true_accept_rate
        at = int(np.argmin(np.abs(rejected - self.false_accept_rate)))
        return float((rejected[at] + self.false_accept_rate[at]) / 2)


def roc_curve(similarity: FloatArray, is_same: BoolArray) -> RocCurve:
    """Return the ROC curve of (P,) similarities; InputError unless there are pairs of both kinds."""
    values, same = np.asarray(similarity, np.float64), np.asarray(is_same, bool)
    if values.ndim != 1 or values.shape != same.shape:
        raise InputError(
            f"similarity, is_same: expected equal shapes (P,), got {values.shape} and {same.shape}"
        )
    if not np.isfinite(values).all():
        raise InputError("similarity: expected finite numbers, got NaN or infinity")
    if not same.any() or same.all():
        raise InputError("is_same: expected pairs of both kinds, got only one kind")
    order = np.argsort(-values, kind="stable")
    values, same = values[order], same[order]
    last_of_equals = np.append(np.diff(values) != 0, True)
    accepted_same, accepted_different = np.cumsum(same)[last_of_equals], np.cumsum(~same)[last_of_equals]
    return RocCurve(
        np.concatenate([[np.inf], values[last_of_equals]]),
        np.concatenate([[0.0], accepted_different / accepted_different[-1]]),
        np.concatenate([[0.0], accepted_same / accepted_same[-1]]),
    )


@dataclass(frozen=True, slots=True)
class AcceptPoint:
    """TAR at one FAR."""

    far: float  # false accept rate asked for
    tar: float  # largest true accept rate at which no more than that are falsely accepted
    threshold: float  # similarity that gives it
    # whether there are enough different pairs for even one to be accepted at this rate; if not, `tar` is that
    # of no false accept at all
    is_resolved: bool


def accept_points(
    curve: RocCurve, n_different: int, rates: Sequence[float] = FALSE_ACCEPT_RATES
) -> tuple[AcceptPoint, ...]:
    """Return TAR at each of the asked false accept rates."""
    points = []
    for rate in rates:
        at = int(np.searchsorted(curve.false_accept_rate, rate * (1 + 1e-9), side="right")) - 1
        tar, threshold = float(curve.true_accept_rate[at]), float(min(curve.threshold[at], 1.0))
        points.append(AcceptPoint(rate, tar, threshold, n_different * rate >= 1))
    return tuple(points)


def best_accuracy_threshold(similarity: FloatArray, is_same: BoolArray) -> float:
    """Return the threshold that judges most pairs right, midway between the similarities it separates."""
    curve = roc_curve(similarity, is_same)
    n_same = int(np.count_nonzero(is_same))
    right = curve.true_accept_rate * n_same + (1 - curve.false_accept_rate) * (len(similarity) - n_same)
    at = int(np.argmax(right))
    if at == 0:
        return float(np.nextafter(np.float32(curve.threshold[1]), np.float32(np.inf)))
    accepted, rejected = curve.threshold[at], curve.threshold[at + 1] if at + 1 < len(right) else -np.inf
    middle = np.float32((accepted + rejected) / 2)
    # between neighbours among float32 numbers there is no middle
    return float(middle if rejected < middle else accepted)


def judge_by_folds(
    similarity: FloatArray, is_same: BoolArray, fold: NDArray[np.intp]
) -> tuple[BoolArray, FloatArray]:
    """Return (P,) whether each pair is judged right by the other folds' best threshold, and each fold's."""
    right = np.zeros(len(similarity), bool)
    thresholds = []
    for number in np.unique(fold):
        held_out = fold == number
        threshold = best_accuracy_threshold(similarity[~held_out], is_same[~held_out])
        right[held_out] = (similarity[held_out] >= threshold) == is_same[held_out]
        thresholds.append(threshold)
    return right, np.asarray(thresholds, np.float32)


def judged_f1(right: BoolArray, is_same: BoolArray) -> float:
    """Return F1 = 2 TP / (2 TP + FP + FN) of "same person" from whether each pair was judged right."""
    hits = int(np.count_nonzero(right & is_same))
    return 2 * hits / max(1, 2 * hits + int(np.count_nonzero(~right)))


def best_f1(curve: RocCurve, n_same: int, n_different: int) -> tuple[float, float]:
    """Return the best F1 of "same person" over all thresholds, and its threshold."""
    hits = curve.true_accept_rate * n_same
    false_hits = curve.false_accept_rate * n_different
    scores = 2 * hits / (hits + false_hits + n_same)
    at = int(np.argmax(scores))
    return float(scores[at]), float(min(curve.threshold[at], 1.0))


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What the protocol gave."""

    accuracy: float  # mean over the folds; `accuracy_std` is their standard deviation
    accuracy_std: float
    # the share of pairs judged right with its 95 % bootstrap interval over people
    accuracy_interval: Estimate
    threshold: float  # mean similarity threshold of the folds
    area: float
    equal_error_rate: float
    accept: tuple[AcceptPoint, ...]  # TAR at false accept rates
    f1: float  # of "same person", each fold judged by the threshold that is best on the others, like accuracy
    best_f1: float  # best F1 over all thresholds, chosen on the same pairs: what is usually reported
    best_f1_threshold: float
    n_pairs: int

    def __str__(self) -> str:
        return "\n".join([
            f"accuracy        {self.accuracy:.4f} ± {self.accuracy_std:.4f}, folds of {self.n_pairs} pairs",
            f"all folds       {self.accuracy_interval}",
            f"threshold       {self.threshold:.3f} (cosine)",
            f"area, EER       {self.area:.4f}, {self.equal_error_rate:.4f}",
            f"F1              {self.f1:.4f}, best {self.best_f1:.4f} at cosine {self.best_f1_threshold:.3f}",
            *format_accept(self.accept),
        ])  # fmt: skip


def format_accept(points: Sequence[AcceptPoint]) -> list[str]:
    """Return one line for each point."""
    return [
        f"TAR@FAR {point.far:.0e}   {point.tar:.4f} at cosine {point.threshold:.3f}"
        + ("" if point.is_resolved else "  (too few pairs: at no false accept)")
        for point in points
    ]


def evaluate_pairs(
    similarity: FloatArray, is_same: BoolArray, fold: NDArray[np.intp], person: Sequence[str] | None = None
) -> VerificationResult:
    """Return all figures of (P,) pairs in two or more folds, intervals over ``person`` (default: pairs)."""
    curve = roc_curve(similarity, is_same)
    if len(fold) != len(similarity) or len(np.unique(fold)) < 2:
        raise InputError(f"fold: expected {len(similarity)} numbers of at least two folds, got {len(fold)}")
    right, thresholds = judge_by_folds(similarity, is_same, fold)
    by_fold = [float(right[fold == number].mean()) for number in np.unique(fold)]
    n_same = int(np.count_nonzero(is_same))
    n_different = len(is_same) - n_same
    best, best_threshold = best_f1(curve, n_same, n_different)
    return VerificationResult(
        accuracy=float(np.mean(by_fold)),
        accuracy_std=float(np.std(by_fold)),
        accuracy_interval=estimate(right.astype(np.float64).tolist(), clusters=person),
        threshold=float(thresholds.mean()),
        area=curve.area,
        equal_error_rate=curve.equal_error_rate,
        accept=accept_points(curve, n_different),
        f1=judged_f1(right, is_same),
        best_f1=best,
        best_f1_threshold=best_threshold,
        n_pairs=len(is_same),
    )


@dataclass(frozen=True, slots=True)
class AllPairsResult:
    """TAR at FAR over every pair of pictures, which resolves rates that 3,000 official pairs cannot."""

    accept: tuple[AcceptPoint, ...]
    n_same: int
    n_different: int

    def __str__(self) -> str:
        head = f"all pairs: {self.n_same} of one person, {self.n_different} of two"
        return "\n".join([head, *format_accept(self.accept)])


def evaluate_all_pairs(
    embeddings: FloatArray,
    people: Sequence[str],
    rates: Sequence[float] = FALSE_ACCEPT_RATES,
    block: int = 512,
) -> AllPairsResult:
    """Compare every picture with every other: (N, D) unit vectors, of these people.

    Only the different pairs that matter at the largest rate are kept, so memory stays bounded.

    Raises:
        InputError: If there are no pairs of one of the kinds.
    """
    _, labels = np.unique(np.asarray(people), return_inverse=True)
    counts = np.bincount(labels)
    n_same = int((counts * (counts - 1) // 2).sum())
    n_different = len(labels) * (len(labels) - 1) // 2 - n_same
    if n_same == 0 or n_different == 0:
        raise InputError("people: expected pairs of one person and of two, got only one kind")
    wanted = int(max(rates) * n_different) + 1
    same: list[FloatArray] = []
    hardest = np.empty(0, np.float32)
    for start in range(0, len(labels), block):
        rows = slice(start, start + block)
        similarity = embeddings[rows] @ embeddings.T
        later = np.arange(len(labels))[None, :] > np.arange(start, min(start + block, len(labels)))[:, None]
        is_same = labels[rows, None] == labels[None, :]
        same.append(similarity[later & is_same])
        hardest = np.concatenate([hardest, similarity[later & ~is_same]])
        if len(hardest) > wanted:
            hardest = np.partition(hardest, len(hardest) - wanted)[-wanted:]
    ranked, matched = np.sort(hardest)[::-1], np.sort(np.concatenate(same))
    points = []
    for rate in rates:
        allowed = int(rate * n_different * (1 + 1e-9))
        bound = ranked[allowed] if allowed < len(ranked) else np.float32(-1)
        tar = 1 - np.searchsorted(matched, bound, side="right") / n_same
        points.append(AcceptPoint(rate, float(tar), float(bound), allowed >= 1))
    return AllPairsResult(tuple(points), n_same, n_different)

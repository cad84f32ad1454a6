"""How good a calibration is, on people it was not fitted on.

The log-likelihood-ratio cost Cllr (Brummer and du Preez 2006, eq. 21; 0 is perfect, 1 says nothing) and its
minimum over all monotone recalibrations, the expected calibration error of the posterior at even odds
(Naeini et al. 2015), and the measured against the promised false match rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.calibration import (
    QUALITY_LEVELS,
    DoubleArray,
    LabelledFaces,
    draw_faces_of_level,
    kinds_of_pairs,
    mean_hubness,
)
from face_recognition_node.identity.calibration import Calibration

PROMISED_RATES = (1e-1, 1e-2, 1e-3, 1e-4)


def cllr(same: DoubleArray, different: DoubleArray) -> float:
    """Return the cost of natural-log likelihood ratios, in bits (Brummer and du Preez 2006, eq. 21)."""
    miss = np.logaddexp(0.0, -same).mean() / np.log(2)
    alarm = np.logaddexp(0.0, different).mean() / np.log(2)
    return float((miss + alarm) / 2)


def _even_odds(same: DoubleArray, different: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return both kinds as one array of values, of labels (1: one person) and of weights at even odds."""
    labels = np.concatenate([np.ones(len(same)), np.zeros(len(different))])
    weights = np.where(labels == 1, 0.5 / max(len(same), 1), 0.5 / max(len(different), 1))
    return np.concatenate([same, different]), labels, weights


def minimum_cllr(same: DoubleArray, different: DoubleArray) -> float:
    """Return the cost after the best monotone recalibration on the very ratios (pool adjacent violators)."""
    from sklearn.isotonic import IsotonicRegression

    values, labels, weights = _even_odds(same, different)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(values, labels, sample_weight=weights)
    fitted = np.clip(fitted, 1e-12, 1 - 1e-12)
    best = np.log(fitted) - np.log1p(-fitted)
    return cllr(best[: len(same)], best[len(same) :])


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs whose posterior lies in one interval: its mean, and the share that are one person."""

    predicted: float
    observed: float
    weight: float


def reliability(same: DoubleArray, different: DoubleArray, n_bins: int = 15) -> list[ReliabilityBin]:
    """Return the reliability curve of natural-log ratios at even odds, empty bins left out."""
    ratios, labels, weights = _even_odds(same, different)
    values = 1.0 / (1.0 + np.exp(-ratios))
    place = np.minimum((values * n_bins).astype(int), n_bins - 1)
    bins = []
    for k in range(n_bins):
        inside = place == k
        total = float(weights[inside].sum())
        if total > 0:
            predicted, observed = (float(weights[inside] @ of[inside]) / total for of in (values, labels))
            bins.append(ReliabilityBin(predicted, observed, total))
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the weighted mean gap between predicted and observed (Naeini et al. 2015, eq. 3)."""
    return float(sum(b.weight * abs(b.predicted - b.observed) for b in bins))


@dataclass(frozen=True, slots=True)
class LevelReport:
    """How well the tables do where both faces are of one quality level."""

    quality: float
    n_same: int
    n_different: int
    cllr: float
    cllr_minimum: float
    expected_calibration_error: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What was measured on people that the tables have not seen, over all (pairs of) quality levels."""

    n_people: int
    n_faces: int  # degraded ones included
    levels: tuple[LevelReport, ...]
    false_match: tuple[tuple[float, float], ...]  # promised and measured rates
    bins: tuple[ReliabilityBin, ...]  # reliability curve, of which the calibration error is
    cllr: float  # mean
    cllr_minimum: float
    expected_calibration_error: float
    left_out: tuple[str, ...] = ()  # pairs of levels with too few pairs of faces to be in these figures

    def __str__(self) -> str:
        lines = [
            f"{self.n_people} people, {self.n_faces} faces (none seen in fitting)",
            f"Cllr {self.cllr:.3f} (best monotone {self.cllr_minimum:.3f}), "
            f"expected calibration error {self.expected_calibration_error:.3f}",
            "quality  same pairs  different pairs   Cllr   best    ECE",
        ]
        lines += [
            f"{level.quality:7.2f}  {level.n_same:10d}  {level.n_different:15d}  {level.cllr:.3f}  "
            f"{level.cllr_minimum:.3f}  {level.expected_calibration_error:.3f}"
            for level in self.levels
        ]
        lines.append(
            "false match rate promised -> measured: "
            + ", ".join(f"{p:g} -> {m:.2g}" for p, m in self.false_match)
        )
        if self.left_out:
            lines.append(f"not judged, too few faces of such qualities: {', '.join(self.left_out)}")
        return "\n".join(lines)


def judge_calibration(calibration: Calibration, faces: LabelledFaces, seed: int = 0) -> CalibrationReport:
    """Measure a calibration on faces of people it was not fitted on."""
    generator = np.random.default_rng(seed)
    groups = [draw_faces_of_level(faces, level, generator) for level in range(len(QUALITY_LEVELS))]
    levels, costs, minima, alike, unlike, rates, left_out = [], [], [], [], [], [], []
    for i, a in enumerate(groups):
        for j in range(i + 1):
            same, different, tail = _pair_ratios(calibration, a, groups[j])
            if len(same) < 50 or len(different) < 1000:
                left_out.append(f"{QUALITY_LEVELS[i]:g} x {QUALITY_LEVELS[j]:g}")
                continue
            thinned = different[:: max(len(different) // 100_000, 1)]
            cost, best = cllr(same, different), minimum_cllr(same, thinned)
            costs.append(cost)
            minima.append(best)
            alike.append(same)
            unlike.append(thinned)
            rates.append(tail)
            if i == j:
                error = expected_calibration_error(reliability(same, different))
                levels.append(LevelReport(QUALITY_LEVELS[i], len(same), len(different), cost, best, error))
    if not costs:
        raise InputError(
            "calibration: too few people to judge it on; expected several hundred with two photographs"
        )
    bins = reliability(np.concatenate(alike), np.concatenate(unlike))
    tails = np.concatenate(rates)
    return CalibrationReport(
        n_people=len(np.unique(faces.identities)),
        n_faces=len(faces),
        levels=tuple(levels),
        false_match=tuple((rate, float((tails <= np.log(rate)).mean())) for rate in PROMISED_RATES),
        bins=tuple(bins),
        cllr=float(np.mean(costs)),
        cllr_minimum=float(np.mean(minima)),
        expected_calibration_error=expected_calibration_error(bins),
        left_out=tuple(left_out),
    )


def _pair_ratios(
    calibration: Calibration, a: LabelledFaces, b: LabelledFaces
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return log ratios of same and different pairs, and the log false match rates of the different ones."""
    of_pairs = (
        a.embeddings @ b.embeddings.T, a.qualities[:, None], b.qualities[None, :],
        mean_hubness(calibration, a, b),
    )  # fmt: skip
    same, different = kinds_of_pairs(a, b)
    ratios = calibration.log_likelihood_ratio(*of_pairs)
    return ratios[same], ratios[different], calibration.log_false_match(*of_pairs)[different]


def draw_reliability(bins: Sequence[ReliabilityBin], path: Path) -> None:
    """Write a PNG of the share of pairs that are one person against the posterior claimed."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.5, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfect")
        predicted, observed = [b.predicted for b in bins], [b.observed for b in bins]
        axes.plot(predicted, observed, marker="o", markersize=4, label="measured")
        axes.bar(predicted, [b.weight for b in bins], width=0.03, alpha=0.3, label="share of pairs")
        axes.set(xlabel="posterior at even odds", ylabel="share that is one person", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
        figure.savefig(path, format="png", dpi=150)

"""Learn what a similarity is worth, and judge what was learned on other people.

Fitting, for each pair of quality levels:

* different people: all pairs of different identities; the false match rate ``P(S >= s)`` is the empirical one
  down to where thirty pairs remain, and continues beyond with the slope it has there (an exponential tail), but
  never below one in a million: data cannot tell more.
* same person: a smoothed histogram of pairs of different photographs, each identity weighing the square root of
  its number of pairs, with 0.5 % of a uniform density mixed in for faces that nothing can be learned from.
* their log ratio, made monotone by isotonic regression (scikit-learn).

Judging: the log-likelihood-ratio cost Cllr (Brummer and du Preez 2006, eq. 21; 0 is perfect, 1 says nothing) and
its minimum over all monotone recalibrations, the expected calibration error of the posterior at even odds
(Naeini et al. 2015), and the measured against the promised false match rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.core.calibration import Calibration
from face_recognition_node.core.errors import InputError
from face_recognition_node.core.faces import FloatArray

IntArray = NDArray[np.int64]
DoubleArray = NDArray[np.float64]

QUALITY_LEVELS = (0.3, 0.45, 0.6, 0.75, 0.85, 0.95)
"""Quality levels at which the tables stand."""
N_PROTOTYPES, NEIGHBOURS, COMMONNESS_WEIGHT = 256, 16, 0.7
"""Of the commonness (core/calibration.py); chosen on LFW's fitting half, flat around these values."""
_FINE = 0.01
_EDGES = np.arange(-0.8, 1.2 + _FINE / 2, _FINE)
_CENTERS = (_EDGES[:-1] + _EDGES[1:]) / 2
_GRID = np.round(np.arange(-0.6, 1.001, 0.02), 2)
_UNIFORM = 0.005
_SMALLEST_RATE = 1e-6
_MOST_FACES = 2500


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFaces:
    """Embedded faces of known people; a photograph may occur several times, degraded in different ways.

    Attributes:
        embeddings: (N, D) unit vectors.
        qualities: (N,) in [0, 1].
        identities: (N,) whose face it is.
        photographs: (N,) which photograph it shows; a photograph is never compared with itself.
    """

    embeddings: FloatArray
    qualities: FloatArray
    identities: IntArray
    photographs: IntArray

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, index: NDArray[Any]) -> LabelledFaces:
        """Return some of the faces."""
        return LabelledFaces(
            self.embeddings[index], self.qualities[index], self.identities[index], self.photographs[index]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Corrected similarities of the pairs between two sets of faces.

    Attributes:
        same: (G,) of one person.
        same_weights: (G,) so that no identity dominates.
        different: (I,) of different people.
    """

    same: DoubleArray
    same_weights: DoubleArray
    different: DoubleArray


def fit_prototypes(embeddings: FloatArray, count: int, rounds: int = 20, seed: int = 0) -> FloatArray:
    """Return (count, D) centres of spherical k-means over unit vectors (Dhillon and Modha 2001)."""
    generator = np.random.default_rng(seed)
    count = min(count, max(len(embeddings) // 4, NEIGHBOURS))
    if len(embeddings) < count:
        raise InputError(f"expected at least {count} faces to find prototypes among, got {len(embeddings)}")
    centers = embeddings[generator.choice(len(embeddings), count, replace=False)]
    for _ in range(rounds):
        nearest = (embeddings @ centers.T).argmax(axis=1)
        sums = np.zeros_like(centers)
        np.add.at(sums, nearest, embeddings)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), centers)
    return np.asarray(centers, np.float32)


def score_pairs(
    a: LabelledFaces, b: LabelledFaces, correct: Callable[[LabelledFaces, LabelledFaces], DoubleArray]
) -> Scores:
    """Return the scores of all pairs between two sets, the pairs of one photograph left out."""
    scores = correct(a, b)
    is_same = a.identities[:, None] == b.identities[None, :]
    usable = is_same & (a.photographs[:, None] != b.photographs[None, :])
    rows = np.nonzero(usable)[0]
    counts = np.bincount(a.identities[rows]) if len(rows) else np.zeros(1)
    weights = 1.0 / np.sqrt(counts[a.identities[rows]]) if len(rows) else np.zeros(0)
    return Scores(scores[usable], weights, scores[~is_same])


def fit_calibration(
    faces: LabelledFaces, *, embedder_sha256: str, looks: float, correlation_s: float, seed: int = 0
) -> Calibration:
    """Fit the tables on faces of many people.

    Args:
        faces: With all qualities that the tables should know.
        embedder_sha256: Weights that made the embeddings.
        looks: See :class:`Calibration`.
        correlation_s: See :class:`Calibration`.
        seed: Of the prototypes and of the draw of at most 2,500 faces a quality level.

    Raises:
        InputError: If a quality level has too few people to learn from.
    """
    generator = np.random.default_rng(seed)
    good = faces.take(np.flatnonzero(faces.qualities >= np.quantile(faces.qualities, 0.5)))
    _, first = np.unique(good.identities, return_index=True)
    prototypes = fit_prototypes(good.embeddings[first], N_PROTOTYPES, seed=seed)
    n_levels = len(QUALITY_LEVELS)
    empty = np.zeros((n_levels, n_levels, len(_GRID)), np.float32)
    blank = Calibration(
        np.array(QUALITY_LEVELS, np.float32), _GRID.astype(np.float32), empty, empty.copy(), prototypes,
        min(NEIGHBOURS, len(prototypes)), COMMONNESS_WEIGHT, 0.0, looks, correlation_s, embedder_sha256,
    )  # fmt: skip
    common = float(blank.commonness(good.embeddings[first]).mean())
    blank = _replace(blank, mean_commonness=common)
    groups = [
        faces.take(_draw(np.flatnonzero(nearest_level(faces.qualities) == level), generator))
        for level in range(n_levels)
    ]
    for i in range(n_levels):
        for j in range(i + 1):
            ratio, false_match = fit_cell(score_pairs(groups[i], groups[j], _corrector(blank)))
            empty[i, j] = empty[j, i] = ratio
            blank.false_match[i, j] = blank.false_match[j, i] = false_match
    return blank


def fit_cell(scores: Scores) -> tuple[DoubleArray, DoubleArray]:
    """Return log-likelihood ratio and log false match rate on the similarity grid."""
    from sklearn.isotonic import IsotonicRegression

    if len(scores.same) < 100 or len(scores.different) < 10_000:
        raise InputError(
            f"calibration: expected at least 100 pairs of one person and 10,000 of different people at each pair of "
            f"quality levels, got {len(scores.same)} and {len(scores.different)}; give more people"
        )
    log_rate = _log_false_match(scores.different)
    rate = np.exp(np.interp(_EDGES, _EDGES, log_rate))
    different = np.maximum(rate[:-1] - rate[1:], 1e-12) / _FINE
    different = _smooth(different, 0.02)
    counts, _ = np.histogram(np.clip(scores.same, _EDGES[0], _EDGES[-1]), _EDGES, weights=scores.same_weights)
    same = _smooth(counts / counts.sum() / _FINE, 0.04)
    same = (1 - _UNIFORM) * same + _UNIFORM / (_EDGES[-1] - _EDGES[0])
    ratio = np.log(same) - np.log(different)
    weight = same + different
    rising = IsotonicRegression().fit_transform(_CENTERS, ratio, sample_weight=weight)
    limit = -np.log(_SMALLEST_RATE)
    return (
        np.clip(np.interp(_GRID, _CENTERS, rising), -limit, limit),
        np.interp(_GRID, _EDGES, log_rate),
    )


def nearest_level(qualities: FloatArray) -> IntArray:
    """Return (N,) the level of each quality; faces much below the lowest level get -1."""
    levels = np.array(QUALITY_LEVELS)
    nearest = np.abs(qualities[:, None] - levels[None, :]).argmin(axis=1)
    return np.where(qualities < levels[0] - 0.1, -1, nearest).astype(np.int64)


def _log_false_match(different: DoubleArray) -> DoubleArray:
    """Return ``ln P(S >= edge)`` at the fine edges."""
    counts, _ = np.histogram(np.clip(different, _EDGES[0], _EDGES[-1] - 1e-9), _EDGES)
    beyond = np.append(np.cumsum(counts[::-1])[::-1], 0).astype(np.float64)
    total = beyond[0]
    log_rate = np.log(np.maximum(beyond, 0.5) / total)
    last = int(np.flatnonzero(beyond >= 30)[-1])
    earlier = int(np.flatnonzero(beyond >= min(1000.0, total / 10))[-1])
    slope = (log_rate[last] - log_rate[earlier]) / max((last - earlier) * _FINE, _FINE)
    log_rate[last:] = log_rate[last] + slope * (_EDGES[last:] - _EDGES[last])
    return np.asarray(np.maximum(np.minimum.accumulate(log_rate), np.log(_SMALLEST_RATE)))


def _smooth(density: DoubleArray, width: float) -> DoubleArray:
    """Return the density after a Gaussian of this width."""
    reach = int(round(4 * width / _FINE))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _FINE / width) ** 2)
    return np.asarray(np.convolve(density, kernel / kernel.sum(), mode="same"))


def _corrector(calibration: Calibration) -> Callable[[LabelledFaces, LabelledFaces], DoubleArray]:
    def correct(a: LabelledFaces, b: LabelledFaces) -> DoubleArray:
        common = calibration.commonness(a.embeddings)[:, None] + calibration.commonness(b.embeddings)[None, :]
        return calibration.correct(a.embeddings @ b.embeddings.T, common / 2).astype(np.float64)

    return correct


def _draw(index: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.intp]:
    if len(index) <= _MOST_FACES:
        return index
    return np.sort(generator.choice(index, _MOST_FACES, replace=False))


def _replace(calibration: Calibration, **changes: Any) -> Calibration:
    from dataclasses import replace

    return replace(calibration, **changes)


def cllr(same: DoubleArray, different: DoubleArray) -> float:
    """Return the log-likelihood-ratio cost of natural-log ratios, in bits (Brummer and du Preez 2006, eq. 21)."""
    miss = np.logaddexp(0.0, -same).mean() / np.log(2)
    alarm = np.logaddexp(0.0, different).mean() / np.log(2)
    return float((miss + alarm) / 2)


def minimum_cllr(same: DoubleArray, different: DoubleArray) -> float:
    """Return the cost after the best monotone recalibration on the very same ratios (pool adjacent violators)."""
    from sklearn.isotonic import IsotonicRegression

    values = np.concatenate([same, different])
    labels = np.concatenate([np.ones(len(same)), np.zeros(len(different))])
    weights = np.concatenate(
        [np.full(len(same), 0.5 / len(same)), np.full(len(different), 0.5 / len(different))]
    )
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(values, labels, sample_weight=weights)
    fitted = np.clip(fitted, 1e-12, 1 - 1e-12)
    best = np.log(fitted) - np.log1p(-fitted)
    return cllr(best[: len(same)], best[len(same) :])


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs whose posterior at even odds lies in one interval: its mean, and the share that are one person."""

    predicted: float
    observed: float
    weight: float


def reliability(same: DoubleArray, different: DoubleArray, n_bins: int = 15) -> list[ReliabilityBin]:
    """Return the reliability curve of natural-log ratios at even odds, empty bins left out."""
    values = 1.0 / (1.0 + np.exp(-np.concatenate([same, different])))
    labels = np.concatenate([np.ones(len(same)), np.zeros(len(different))])
    weights = np.concatenate(
        [np.full(len(same), 0.5 / len(same)), np.full(len(different), 0.5 / len(different))]
    )
    place = np.minimum((values * n_bins).astype(int), n_bins - 1)
    bins = []
    for k in range(n_bins):
        inside = place == k
        total = float(weights[inside].sum())
        if total > 0:
            bins.append(
                ReliabilityBin(
                    float(weights[inside] @ values[inside]) / total,
                    float(weights[inside] @ labels[inside]) / total,
                    total,
                )
            )
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
    """What was measured on people that the tables have not seen.

    Attributes:
        n_people: Identities.
        n_faces: Faces, degraded ones included.
        levels: By quality level.
        false_match: Promised and measured false match rates over all quality levels.
        bins: Reliability curve over all quality levels.
        cllr: Mean over all pairs of quality levels.
        cllr_minimum: Likewise.
        expected_calibration_error: Of ``bins``.
    """

    n_people: int
    n_faces: int
    levels: tuple[LevelReport, ...]
    false_match: tuple[tuple[float, float], ...]
    bins: tuple[ReliabilityBin, ...]
    cllr: float
    cllr_minimum: float
    expected_calibration_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

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
        return "\n".join(lines)


def judge_calibration(calibration: Calibration, faces: LabelledFaces, seed: int = 0) -> CalibrationReport:
    """Measure a calibration on faces of people it was not fitted on."""
    generator = np.random.default_rng(seed)
    level_of = nearest_level(faces.qualities)
    groups = [faces.take(_draw(np.flatnonzero(level_of == k), generator)) for k in range(len(QUALITY_LEVELS))]
    levels, costs, minima, alike, unlike, rates = [], [], [], [], [], []
    for i, a in enumerate(groups):
        for j in range(i + 1):
            same, different, tail = _pair_ratios(calibration, a, groups[j])
            if len(same) < 50 or len(different) < 1000:
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
    promised = (1e-1, 1e-2, 1e-3, 1e-4)
    return CalibrationReport(
        n_people=len(np.unique(faces.identities)),
        n_faces=len(faces),
        levels=tuple(levels),
        false_match=tuple((rate, float((tails <= np.log(rate)).mean())) for rate in promised),
        bins=tuple(bins),
        cllr=float(np.mean(costs)),
        cllr_minimum=float(np.mean(minima)),
        expected_calibration_error=expected_calibration_error(bins),
    )


def _pair_ratios(
    calibration: Calibration, a: LabelledFaces, b: LabelledFaces
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return log ratios of same and different pairs, and the log false match rates of the different ones."""
    common = (
        calibration.commonness(a.embeddings)[:, None] + calibration.commonness(b.embeddings)[None, :]
    ) / 2
    cosines = a.embeddings @ b.embeddings.T
    quality_a, quality_b = a.qualities[:, None], b.qualities[None, :]
    ratios = calibration.log_likelihood_ratio(cosines, quality_a, quality_b, common)
    is_same = a.identities[:, None] == b.identities[None, :]
    usable = is_same & (a.photographs[:, None] != b.photographs[None, :])
    tail = calibration.log_false_match(cosines, quality_a, quality_b, common)[~is_same]
    return ratios[usable], ratios[~is_same], tail

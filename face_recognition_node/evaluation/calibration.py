"""Learn what a similarity is worth; ``calibration_report.py`` judges it on other people.

Fitting, for each pair of quality levels:

* different people: all pairs of different identities; the false match rate ``P(S >= s)`` is the empirical
  one down to where thirty pairs remain, and continues beyond with the slope it has there (an exponential
  tail), but never below one in a million: data cannot tell more.
* same person: a smoothed histogram of pairs of different photographs, each identity weighing the square
  root of its number of pairs, with 0.5 % of a uniform density mixed in for faces that nothing can be
  learned from.
* their log ratio, made monotone by isotonic regression (scikit-learn).

Two more numbers of the card are measured here: the memory of the noise in a face's embedding over time, and
(with ``track_rates.py``) how many independent comparisons one whole track is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.faces import FloatArray, IntArray

DoubleArray = NDArray[np.float64]

QUALITY_LEVELS = (0.3, 0.45, 0.6, 0.75, 0.85, 0.95)  # quality levels at which the tables stand
# of the hubness (identity/calibration.py); chosen on LFW's fitting half, flat around these values
N_PROTOTYPES, NEIGHBOURS, HUBNESS_WEIGHT = 256, 16, 0.7
_FINE = 0.01
_EDGES = np.arange(-0.8, 1.2 + _FINE / 2, _FINE)
_CENTERS = (_EDGES[:-1] + _EDGES[1:]) / 2
_GRID = np.round(np.arange(-0.6, 1.001, 0.02), 2)
_UNIFORM = 0.005
_SMALLEST_RATE = 1e-6
_MOST_FACES = 2500
_LEAST_FACES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFaces:
    """Embedded faces of known people; a photograph may occur several times, degraded in different ways."""

    embeddings: FloatArray  # (N, D) unit vectors
    qualities: FloatArray  # (N,) in [0, 1]
    identities: IntArray  # (N,) whose face it is
    photographs: IntArray  # (N,) which photograph it shows; a photograph is never compared with itself

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, index: NDArray[Any]) -> LabelledFaces:
        """Return some of the faces."""
        return LabelledFaces(
            self.embeddings[index], self.qualities[index], self.identities[index], self.photographs[index]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Corrected similarities of (G,) pairs of one person, weighted, and of (I,) pairs of different people."""

    same: DoubleArray
    same_weights: DoubleArray
    different: DoubleArray


def kinds_of_pairs(a: LabelledFaces, b: LabelledFaces) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which (A, B) pairs show one person on two photographs, and which show two people."""
    is_same = a.identities[:, None] == b.identities[None, :]
    return is_same & (a.photographs[:, None] != b.photographs[None, :]), ~is_same


def mean_hubness(calibration: Calibration, a: LabelledFaces, b: LabelledFaces) -> FloatArray:
    """Return (A, B) the mean hubness of the two faces of each pair."""
    own, other = calibration.hubness(a.embeddings), calibration.hubness(b.embeddings)
    return np.asarray((own[:, None] + other[None, :]) / 2)


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
    """Return the scores of all pairs between two sets, weighted so that no identity dominates."""
    scores = correct(a, b)
    same, different = kinds_of_pairs(a, b)
    people = a.identities[np.nonzero(same)[0]]
    return Scores(scores[same], 1.0 / np.sqrt(np.bincount(people)[people]), scores[different])


def fit_calibration(
    faces: LabelledFaces,
    *,
    embedder_sha256: str,
    comparisons_per_track: float,
    correlation_s: float,
    seed: int = 0,
) -> Calibration:
    """Fit the tables on at most 2,500 faces a level of quality; InputError if one has too few people."""
    generator = np.random.default_rng(seed)
    good = faces.take(np.flatnonzero(faces.qualities >= np.quantile(faces.qualities, 0.5)))
    _, first = np.unique(good.identities, return_index=True)
    prototypes = fit_prototypes(good.embeddings[first], N_PROTOTYPES, seed=seed)
    n_levels = len(QUALITY_LEVELS)
    empty = np.zeros((n_levels, n_levels, len(_GRID)), np.float32)
    blank = Calibration(
        np.array(QUALITY_LEVELS, np.float32), _GRID.astype(np.float32), empty, empty.copy(), prototypes,
        min(NEIGHBOURS, len(prototypes)), HUBNESS_WEIGHT, 0.0, comparisons_per_track, correlation_s,
        embedder_sha256,
    )  # fmt: skip
    hubness = float(blank.hubness(good.embeddings[first]).mean())
    blank = replace(blank, mean_hubness=hubness)

    def correct(a: LabelledFaces, b: LabelledFaces) -> DoubleArray:
        hubness = mean_hubness(blank, a, b)
        return blank.correct(a.embeddings @ b.embeddings.T, hubness).astype(np.float64)

    groups = [draw_faces_of_level(faces, level, generator) for level in range(n_levels)]
    for i in range(n_levels):
        for j in range(i + 1):
            ratio, false_match = fit_cell(score_pairs(groups[i], groups[j], correct))
            empty[i, j] = empty[j, i] = ratio
            blank.false_match[i, j] = blank.false_match[j, i] = false_match
    return replace(blank)  # whose derived values belong to the filled tables


def fit_cell(scores: Scores) -> tuple[DoubleArray, DoubleArray]:
    """Return log-likelihood ratio and log false match rate on the similarity grid."""
    from sklearn.isotonic import IsotonicRegression

    if len(scores.same) < 100 or len(scores.different) < 10_000:
        raise InputError(
            f"calibration: expected 100 pairs of one person and 10,000 of different people at each pair of "
            f"quality levels, got {len(scores.same)} and {len(scores.different)}; give more people"
        )
    log_rate = _log_false_match(scores.different)
    rate = np.exp(log_rate)
    different = np.maximum(rate[:-1] - rate[1:], 1e-12) / _FINE
    different = _smooth(different, 0.02)
    counts, _ = np.histogram(np.clip(scores.same, _EDGES[0], _EDGES[-1]), _EDGES, weights=scores.same_weights)
    same = _smooth(counts / counts.sum() / _FINE, 0.04)
    same = (1 - _UNIFORM) * same + _UNIFORM / (_EDGES[-1] - _EDGES[0])
    ratio = np.log(same) - np.log(different)
    weight = same + different
    rising = IsotonicRegression().fit_transform(_CENTERS, ratio, sample_weight=weight)
    limit = -np.log(_SMALLEST_RATE)
    return (np.clip(np.interp(_GRID, _CENTERS, rising), -limit, limit), np.interp(_GRID, _EDGES, log_rate))


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
    reach = round(4 * width / _FINE)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _FINE / width) ** 2)
    return np.asarray(np.convolve(density, kernel / kernel.sum(), mode="same"))


def draw_faces_of_level(faces: LabelledFaces, level: int, generator: np.random.Generator) -> LabelledFaces:
    """Return at most 2,500 of the faces whose quality is nearest to this level.

    Where a level has few faces of its own (the lowest is rare in photographs), the 1,000 nearest in quality
    stand for it.
    """
    index = np.flatnonzero(nearest_level(faces.qualities) == level)
    if len(index) < _LEAST_FACES:
        away = np.abs(faces.qualities - QUALITY_LEVELS[level])
        index = np.sort(np.argsort(away, kind="stable")[:_LEAST_FACES])
    if len(index) > _MOST_FACES:
        index = np.sort(generator.choice(index, _MOST_FACES, replace=False))
    return faces.take(index)


def measure_correlation_time(tracks: Sequence[tuple[DoubleArray, FloatArray]]) -> float:
    """Return the memory of the noise between the embeddings of one track, seconds.

    For noise that forgets exponentially (Ornstein-Uhlenbeck) the variogram, half the mean squared
    difference of embeddings ``d`` seconds apart, is ``plateau * (1 - exp(-d / tau))``; ``tau`` is fitted by
    least squares over the first second, the plateau being the mean between one and two seconds. A track gives
    the (n,) stamps in seconds and the (n, D) embeddings of one person.

    Raises:
        InputError: If no track is longer than a second.
    """
    edges = np.arange(0.0, 2.01, 0.05)
    sums, counts = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for stamps, embeddings in tracks:
        first, second = np.triu_indices(len(stamps), 1)
        gaps = np.abs(stamps[second] - stamps[first])
        halves = ((embeddings[first] - embeddings[second]) ** 2).sum(axis=1) / 2
        place = np.digitize(gaps, edges) - 1
        inside = (place >= 0) & (place < len(sums))
        in_bin = np.bincount(place[inside], minlength=len(sums))
        sums += np.bincount(place[inside], halves[inside], len(sums)) / np.maximum(in_bin, 1)
        counts += in_bin > 0  # every track counts alike, however many frames it has
    middle = (edges[:-1] + edges[1:]) / 2
    late, early = (counts > 0) & (middle > 1.0), (counts > 0) & (middle <= 1.0)
    if not late.any() or not early.any():
        raise InputError("correlation time: expected a track longer than one second")
    plateau = sums[late].sum() / counts[late].sum()
    curve = sums[early] / counts[early] / plateau
    candidates = np.arange(0.05, 1.51, 0.01)
    errors = [(counts[early] * (curve - (1 - np.exp(-middle[early] / tau))) ** 2).sum() for tau in candidates]
    return float(round(candidates[int(np.argmin(errors))], 2))

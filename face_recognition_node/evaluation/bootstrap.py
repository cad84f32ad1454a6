"""Intervals for figures that rest on few tracks.

The bootstrap of Efron (1979), over whole clusters (Davison & Hinkley 1997, §3.8): tracks of one person are
alike, so persons are drawn with replacement, not tracks. Where every value is equal the bootstrap says
nothing, and a proportion gets the exact interval of Clopper & Pearson (1934) instead, for as many trials as
there are clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.common.errors import InputError

RESAMPLES = 2000
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # quantiles at which every bootstrap interval of a report ends


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float  # the figure itself, NaN where nothing was measured
    low: float  # lower end of the interval, NaN where there is none: nothing measured, or one person only
    high: float  # upper end of it
    count: int  # how many values it rests on

    def __str__(self) -> str:
        """Return ``0.950 [0.880, 1.000] (n = 20)``."""
        if self.count == 0:
            return "none measured"
        if np.isnan(self.low):
            return f"{self.value:.3f} (n = {self.count}, of one person: no interval)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.count})"

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain values for JSON; null where there is nothing."""
        measured, bounded = self.count > 0, not np.isnan(self.low)
        return {
            "value": self.value if measured else None,
            "low": self.low if bounded else None,
            "high": self.high if bounded else None,
            "count": self.count,
        }


def estimate(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    statistic: Callable[[np.ndarray], float] = np.mean,
    seed: int = 0,
) -> Estimate:
    """Return ``statistic`` of ``values`` with its percentile interval over clusters (None: each its own)."""
    data = np.asarray(values, np.float64)
    if clusters is not None and len(clusters) != len(data):
        raise InputError(f"clusters: expected {len(data)}, one per value, got {len(clusters)}")
    if len(data) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value = float(statistic(data))
    groups: dict[Hashable, list[int]] = {}
    for index, label in enumerate(range(len(data)) if clusters is None else clusters):
        groups.setdefault(label, []).append(index)
    is_equal = bool(np.all(data == data[0]))
    if is_equal and statistic is np.mean and value in (0, 1):
        return Estimate(value, *_exact(value, len(groups)), len(data))
    if len(groups) == 1:  # one person, drawn again and again, tells nothing of others
        return Estimate(value, float("nan"), float("nan"), len(data))
    if is_equal:
        return Estimate(value, value, value, len(data))
    members = [np.array(indices) for indices in groups.values()]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(members), (RESAMPLES, len(members)))
    figures = [float(statistic(data[np.concatenate([members[group] for group in row])])) for row in drawn]
    low, high = np.quantile(figures, TAILS)
    return Estimate(value, float(low), float(high), len(data))


def median(values: np.ndarray) -> float:
    """Return the median, as a statistic of :func:`estimate`."""
    return float(np.median(values))


def _exact(value: float, count: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval where ``count`` of ``count`` trials gave ``value``, 0 or 1."""
    reach = 1 - TAILS[0] ** (1 / count)
    return (1 - reach, 1.0) if value else (0.0, reach)

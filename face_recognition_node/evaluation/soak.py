"""A long run of the node: does its memory grow, does it become slower?

Memory of a sound process rises while caches fill and then wanders about a level. So growth is the slope of a
least-squares line through the samples after a warm-up, with an interval by the moving-block bootstrap of its
residuals (Künsch 1989): neighbouring samples are alike, and an interval for independent ones would be far
too narrow.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError

RESAMPLES = 1000
LEAST_SAMPLES = 8
"""Fewer samples after the warm-up tell nothing about growth."""

Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SoakSample:
    """One interval of the run.

    Attributes:
        seconds: End of the interval, from the first answer.
        resident_mb: Resident memory of the node then, megabytes.
        cpu_percent: CPU time of the node in the interval, percent of one core.
        answered_hz: Answers per second.
        latency_p50_ms: Median time from an image's stamp to its answer; NaN without an answer.
        latency_p95_ms: 95th percentile.
        tracks: Tracks begun since the start of the run.
    """

    seconds: float
    resident_mb: float
    cpu_percent: float
    answered_hz: float
    latency_p50_ms: float
    latency_p95_ms: float
    tracks: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What the samples after the warm-up say.

    Attributes:
        warm_up_s: Length of the warm-up, seconds.
        seconds: Length of what was judged.
        samples: How many samples that were.
        resident_mb: Median resident memory, megabytes.
        mb_per_hour: Slope of the resident memory.
        low: Lower end of its 95 % interval.
        high: Upper end.
        latency_ms_per_hour: Slope of the median latency, milliseconds per hour.
        allowed_mb_per_hour: More than this is called growth.
    """

    warm_up_s: float
    seconds: float
    samples: int
    resident_mb: float
    mb_per_hour: float
    low: float
    high: float
    latency_ms_per_hour: float
    allowed_mb_per_hour: float

    @property
    def is_growing(self) -> bool:
        """Whether memory grew by more than is allowed."""
        return self.mb_per_hour > self.allowed_mb_per_hour

    def __str__(self) -> str:
        verdict = "GROWS" if self.is_growing else "does not grow"
        return (
            f"memory {verdict}: {self.mb_per_hour:+.2f} MB/h [{self.low:+.2f}, {self.high:+.2f}] over "
            f"{self.seconds / 60:.0f} minutes after {self.warm_up_s / 60:.0f} of warm-up "
            f"(allowed {self.allowed_mb_per_hour:g}), median {self.resident_mb:.1f} MB resident; "
            f"median latency {self.latency_ms_per_hour:+.2f} ms/h"
        )


def judge_growth(samples: Sequence[SoakSample], warm_up_s: float, allowed_mb_per_hour: float) -> Growth:
    """Fit the samples after the warm-up.

    Raises:
        InputError: If fewer than LEAST_SAMPLES are left.
    """
    kept = [sample for sample in samples if sample.seconds > warm_up_s]
    if len(kept) < LEAST_SAMPLES:
        raise InputError(
            f"soak: expected at least {LEAST_SAMPLES} samples after {warm_up_s:g} s of warm-up, got "
            f"{len(kept)}; run longer, or sample more often"
        )
    hours = np.array([sample.seconds for sample in kept]) / 3600
    memory = np.array([sample.resident_mb for sample in kept])
    latency = np.array([sample.latency_p50_ms for sample in kept])
    answered = np.isfinite(latency)
    slower = slope(hours[answered], latency[answered]) if answered.sum() >= LEAST_SAMPLES else float("nan")
    low, high = slope_interval(hours, memory)
    return Growth(
        warm_up_s,
        kept[-1].seconds - warm_up_s,
        len(kept),
        float(np.median(memory)),
        slope(hours, memory),
        low,
        high,
        slower,
        allowed_mb_per_hour,
    )


def slope(x: Series, y: Series) -> float:
    """Return the slope of the least-squares line through (N,) points, N ≥ 2."""
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


def slope_interval(x: Series, y: Series, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of :func:`slope` by the moving-block bootstrap of the residuals."""
    count = len(x)
    fitted = y.mean() + slope(x, y) * (x - x.mean())
    residuals = y - fitted
    block = max(2, round(count**0.5))
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, count - block + 1, (RESAMPLES, -(-count // block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :count]
    slopes = [slope(x, fitted + residuals[row]) for row in rows]
    low, high = np.quantile(slopes, [0.025, 0.975])
    return float(low), float(high)


def write_samples(samples: Sequence[SoakSample], path: Path) -> None:
    """Write the samples as CSV, one line each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(SoakSample)])
        for sample in samples:
            writer.writerow([v if isinstance(v, int) else f"{v:.3f}" for v in astuple(sample)])


def plot_samples(samples: Sequence[SoakSample], growth: Growth, path: Path, title: str) -> Path:
    """Draw memory with the fitted line, and latency and CPU below; needs matplotlib."""
    from face_recognition_node.evaluation.embedding_plots import load_pyplot, save_figure

    pyplot = load_pyplot()
    minutes = np.array([sample.seconds for sample in samples]) / 60
    values = {name: np.array([asdict(s)[name] for s in samples]) for name in asdict(samples[0])}
    figure, (memory, latency, cpu) = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True)
    memory.plot(minutes, values["resident_mb"], lw=1)
    judged = minutes > growth.warm_up_s / 60
    middle = minutes[judged].mean()
    line = values["resident_mb"][judged].mean() + growth.mb_per_hour * (minutes[judged] - middle) / 60
    label = f"{growth.mb_per_hour:+.2f} MB/h [{growth.low:+.2f}, {growth.high:+.2f}]"
    memory.plot(minutes[judged], line, "--", color="#b2182b", label=label)
    memory.legend(loc="lower right")
    memory.set(ylabel="resident, MB", title=title, ylim=(0, 1.15 * values["resident_mb"].max()))
    latency.plot(minutes, values["latency_p50_ms"], lw=1, label="median")
    latency.plot(minutes, values["latency_p95_ms"], lw=0.7, label="95th percentile")
    latency.set(ylabel="latency, ms", ylim=(0, None))
    latency.legend(loc="upper right")
    cpu.plot(minutes, values["cpu_percent"], lw=1, label="CPU, % of a core")
    cpu.plot(minutes, values["answered_hz"], lw=1, label="answers per second")
    cpu.set(xlabel="minutes", ylim=(0, None))
    cpu.legend(loc="upper right")
    return save_figure(figure, path)

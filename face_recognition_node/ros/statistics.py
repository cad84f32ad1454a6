"""What the node counts about its stream: rates, drops, latency, time by stage, frames it could not use."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

_FEW = 5
"""Fewer answers say nothing of what they all lack."""


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The last seconds of the stream, and totals since the node was activated.

    Attributes:
        received_hz: Images received per second.
        answered_hz: Images answered per second.
        received: Images received in all.
        answered: Images answered in all.
        dropped: Images that a newer one replaced before their turn came.
        bad: Images that could not be used, by kind.
        recently_bad: How many of them came in the last seconds.
        latency_p50: Median time from an image's stamp to its answer, seconds; NaN: nothing to measure.
        latency_p95: 95th percentile of the same.
        stage_seconds: Mean time by stage, seconds.
        silence: Time since the last image, seconds; NaN: none yet.
        lacks_depth: Depth was wanted for the images of the last seconds, and came for none of them.
    """

    received_hz: float
    answered_hz: float
    received: int
    answered: int
    dropped: int
    bad: Mapping[str, int]
    recently_bad: int
    latency_p50: float
    latency_p95: float
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    silence: float = float("nan")
    lacks_depth: bool = False


class StreamStatistics:
    """Collects from several threads; cheap enough for every image.

    Args:
        window: Length of the "last seconds".
        clock: Monotonic seconds.
    """

    def __init__(self, window: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything, as at activation."""
        with self._lock:
            self._started = self._clock()
            self._arrivals: deque[float] = deque()
            self._answers: deque[tuple[float, float, Mapping[str, float], bool]] = deque()
            self._bad: Counter[str] = Counter()
            self._bad_times: deque[float] = deque()
            self._received = self._answered = 0
            self._last_arrival = float("nan")

    def count_received(self) -> None:
        """An image arrived."""
        with self._lock:
            self._received += 1
            self._last_arrival = self._clock()
            self._arrivals.append(self._last_arrival)
            self._trim()

    def count_answered(
        self, latency: float, stage_seconds: Mapping[str, float], lacks_depth: bool = False
    ) -> None:
        """Count an image that was answered.

        Args:
            latency: Seconds from its stamp to the answer (NaN: its stamp says nothing).
            stage_seconds: Time by stage.
            lacks_depth: There was no depth for it, though it was wanted.
        """
        with self._lock:
            self._answered += 1
            self._answers.append((self._clock(), latency, stage_seconds, lacks_depth))
            self._trim()

    def count_bad(self, kind: str) -> bool:
        """An image could not be used; returns whether this is the first of its kind."""
        with self._lock:
            self._bad[kind] += 1
            self._bad_times.append(self._clock())
            self._trim()
            return self._bad[kind] == 1

    def summarize(self, dropped: int = 0) -> StreamSummary:
        """Return the figures of now; ``dropped`` comes from the worker."""
        with self._lock:
            self._trim()
            now = self._clock()
            length = max(min(self._window, now - self._started), 1e-3)
            latencies = np.array([answer[1] for answer in self._answers])
            latencies = latencies[np.isfinite(latencies)]
            p50, p95 = np.percentile(latencies, [50, 95]) if latencies.size else (np.nan, np.nan)
            totals: Counter[str] = Counter()
            for _, _, stages, _ in self._answers:
                for stage, seconds in stages.items():
                    totals[stage] += seconds  # type: ignore[assignment]  # a Counter adds floats as well
            return StreamSummary(
                len(self._arrivals) / length,
                len(self._answers) / length,
                self._received,
                self._answered,
                dropped,
                dict(self._bad),
                len(self._bad_times),
                float(p50),
                float(p95),
                {stage: seconds / len(self._answers) for stage, seconds in totals.items()},
                now - self._last_arrival,
                len(self._answers) >= _FEW and all(answer[3] for answer in self._answers),
            )

    def _trim(self) -> None:
        oldest = self._clock() - self._window
        for times in (self._arrivals, self._bad_times):
            while times and times[0] < oldest:
                times.popleft()
        while self._answers and self._answers[0][0] < oldest:
            self._answers.popleft()

"""The state of the node as diagnostic messages: three entries a robot's aggregator can watch."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

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

    @property
    def silence(self) -> float:
        """Time since the last image, seconds; NaN: none yet."""
        with self._lock:
            return self._clock() - self._last_arrival

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


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """Everything that diagnostics tell.

    Attributes:
        state: Lifecycle state in words.
        error: Why the last transition failed; empty: it did not.
        wanted: Who wants images worked on ("subscribers", "enrolment", "always_on"); empty: nobody.
        stream: Figures of the image stream, or None before the first activation.
        image_topic: Where images are expected.
        depth_topic: Where depth is expected; empty: nowhere.
        image_timeout: Silence that is worth a warning, seconds.
        publishers: How many publish there; None: not known.
        models: Key to value about networks and backends: which, where it runs, and why there.
        gallery: Key to value about the gallery.
        gallery_trouble: Why the gallery could not be written lately; empty: it could.
        gallery_warning: What else is to be done about it; empty: nothing.
    """

    state: str
    error: str = ""
    wanted: Sequence[str] = ()
    stream: StreamSummary | None = None
    image_topic: str = ""
    depth_topic: str = ""
    image_timeout: float = 2.0
    publishers: int | None = None
    models: Mapping[str, object] = field(default_factory=dict)
    gallery: Mapping[str, object] = field(default_factory=dict)
    gallery_trouble: str = ""
    gallery_warning: str = ""


def to_diagnostics(health: NodeHealth, name: str, stamp: Time) -> DiagnosticArray:
    """Return the entries ``NAME: stream``, ``NAME: models`` and ``NAME: gallery``."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    level, text = _judge_stream(health)
    message.status = [
        _status(f"{name}: stream", level, text, _stream_values(health)),
        _status(f"{name}: models", *_judge_loaded(health, health.models, "loaded"), health.models),
        _status(f"{name}: gallery", *_judge_gallery(health), health.gallery),
    ]
    return message


class TroubleLog:
    """Decides what of the diagnostics is worth a line in the log: trouble that stays, once, and its end.

    Args:
        patience: After how many messages in a row trouble is told; a short one is nobody's business.
    """

    def __init__(self, patience: int = 3) -> None:
        self._patience = patience
        self._rounds: dict[str, Counter[str]] = {}
        self._told: dict[str, set[str]] = {}

    def news(self, message: DiagnosticArray) -> list[tuple[bool, str]]:
        """Return (is it trouble, sentence) for every entry that has become worth telling."""
        told = []
        for status in message.status:
            rounds = self._rounds.setdefault(status.name, Counter())
            known = self._told.setdefault(status.name, set())
            if status.level != DiagnosticStatus.OK:
                kind = _NUMBER.sub("#", status.message)  # the same trouble with other figures is no news
                rounds[kind] += 1
                # trouble whose kind changes all the time is trouble, too
                lasts = rounds[kind] if known else sum(rounds.values())
                if kind not in known and lasts >= self._patience:
                    known.add(kind)
                    told.append((True, status.message))
                continue
            if known:
                told.append((False, f"all is well again: {status.message}"))
            rounds.clear()
            known.clear()
        return told


_NUMBER = re.compile(r"[0-9][0-9.]*")


def _judge_loaded(health: NodeHealth, values: Mapping[str, object], word: str) -> tuple[bytes, str]:
    if values.get("trouble"):
        return DiagnosticStatus.WARN, str(values["trouble"])
    if values:
        return DiagnosticStatus.OK, word
    if health.error:
        return DiagnosticStatus.ERROR, health.error
    return DiagnosticStatus.OK, f"not {word}: the node is {health.state}"


def _judge_gallery(health: NodeHealth) -> tuple[bytes, str]:
    if health.gallery and health.gallery_trouble:
        return DiagnosticStatus.WARN, f"cannot be written: {health.gallery_trouble}"
    level, text = _judge_loaded(health, health.gallery, "open")
    if level == DiagnosticStatus.OK and health.gallery_warning:
        return DiagnosticStatus.WARN, health.gallery_warning
    return level, text


def _judge_stream(health: NodeHealth) -> tuple[bytes, str]:
    """Return the level and one sentence; the worst thing first."""
    stream = health.stream
    if health.error:
        return DiagnosticStatus.ERROR, health.error
    if health.state != "active" or stream is None:
        return DiagnosticStatus.OK, f"the node is {health.state}"
    if not health.wanted:
        return DiagnosticStatus.OK, "idle: nobody subscribes (parameter always_on)"
    if stream.received == 0 or stream.silence > health.image_timeout:
        since = "yet" if stream.received == 0 else f"for {stream.silence:.1f} s"
        return DiagnosticStatus.WARN, f"no image on {health.image_topic} {since}{_why_silent(health)}"
    if stream.answered_hz == 0 and stream.recently_bad:
        return DiagnosticStatus.ERROR, f"no usable image: {_counts(stream.bad)}"
    if stream.recently_bad:
        return DiagnosticStatus.WARN, f"{stream.answered_hz:.1f} Hz; bad images: {_counts(stream.bad)}"
    if stream.answered_hz < 0.5 * stream.received_hz:
        return (
            DiagnosticStatus.WARN,
            f"{stream.answered_hz:.1f} of {stream.received_hz:.1f} Hz: too slow a machine for the stream",
        )
    if stream.lacks_depth:
        return DiagnosticStatus.WARN, (
            f"{stream.answered_hz:.1f} Hz, all without depth: does {health.depth_topic} deliver, and within "
            "depth_tolerance of the images' stamps? Portraits are not told from people"
        )
    return DiagnosticStatus.OK, f"{stream.answered_hz:.1f} Hz"


def _why_silent(health: NodeHealth) -> str:
    if health.publishers is None:
        return ""
    if health.publishers == 0:
        return "; nobody publishes there: is the camera running, and is that its topic?"
    return (
        f"; publishers there: {health.publishers}. Is the camera active, does its process use the Fast DDS "
        "profile, and does its quality of service fit qos_reliability?"
    )


def _stream_values(health: NodeHealth) -> dict[str, object]:
    values: dict[str, object] = {"lifecycle state": health.state, "image topic": health.image_topic}
    values["wanted by"] = ", ".join(health.wanted) or "nobody"
    stream = health.stream
    if stream is None:
        return values
    values |= {
        "received [Hz]": round(stream.received_hz, 2),
        "answered [Hz]": round(stream.answered_hz, 2),
        "received": stream.received,
        "answered": stream.answered,
        "dropped": stream.dropped,
        "latency p50 [ms]": _milliseconds(stream.latency_p50),
        "latency p95 [ms]": _milliseconds(stream.latency_p95),
    }
    values |= {f"stage {name} [ms]": _milliseconds(value) for name, value in stream.stage_seconds.items()}
    values |= {f"bad images, {kind}": count for kind, count in sorted(stream.bad.items())}
    return values


def _counts(bad: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(bad.items()))


def _milliseconds(seconds: float) -> str:
    return "unknown" if math.isnan(seconds) else f"{1000 * seconds:.2f}"


def _status(name: str, level: bytes, text: str, values: Mapping[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=text, values=pairs, hardware_id="")

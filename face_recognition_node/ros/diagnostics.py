"""The state of the node as diagnostic messages: three entries a robot's aggregator can watch."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

_FEW = 5  # fewer answers say nothing of what they all lack
_MOST_STAMPS = 60
_PAUSE_S = 2.0  # a longer gap between stamps is a pause, not a loss
# share of lost images that is worth a warning; a camera that lengthens its exposure stays below
_MANY_LOST = 0.5
_MOST_JITTER = 0.15  # mean distance of the gaps from multiples of the camera's period, in periods
_SHORTEST_PERIOD_S = 1 / 150
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def _share_lost(stamps: Sequence[float]) -> float:
    """Return which share of a regular series of stamps is missing; NaN where there are too few, or no rhythm.

    Where images are lost, the gaps are multiples of the camera's period: some of them are one period long. A
    camera process that gets too little of the processor stamps in bursts, and nothing is lost.
    """
    gaps = np.diff(np.asarray(stamps, np.float64))
    if len(gaps) < 2 * _FEW or (gaps <= 0).any():
        return float("nan")
    period = float(np.quantile(gaps, 0.1))
    periods = gaps / period
    is_regular = np.abs(periods - np.rint(periods)).mean() < _MOST_JITTER
    if period < _SHORTEST_PERIOD_S or not is_regular:
        return float("nan")
    return float(1.0 - len(gaps) / periods.sum())


def find_profile_trouble(environment: Mapping[str, str]) -> str:
    """Return what is wrong with the Fast DDS profile that the environment names; empty: nothing."""
    for name in _PROFILE_VARIABLES:
        if path := environment.get(name, ""):
            try:
                ElementTree.parse(path)
            except OSError as error:
                return f"{name} names {path}, which cannot be read ({error.strerror}): large images are lost"
            except ElementTree.ParseError as error:
                return f"{name} names {path}, which is no XML ({error}): large images are lost"
    return ""


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The last seconds of the stream, and totals since the node was activated."""

    received_hz: float  # images received per second
    answered_hz: float  # images answered per second
    received: int  # images received in all
    answered: int  # images answered in all
    dropped: int  # images that a newer one replaced before their turn came
    bad: Mapping[str, int]  # images that could not be used, by kind
    recently_bad: Mapping[str, int]  # those of the last seconds, by kind
    latency_p50: float  # median time from an image's stamp to its answer, seconds; NaN: nothing to measure
    latency_p95: float  # 95th percentile of the same
    stage_seconds: Mapping[str, float] = field(default_factory=dict)  # mean time by stage, seconds
    silence: float = float("nan")  # time since the last image, seconds; NaN: none yet
    # depth was wanted for the images of the last seconds, and came for none of them
    lacks_depth: bool = False
    # share of the camera's images that did not arrive, by the gaps between stamps; NaN: not known
    lost: float = float("nan")


class StreamStatistics:
    """Collects from several threads, cheap enough for every image; ``window`` is the "last seconds"."""

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
            self._bad_times: deque[tuple[float, str]] = deque()
            self._stamps: deque[float] = deque(maxlen=_MOST_STAMPS)
            self._received = self._answered = 0
            self._last_arrival = float("nan")

    @property
    def silence(self) -> float:
        """Time since the last image, seconds; NaN: none yet."""
        with self._lock:
            return self._clock() - self._last_arrival

    def count_received(self, stamp: float = 0.0) -> None:
        """Count an image that arrived; ``stamp``: seconds, 0 if it has none."""
        with self._lock:
            if stamp:
                if self._stamps and not 0 <= stamp - self._stamps[-1] <= _PAUSE_S:
                    self._stamps.clear()  # nobody listened, or a recording began again
                self._stamps.append(stamp)
            self._received += 1
            self._last_arrival = self._clock()
            self._arrivals.append(self._last_arrival)
            self._trim()

    def count_answered(
        self, latency: float, stage_seconds: Mapping[str, float], lacks_depth: bool = False
    ) -> None:
        """Count an image that was answered, its latency from stamp to answer in seconds (NaN: unknown)."""
        with self._lock:
            self._answered += 1
            self._answers.append((self._clock(), latency, stage_seconds, lacks_depth))
            self._trim()

    def count_bad(self, kind: str) -> bool:
        """An image could not be used; returns whether this is the first of its kind."""
        with self._lock:
            self._bad[kind] += 1
            self._bad_times.append((self._clock(), kind))
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
                dict(Counter(kind for _, kind in self._bad_times)),
                float(p50),
                float(p95),
                {stage: seconds / len(self._answers) for stage, seconds in totals.items()},
                now - self._last_arrival,
                len(self._answers) >= _FEW and all(answer[3] for answer in self._answers),
                _share_lost(self._stamps) if self._arrivals else float("nan"),
            )

    def _trim(self) -> None:
        oldest = self._clock() - self._window
        while self._arrivals and self._arrivals[0] < oldest:
            self._arrivals.popleft()
        while self._bad_times and self._bad_times[0][0] < oldest:
            self._bad_times.popleft()
        while self._answers and self._answers[0][0] < oldest:
            self._answers.popleft()


@dataclass(frozen=True, slots=True)
class ImagePublisher:
    """One who publishes on the image topic: node, type of message, offers reliable quality of service."""

    node: str
    type: str
    is_reliable: bool


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """Everything that diagnostics tell."""

    state: str  # lifecycle state in words
    error: str = ""  # why the last transition failed; empty: it did not
    # who wants images worked on ("subscribers", "enrollment", "search", "always_on"); empty: none
    wanted: Sequence[str] = ()
    stream: StreamSummary | None = None  # figures of the image stream, or None before the first activation
    image_topic: str = ""  # where images are expected
    depth_topic: str = ""  # where depth is expected; empty: nowhere
    image_timeout: float = 2.0  # silence that is worth a warning, seconds
    publishers: Sequence[ImagePublisher] | None = None  # those that publish there; None: not known
    image_type: str = "sensor_msgs/msg/Image"  # the type of message that is expected there
    is_reliable: bool = False  # images are received with reliable quality of service
    profile_trouble: str = ""  # see :func:`find_profile_trouble`
    # key to value about networks and backends: which, where it runs, and why there
    models: Mapping[str, object] = field(default_factory=dict)
    gallery: Mapping[str, object] = field(default_factory=dict)  # key to value about the gallery
    gallery_warning: str = ""  # what is to be done about it; empty: nothing


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
    """Decides what of the diagnostics is worth a line in the log: trouble that stays, once, and its end."""

    def __init__(self, patience: int = 3) -> None:
        self._patience = patience  # messages in a row after which trouble is reported
        self._rounds: dict[str, Counter[str]] = {}
        self._reported: dict[str, set[str]] = {}

    def news(
        self, message: DiagnosticArray, is_streaming: bool = True, is_open: bool = True
    ) -> list[tuple[bool, str]]:
        """Return (is it trouble, sentence) for every entry that has become worth telling.

        Unless images are wanted and answered (``is_streaming``), the stream's entry proves nothing; unless
        models and gallery ``is_open``, theirs do not.
        """
        news = []
        for status in message.status:
            rounds = self._rounds.setdefault(status.name, Counter())
            known = self._reported.setdefault(status.name, set())
            if status.level != DiagnosticStatus.OK:
                kind = _NUMBER.sub("#", status.message)  # the same trouble with other figures is no news
                rounds[kind] += 1
                # trouble whose kind changes all the time is trouble, too
                lasts = rounds[kind] if known else sum(rounds.values())
                if kind not in known and lasts >= self._patience:
                    known.add(kind)
                    news.append((True, status.message))
                continue
            rounds.clear()
            is_proof = is_streaming if status.name.endswith("stream") else is_open
            if known and is_proof:
                news.append((False, f"all is well again: {status.message}"))
            known.clear()
        return news


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
    recent = _counts(stream.recently_bad)
    if stream.answered_hz == 0 and recent:
        return DiagnosticStatus.ERROR, f"no usable image: {recent}"
    if recent:
        return DiagnosticStatus.WARN, f"{stream.answered_hz:.1f} Hz; bad images: {recent}"
    if health.publishers is not None and len(health.publishers) > 1:
        nodes = ", ".join(sorted(one.node for one in health.publishers))
        return DiagnosticStatus.WARN, (
            f"{len(health.publishers)} publishers on {health.image_topic} ({nodes}): their images mix; "
            "give each camera a topic and a node of its own"
        )
    if stream.answered_hz < 0.5 * stream.received_hz:
        return (
            DiagnosticStatus.WARN,
            f"{stream.answered_hz:.1f} of {stream.received_hz:.1f} Hz: too slow a machine for the stream",
        )
    if stream.lost > _MANY_LOST:
        return DiagnosticStatus.WARN, (
            f"{stream.received_hz:.1f} Hz, about {stream.lost:.0%} of the images do not arrive: "
            f"{health.profile_trouble or _arrival_cure(health)}"
        )
    if stream.lacks_depth:
        return DiagnosticStatus.WARN, (
            f"{stream.answered_hz:.1f} Hz, all without depth: does {health.depth_topic} deliver, and within "
            "depth_tolerance of the images' stamps? Portraits are treated as faces"
        )
    return DiagnosticStatus.OK, f"{stream.answered_hz:.1f} Hz"


def _arrival_cure(health: NodeHealth) -> str:
    """Return how more images arrive, without what is done already."""
    ways = [] if health.is_reliable else ["qos_reliability reliable"]
    if not health.image_type.endswith("/CompressedImage"):
        ways.append("image_transport compressed")
    cure = "start the camera's process with the Fast DDS profile of this package"
    return f"{cure}, or receive with {' or '.join(ways)}" if ways else cure


def _why_silent(health: NodeHealth) -> str:
    if health.publishers is None:
        return ""
    if not health.publishers:
        return "; nobody publishes there: is the camera running, and is that its topic?"
    others = [one for one in health.publishers if one.type != health.image_type]
    if others:
        return f"; {others[0].node} publishes {others[0].type} there, expected {health.image_type}: " + (
            "set image_transport to compressed, and image_topic without /compressed"
            if others[0].type.endswith("/CompressedImage")
            else "is that the topic of the images?"
        )
    if health.is_reliable and not any(one.is_reliable for one in health.publishers):
        return (
            f"; {health.publishers[0].node} publishes best effort there, which qos_reliability reliable does "
            "not receive: set it to best_effort"
        )
    if health.profile_trouble:
        return f"; {health.profile_trouble}"
    cure = _arrival_cure(health)
    return f"; publishers there: {len(health.publishers)}. Is the camera active? If it is, {cure}"


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

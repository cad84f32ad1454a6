"""One face followed over frames: born, continued, lost, found again, split.

Nothing is inherited by position alone. A face that was visible a moment ago is continued by position as
long as its look does not contradict it; after a gap, or where two faces meet, the embedding has to speak
for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.config import TrackerConfig
from face_recognition_node.tracking.association import Costs, contested, position_costs, reachable, solve
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.vision.faces import Detection, FloatArray
from face_recognition_node.vision.flatness import FLAT, UNVERIFIED, BulgeEvidence, MotionEvidence

# natural-log likelihood ratios (A, B) that each of (A, D) and (B, D), with qualities, are one person
Comparison = Callable[[FloatArray, ArrayLike, FloatArray, ArrayLike], NDArray[np.float64]]

_COST_OF_A_CUT = 3.5  # how much less position says for a face whose picture has changed at once, nats


@dataclass(slots=True, eq=False)
class Track:
    """One face over time."""

    track_id: int  # never reused while the process lives
    detection: Detection
    first_stamp: float
    last_stamp: float
    evidence: TrackEvidence
    velocity_xy: FloatArray = field(default_factory=lambda: np.zeros(2, np.float32))  # (2,) pixels per second
    contradicting: TrackEvidence | None = None  # views that contradict the evidence and wait for a verdict
    contradiction: float = 0.0  # sum of their log-likelihood ratios of being the same person, at most 0
    frames_unchecked: int = 0  # frames since a view of it was evidence; 0: that of the latest frame
    # small picture of the last aligned crop, to notice a sudden change of the face
    thumbnail: FloatArray | None = None
    # what depth says of it: a head or a picture of one
    bulge: BulgeEvidence = field(default_factory=BulgeEvidence)
    # what the motion of its points says of the same
    motion: MotionEvidence = field(default_factory=MotionEvidence)
    claim: Any = None  # what the identity resolver claims of it (see identity.py)
    stranger: Any = None  # what the stranger book keeps on it (see strangers.py)
    own_stranger_id: str | None = None  # the stranger that was created from it, while nothing has broken it
    # whether what it was continued with in the latest frame has landmarks that no head can have
    is_ghost: bool = False

    @property
    def flatness(self) -> str:
        """``solid``, ``flat`` or ``unverified``: by depth, else by motion."""
        return self.motion.verdict if self.bulge.verdict == UNVERIFIED else self.bulge.verdict

    @property
    def flatness_source(self) -> str:
        """What :attr:`flatness` comes from: ``depth``, ``motion``, or nothing while it is unverified."""
        if self.bulge.verdict != UNVERIFIED:
            return "depth"
        return "" if self.motion.verdict == UNVERIFIED else "motion"

    @property
    def is_flat(self) -> bool:
        """Whether it is a picture of a face."""
        return self.flatness == FLAT

    def predict(self, stamp: float) -> FloatArray:
        """Return the (2,) expected centre at ``stamp``, pixels."""
        ahead = np.float32(min(max(stamp - self.last_stamp, 0.0), 0.3))
        return np.asarray(self.detection.center_xy + self.velocity_xy * ahead, np.float32)

    def move(self, detection: Detection, stamp: float) -> None:
        """Take over a new position."""
        elapsed = stamp - self.last_stamp
        if elapsed > 1e-3:
            step = (detection.center_xy - self.detection.center_xy) / np.float32(elapsed)
            self.velocity_xy = np.asarray(0.5 * self.velocity_xy + 0.5 * step, np.float32)
        self.detection, self.last_stamp = detection, max(stamp, self.last_stamp)


@dataclass(frozen=True, slots=True, eq=False)
class PositionPlan:
    """The position's opinion on a frame, before anything is embedded."""

    tracks: tuple[Track, ...]
    costs: Costs  # (T, D) position costs in nats
    gaps_s: FloatArray  # (T,) seconds since each was seen
    # for each detection the track that position alone would give it, or None
    likely: tuple[Track | None, ...]
    contested: NDArray[np.bool_]  # (D,) whether position alone cannot tell
    reachable: NDArray[np.bool_]  # (T, D) whether a person can have moved that far since


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A view that is good enough to count as evidence: (D,) unit vector and quality in [0, 1]."""

    embedding: FloatArray
    quality: float


class Tracker:
    """Follows all faces of one camera; ``correlation_s`` is that of :class:`TrackEvidence`."""

    def __init__(self, compare: Comparison, correlation_s: float, config: TrackerConfig) -> None:
        self._compare, self._correlation_s, self.config = compare, correlation_s, config
        self._tracks: list[Track] = []
        self._numbers = itertools.count(1)

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Tracks that are visible or lost for a short time."""
        return tuple(self._tracks)

    def reset(self) -> None:
        """Give up all tracks; numbers go on."""
        self._tracks.clear()

    def plan(self, detections: Sequence[Detection], stamp: float) -> PositionPlan:
        """Forget tracks lost for too long and say which detections position alone can place."""
        self._tracks = [t for t in self._tracks if stamp - t.last_stamp <= self._patience_s(t)]
        tracks = tuple(self._tracks)
        gaps = np.array([max(stamp - t.last_stamp, 0.0) for t in tracks], np.float32)
        sizes = np.array([t.detection.size_px for t in tracks], np.float32)
        centers = np.array([d.center_xy for d in detections], np.float32).reshape(-1, 2)
        new_sizes = np.array([d.size_px for d in detections], np.float32)
        expected = np.array([t.predict(stamp) for t in tracks], np.float32).reshape(-1, 2)
        costs = position_costs(expected, sizes, gaps, centers, new_sizes)
        last = np.array([t.detection.center_xy for t in tracks], np.float32).reshape(-1, 2)
        within_reach = reachable(last, sizes, gaps, centers, new_sizes)
        near = np.where((gaps <= self.config.continuity_s)[:, None], costs, np.inf)
        likely: list[Track | None] = [None] * len(detections)
        for t, d in solve(near, self.config.continuity_odds):
            likely[d] = tracks[t]
        return PositionPlan(tracks, costs, gaps, tuple(likely), contested(costs), within_reach)

    def update(
        self,
        plan: PositionPlan,
        detections: Sequence[Detection],
        observed: Sequence[Observation | None],
        stamp: float,
        abrupt: Sequence[bool] = (),
    ) -> list[Track]:
        """Continue, split and start tracks; return the track of each of the D detections.

        They come with their views, None where a face was not embedded or is too poor to count, and with
        whether their picture has changed at once, as in a cut: position then says less (empty: none has).
        """
        agreement = self._agreement(plan.tracks, observed)
        costs = self._costs(plan, observed, agreement)
        if len(abrupt):
            costs[plan.gaps_s <= self.config.continuity_s] += np.where(abrupt, _COST_OF_A_CUT, 0.0)
        found: list[Track | None] = [None] * len(detections)
        for t, d in solve(costs, self.config.continuity_odds):
            found[d] = self._continue(
                plan.tracks[t], detections[d], observed[d], float(agreement[t, d]), stamp
            )
        visible = []
        for detection, view, track in zip(detections, observed, found, strict=True):
            visible.append(track if track is not None else self._start(detection, view, stamp))
        return visible

    def _patience_s(self, track: Track) -> float:
        """Return for how long an unseen track may be found again, seconds.

        After a short gap only the look counts. Without one there is nothing to find the track again by, and
        keeping it would make every face near it contested: embedded in each frame for nothing.
        """
        has_look = track.evidence.embedding is not None
        return self.config.lost_after_s if has_look else self.config.continuity_s

    def renew(self, track: Track) -> Track:
        """Split a track whose evidence now speaks for somebody else: same face, new number, no claim."""
        split = Track(
            next(self._numbers), track.detection, track.first_stamp, track.last_stamp, track.evidence,
            velocity_xy=track.velocity_xy, thumbnail=track.thumbnail, bulge=track.bulge,
            motion=track.motion,
        )  # fmt: skip
        self._tracks = [split if t is track else t for t in self._tracks]
        return split

    def _agreement(self, tracks: Sequence[Track], observed: Sequence[Observation | None]) -> Costs:
        """Return (T, D) log-likelihood ratios that they show the tracks' persons; 0 where unknown."""
        ratios = np.zeros((len(tracks), len(observed)))
        pools = [t.evidence.embedding for t in tracks]
        rows = [i for i, pool in enumerate(pools) if pool is not None]
        columns = [j for j, view in enumerate(observed) if view is not None]
        if rows and columns:
            a = np.stack([p for p in pools if p is not None])
            b = np.stack([view.embedding for view in observed if view is not None])
            values = self._compare(
                a,
                [tracks[i].evidence.quality for i in rows],
                b,
                [view.quality for view in observed if view is not None],
            )
            ratios[np.ix_(rows, columns)] = values
        return ratios

    def _costs(self, plan: PositionPlan, observed: Sequence[Observation | None], agreement: Costs) -> Costs:
        """Return (T, D) total costs; a lost track needs a face within reach whose look alone says so."""
        costs = plan.costs - agreement
        for t, track in enumerate(plan.tracks):
            if plan.gaps_s[t] > self.config.continuity_s:
                has_pool = track.evidence.embedding is not None
                needed = self.config.continuity_odds + self.config.relink_odds
                for d, view in enumerate(observed):
                    is_possible = has_pool and view is not None and plan.reachable[t, d]
                    costs[t, d] = needed - agreement[t, d] if is_possible else np.inf
        return costs

    def _continue(
        self, track: Track, detection: Detection, view: Observation | None, agreement: float, stamp: float
    ) -> Track:
        """Move a track and weigh its new look; return the track, or the new one if that splits it."""
        if view is None:
            track.frames_unchecked += 1
        elif agreement >= -1.0 or track.evidence.embedding is None:
            track.evidence.add(view.embedding, view.quality, stamp)
            track.frames_unchecked = 0
            if agreement > 0.0:
                track.contradicting, track.contradiction = None, 0.0
        else:
            if track.contradicting is None:
                track.contradicting = TrackEvidence(self._correlation_s)
            track.contradiction += agreement * track.contradicting.renewal(stamp)
            track.contradicting.add(view.embedding, view.quality, stamp)
            track.frames_unchecked = 0
            if track.contradiction < -self.config.continuity_odds:
                contradicting, track.contradicting, track.contradiction = track.contradicting, None, 0.0
                return self._start(detection, None, stamp, contradicting)
        track.move(detection, stamp)
        return track

    def _start(
        self,
        detection: Detection,
        view: Observation | None,
        stamp: float,
        evidence: TrackEvidence | None = None,
    ) -> Track:
        is_checked = evidence is not None or view is not None
        if evidence is None:
            evidence = TrackEvidence(self._correlation_s)
            if view is not None:
                evidence.add(view.embedding, view.quality, stamp)
        unchecked = 0 if is_checked else 1
        track = Track(next(self._numbers), detection, stamp, stamp, evidence, frames_unchecked=unchecked)
        self._tracks.append(track)
        return track

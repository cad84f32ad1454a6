"""One frame in, identified faces out: detect, follow, align, embed, weigh the evidence, decide."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from face_recognition_node.common.errors import GalleryMismatchError
from face_recognition_node.common.stages import StageClock
from face_recognition_node.config import Config
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.comparison import log_likelihood_ratios
from face_recognition_node.identity.identity import IdentityResolver
from face_recognition_node.tracking.tracker import Observation, PositionPlan, Track, Tracker
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.detector import Detector, Embedder
from face_recognition_node.vision.faces import (
    CLOCK_JUMP_S,
    Detection,
    FaceView,
    FloatArray,
    Frame,
    HeadPose,
    IdentifiedFace,
    Identity,
    IdentityState,
    ImageArray,
    Intrinsics,
    RecognitionResult,
)
from face_recognition_node.vision.flatness import UNVERIFIED, FaceDepth, measure_bulge, sample_face_depth
from face_recognition_node.vision.following import FaceFinder
from face_recognition_node.vision.pose import fit_heads, position_from_depth, position_from_size
from face_recognition_node.vision.quality import assess_quality
from face_recognition_node.vision.relighting import brighten_frame
from face_recognition_node.vision.rotation import rotate_image, to_original

if TYPE_CHECKING:
    from face_recognition_node.gallery.gallery import Gallery

# correlation of two thumbnails of one face below which the face is looked at again at once
_SAME_PICTURE = 0.75
_LONGEST_UNCHECKED_S = 1.0
_CUT = 0.5  # correlation below which the picture of a face has changed at once
# quality of the landmarks' geometry below which a box, as between two faces, is no face. Of 3,744 faces in
# the clips of `evaluate replay`, hands before them or turned away, 999 of 1,000 had more than 0.32
_LEAST_PLAUSIBLE = 0.1
_THUMBNAIL = 14


class FrameObserver(Protocol):
    """Sees the result of every frame, after it was decided; what it writes goes to the background writer."""

    def observe(self, result: RecognitionResult, tracks: Sequence[Track]) -> None:
        """Take in one frame's result and the track of each of its faces."""
        ...


class Recognizer:
    """The whole pipeline for one camera. Not thread-safe but for :meth:`update_config`.

    The image has to be turned clockwise by ``rotate`` degrees (0, 90, 180, 270) to be upright. ``observers``
    are called in this order with the result of every frame.

    Raises:
        GalleryMismatchError: If the gallery belongs to another model or alignment.
    """

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder,
        gallery: Gallery,
        calibration: Calibration,
        config: Config,
        *,
        rotate: int = 0,
        observers: Sequence[FrameObserver] = (),
    ) -> None:
        if gallery.fingerprint != embedder.fingerprint:
            raise GalleryMismatchError(
                f"the gallery is of model {gallery.fingerprint}, the embedder is {embedder.fingerprint}; "
                "enroll again, or use the model it was made with"
            )
        self.rotate = rotate
        self._finder, self._embedder, self._gallery = FaceFinder(detector), embedder, gallery
        self._config, self._new_config = config, config
        self._config_lock = threading.Lock()
        self._tracker = Tracker(
            partial(log_likelihood_ratios, calibration), calibration.correlation_s, config.tracker
        )
        self._resolver = IdentityResolver(calibration, config.identity, config.strangers.false_match_rate)
        self._observers = tuple(observers)
        self._settled: set[int] = set()
        self._last_stamp: float | None = None

    @property
    def config(self) -> Config:
        """The parameters of the next frame."""
        with self._config_lock:
            return self._new_config

    def update_config(self, config: Config) -> None:
        """Take over parameters from the next frame on; may be called from any thread."""
        with self._config_lock:
            self._new_config = config

    def reset(self) -> None:
        """Forget all tracks (not the gallery)."""
        self._finder.reset()
        self._tracker.reset()
        self._settled.clear()
        self._last_stamp = None

    def process(self, frame: Frame, *, embed_all: bool = False) -> RecognitionResult:
        """Return who is in the frame.

        With ``embed_all`` this frame is searched and every face in it embedded, as an enrollment needs;
        otherwise frames are searched every ``detector.interval_frames`` and a face whose identity is certain
        is embedded every ``tracker.recheck_frames`` frames.

        Raises:
            FrameError: If the frame cannot be used.
        """
        self._adopt_config()
        if self._last_stamp is not None and frame.stamp < self._last_stamp - CLOCK_JUMP_S:
            self.reset()
        stamp = frame.stamp if self._last_stamp is None else max(frame.stamp, self._last_stamp)
        self._last_stamp = stamp
        clock = StageClock()
        image = rotate_image(frame.image_bgr, self.rotate)
        interval = 1 if embed_all else self._config.detector.interval_frames
        with clock.stage("resize"):
            lit = brighten_frame(image)
        detections = self._finder.find(lit, interval, clock)
        with clock.stage("align"):
            views, thumbnails = self._look(image, lit, detections, frame.stamp)
            depths = self._depths(frame, detections)
        with clock.stage("track"):
            plan = self._tracker.plan(detections, stamp)
            changes = [
                1.0 if track is None else _correlation(track.thumbnail, thumbnail)
                for track, thumbnail in zip(plan.likely, thumbnails, strict=True)
            ]
            chosen = list(range(len(views))) if embed_all else self._choose(plan, views, changes, stamp)
        with clock.stage("embed"):
            views = self._embed(views, chosen)
        with clock.stage("track"):
            observations = [self._as_evidence(view) for view in views]
            tracks = self._tracker.update(plan, detections, observations, stamp, [c < _CUT for c in changes])
            for track, thumbnail, view, depth in zip(tracks, thumbnails, views, depths, strict=True):
                track.thumbnail = thumbnail
                track.is_ghost = view.quality.landmarks < _LEAST_PLAUSIBLE
                if depth is not None and (bulge := measure_bulge(depth)) is not None:
                    track.bulge.add(bulge)
                if track.bulge.verdict == UNVERIFIED:
                    track.motion.add(lit, track.detection, stamp)
        with clock.stage("search"):
            snapshot = self._gallery.snapshot()
            tracks, identities = self._resolver.resolve(tracks, snapshot, stamp, self._tracker.renew)
        self._settled = {t.track_id for t, i in zip(tracks, identities, strict=True) if _is_settled(t, i)}
        faces = tuple(
            IdentifiedFace(
                track.track_id, view, identity, flatness=track.flatness, flatness_source=track.flatness_source
            )
            for track, view, identity in zip(tracks, views, identities, strict=True)
        )
        height, width = image.shape[:2]
        result = RecognitionResult(
            frame.stamp, frame.frame_id, (width, height), faces, snapshot.version, clock.seconds
        )
        result = _with_positions(to_original(result, self.rotate), depths, frame.intrinsics)
        for observer in self._observers:
            observer.observe(result, tracks)
        return _with_own_strangers(result, tracks)

    def _adopt_config(self) -> None:
        config = self.config
        if config is not self._config:
            self._config = config
            self._tracker.config = config.tracker
            self._resolver.config = config.identity
            self._resolver.stranger_false_match_rate = config.strangers.false_match_rate

    def _look(
        self, image: ImageArray, lit: ImageArray, detections: Sequence[Detection], stamp: float
    ) -> tuple[list[FaceView], list[FloatArray]]:
        """Return the aligned faces of the lit image with pose and the quality they have as they came."""
        landmarks = (
            np.stack([d.landmarks_xy for d in detections]) if detections else np.zeros((0, 5, 2), np.float32)
        )
        crops = align_faces(lit, landmarks)
        heads = fit_heads(landmarks)
        as_they_came = crops if lit is image else align_faces(image, landmarks)
        qualities = assess_quality(as_they_came, detections, heads)
        angles = np.stack([heads.yaw, heads.pitch, heads.roll], axis=1).tolist()
        views = [
            FaceView(detection, stamp, quality, HeadPose(*pose), crop)
            for detection, quality, pose, crop in zip(detections, qualities, angles, crops, strict=True)
        ]
        return views, [_thumbnail(crop) for crop in crops]

    def _depths(self, frame: Frame, detections: Sequence[Detection]) -> list[FaceDepth | None]:
        """Return the depth over each face; None where there is no depth image or it says too little."""
        if frame.depth_m is None:
            return [None] * len(detections)
        depth = rotate_image(frame.depth_m, self.rotate)
        return [sample_face_depth(depth, detection) for detection in detections]

    def _choose(
        self, plan: PositionPlan, views: Sequence[FaceView], changes: Sequence[float], stamp: float
    ) -> list[int]:
        """Return which faces have to be embedded in this frame."""
        chosen = []
        for k, (view, track) in enumerate(zip(views, plan.likely, strict=True)):
            if not self._counts(view):
                continue
            if (
                track is None
                or plan.contested[k]
                or changes[k] < _SAME_PICTURE
                or self._is_recheck_due(track, stamp)
                or (track.track_id not in self._settled and not track.is_flat)
            ):
                chosen.append(k)
        return chosen

    def _is_recheck_due(self, track: Track, stamp: float) -> bool:
        """Say whether a track has been followed for long enough without a look at whose face it is."""
        if track.frames_unchecked + 1 >= self._config.tracker.recheck_frames:
            return True
        # Few frames may be much time: a claim must not lapse, nor adaptation forget, for want of a look.
        last = track.evidence.last_stamp
        longest = min(self._config.identity.claim_timeout_s / 2, _LONGEST_UNCHECKED_S)
        return last is not None and stamp - last >= longest

    def _embed(self, views: Sequence[FaceView], chosen: Sequence[int]) -> list[FaceView]:
        """Return the views, the chosen ones with their embedding."""
        embedded = list(views)
        if chosen:
            crops = np.stack([views[k].crop_bgr for k in chosen])  # type: ignore[misc]  # every view was aligned
            for k, embedding in zip(chosen, self._embedder.embed(crops), strict=True):
                embedded[k] = replace(views[k], embedding=embedding, precision=self._embedder.precision)
        return embedded

    def _counts(self, view: FaceView) -> bool:
        """Say whether a view is good enough to tell anything of identity."""
        identity = self._config.identity
        return (
            view.quality.overall >= identity.minimum_quality
            and view.detection.score >= identity.minimum_detection_score
            and view.detection.size_px >= identity.minimum_face_px
        )

    def _as_evidence(self, view: FaceView) -> Observation | None:
        if view.embedding is None or not self._counts(view):
            return None
        return Observation(view.embedding, view.quality.overall)


def _is_settled(track: Track, identity: Identity) -> bool:
    """Say whether a track need not be embedded in every frame."""
    decided = identity.state is not IdentityState.UNDECIDED and identity.person_id is not None
    return decided and track.contradiction == 0.0 and track.evidence.effective_views >= 1.0


def _with_positions(
    result: RecognitionResult, depths: Sequence[FaceDepth | None], intrinsics: Intrinsics | None
) -> RecognitionResult:
    """Return the result with each face's place in space, by depth where there is depth, else by its size."""
    if intrinsics is None:
        return result
    faces = tuple(
        replace(
            face,
            position=position_from_size(face.view.detection, face.view.pose, intrinsics)
            if depth is None
            else position_from_depth(depth.median, face.view.detection, intrinsics),
        )
        for face, depth in zip(result.faces, depths, strict=True)
    )
    return replace(result, faces=faces)


def _with_own_strangers(result: RecognitionResult, tracks: Sequence[Track]) -> RecognitionResult:
    """Return the result with the stranger that each face's very track became, which an observer decides."""
    if not any(track.own_stranger_id for track in tracks):
        return result
    faces = tuple(
        replace(face, own_stranger_id=track.own_stranger_id)
        for face, track in zip(result.faces, tracks, strict=True)
    )
    return replace(result, faces=faces)


def _thumbnail(crop_bgr: ImageArray) -> FloatArray:
    """Return a small grey picture as a vector of mean 0 and length 1."""
    small = cv2.resize(crop_bgr[16:, 16:96], (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    values = small.astype(np.float32).mean(axis=2).ravel()
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)


def _correlation(before: FloatArray | None, now: FloatArray) -> float:
    return 1.0 if before is None else float(before @ now)

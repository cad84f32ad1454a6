"""The values that travel through the pipeline: frames, detections, face views, identities.

Conventions, everywhere: images are BGR ``uint8`` of shape (H, W, 3); boxes are ``x1, y1, x2, y2`` in pixels
of the image they were found in, as floats; landmarks are (5, 2) ``x, y`` pixels in the order right eye,
left eye, nose, right mouth corner, left mouth corner *as seen in the image from left to right*; embeddings
are (64,) ``float32`` of unit length; ``similarity`` is the cosine (higher is closer), ``distance`` the
Euclidean distance of unit vectors in [0, 2] (lower is closer); stamps are seconds, angles are degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import FrameError, InputError

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]


def as_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """Return ``value`` as a finite float32 array of ``shape`` or raise InputError naming it."""
    array = np.asarray(value, dtype=np.float32)
    if array.shape != shape:
        raise InputError(f"{name}: expected shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite numbers, got NaN or infinity")
    return array


def require_image(image_bgr: ImageArray, name: str = "image_bgr") -> ImageArray:
    """Return ``image_bgr`` if it is a (H, W, 3) uint8 image with pixels, else raise FrameError."""
    if not isinstance(image_bgr, np.ndarray) or image_bgr.dtype != np.uint8:
        got = getattr(image_bgr, "dtype", type(image_bgr).__name__)
        raise FrameError("type", f"{name}: expected a uint8 array (H, W, 3) in BGR, got {got}")
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3:
        raise FrameError("shape", f"{name}: expected shape (H, W, 3) in BGR, got {image_bgr.shape}")
    if 0 in image_bgr.shape:
        raise FrameError("size", f"{name}: expected at least one pixel, got {image_bgr.shape}")
    return image_bgr


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point, pixels."""

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and math.isfinite(self.cx) and math.isfinite(self.cy)):
            raise InputError(f"intrinsics: expected positive focal lengths and a finite centre, got {self}")


CLOCK_JUMP_S = 0.5
"""A stamp this much older than the last one means that time was set back (a recording starts again)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image with what its header says.

    Attributes:
        image_bgr: (H, W, 3) uint8.
        stamp: Acquisition time, seconds.
        frame_id: Coordinate frame of the camera, kept for the answer.
        depth_m: Optional (H, W) float32 depth registered to the image, metres, NaN where unknown.
        intrinsics: Optional camera model of the image; it gives faces a position.
    """

    image_bgr: ImageArray
    stamp: float
    frame_id: str = ""
    depth_m: FloatArray | None = None
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        require_image(self.image_bgr)


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face found in one frame.

    Attributes:
        box_xyxy: (4,) float32 pixels, ``x1 < x2`` and ``y1 < y2``; may reach outside the image.
        score: Confidence of the detector in [0, 1]; says nothing of how usable the face is.
        landmarks_xy: (5, 2) float32 pixels, see the module's conventions.
    """

    box_xyxy: FloatArray
    score: float
    landmarks_xy: FloatArray

    def __post_init__(self) -> None:
        box = as_array("box_xyxy", self.box_xyxy, (4,))
        if not (box[0] < box[2] and box[1] < box[3]):
            raise InputError(f"box_xyxy: expected x1 < x2 and y1 < y2, got {box.tolist()}")
        if not 0.0 <= self.score <= 1.0:
            raise InputError(f"score: expected a number in [0, 1], got {self.score}")
        object.__setattr__(self, "box_xyxy", box)
        object.__setattr__(self, "landmarks_xy", as_array("landmarks_xy", self.landmarks_xy, (5, 2)))

    @property
    def width(self) -> float:
        """Box width in pixels."""
        return float(self.box_xyxy[2] - self.box_xyxy[0])

    @property
    def height(self) -> float:
        """Box height in pixels."""
        return float(self.box_xyxy[3] - self.box_xyxy[1])

    @property
    def size_px(self) -> float:
        """Geometric mean of box width and height, pixels: the one "size" of a face."""
        return math.sqrt(self.width * self.height)

    @property
    def center_xy(self) -> FloatArray:
        """Centre of the box, (2,) pixels."""
        return np.asarray((self.box_xyxy[:2] + self.box_xyxy[2:]) / 2, np.float32)


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Head orientation estimated from five landmarks, degrees.

    Attributes:
        yaw: Positive when the face looks towards the right side of the image.
        pitch: Positive when the face looks up.
        roll: In-plane rotation of the eye line, positive clockwise in the image.
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """How usable a face is for recognition; each part in [0, 1], 1 is best.

    Attributes:
        overall: The one number used for weighting.
        size: From the face's size in pixels.
        sharpness: From image gradients of the aligned crop.
        exposure: Falls when much of the crop is black or burnt out.
        frontality: Falls with yaw and pitch.
        landmarks: How well the five points fit a face (falls under occlusion and false detections).
    """

    overall: float
    size: float
    sharpness: float
    exposure: float
    frontality: float
    landmarks: float


@dataclass(frozen=True, slots=True, eq=False)
class FaceView:
    """One look at one face: a detection, its aligned crop, and what was measured on it.

    Attributes:
        stamp: Time of the frame, seconds.
        crop_bgr: Aligned (112, 112, 3) uint8, or None where it was not needed.
        embedding: (64,) float32 of unit length, or None where it was not computed in this frame.
        precision: Arithmetic that the embedding was computed in; a template made of the view records it.
    """

    detection: Detection
    stamp: float
    quality: FaceQuality
    pose: HeadPose
    crop_bgr: ImageArray | None = None
    embedding: FloatArray | None = None
    precision: str = "fp32"


def embedding_of(view: FaceView) -> FloatArray:
    """Return a view's embedding, or raise InputError if it has none."""
    if view.embedding is None:
        raise InputError("view: expected one with an embedding; process the frame with embed_all=True")
    return view.embedding


class IdentityState(str, Enum):
    """What is claimed of a track."""

    UNDECIDED = "undecided"
    STRANGER = "stranger"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person whom a face might show.

    Attributes:
        person_id: Permanent id.
        name: Display name (may change, may collide).
        probability: Posterior in [0, 1].
        similarity: Cosine to the person's nearest template, or None where it was not measured.
    """

    person_id: str
    name: str
    probability: float
    similarity: float | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.probability:.2f})"


@dataclass(frozen=True, slots=True)
class Identity:
    """What is claimed of one track at one moment.

    Attributes:
        person_id: Set for a known person, and for a stranger who has been given an id.
        name: Display name; empty when undecided.
        probability: Posterior of the claim in [0, 1].
        runner_up: The best other person, if there is one.
        distance: Euclidean distance in [0, 2] to the closest template of the claimed (or best) person.
        evidence_age: Seconds since an embedding last supported the claim.
    """

    state: IdentityState = IdentityState.UNDECIDED
    person_id: str | None = None
    name: str = ""
    probability: float = 0.0
    runner_up: Candidate | None = None
    distance: float | None = None
    evidence_age: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """Where the middle of a face is in the camera's optical frame: x right, y down, z ahead.

    Attributes:
        xyz_m: (3,) metres.
        covariance_m2: (3, 3) square metres.
        source: "depth", or "size": from the distance between the eyes of an adult.
    """

    xyz_m: FloatArray
    covariance_m2: FloatArray
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class IdentifiedFace:
    """One face of one frame with its track and identity: what is published.

    Attributes:
        track_id: Number of the track; never reused while the process lives.
        position: Where it is, if the camera's model is known.
        flatness: "unverified", "solid" or "flat" (a picture of a face).
        flatness_source: What says so: "depth", "motion", or "" while it is unverified.
        own_stranger_id: The stranger that was created from this very track, while nothing has broken it.
    """

    track_id: int
    view: FaceView
    identity: Identity
    position: Position | None = None
    flatness: str = "unverified"
    flatness_source: str = ""
    own_stranger_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecognitionResult:
    """Everything found in one frame.

    Attributes:
        stamp: Stamp of the frame, seconds.
        frame_id: Coordinate frame of the frame.
        image_size: (width, height) in pixels.
        faces: One entry per visible face, in coordinates of the image as it came.
        gallery_version: Version of the gallery the identities were decided with.
        stage_seconds: Time spent by stage: resize, detect, align, embed, track, search.
        rotate: Degrees by which the image has to be turned clockwise to be upright.
    """

    stamp: float
    frame_id: str
    image_size: tuple[int, int]
    faces: tuple[IdentifiedFace, ...]
    gallery_version: int
    stage_seconds: dict[str, float] = field(default_factory=dict)
    rotate: int = 0

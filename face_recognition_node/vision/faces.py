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


# a stamp this much older than the last one means that time was set back (a recording starts again)
CLOCK_JUMP_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image with what its header says."""

    image_bgr: ImageArray  # (H, W, 3) uint8
    stamp: float  # acquisition time, seconds
    frame_id: str = ""  # coordinate frame of the camera, kept for the answer
    # optional (H, W) float32 depth registered to the image, metres, NaN where unknown
    depth_m: FloatArray | None = None
    intrinsics: Intrinsics | None = None  # optional camera model of the image; it gives faces a position

    def __post_init__(self) -> None:
        require_image(self.image_bgr)


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face found in one frame."""

    box_xyxy: FloatArray  # (4,) float32 pixels, x1 < x2 and y1 < y2; may reach outside the image
    score: float  # confidence of the detector in [0, 1]; says nothing of how usable the face is
    landmarks_xy: FloatArray  # (5, 2) float32 pixels, see the module's conventions

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
    """Head orientation estimated from five landmarks, degrees."""

    yaw: float  # positive when the face looks towards the right side of the image
    pitch: float  # positive when the face looks up
    roll: float  # in-plane rotation of the eye line, positive clockwise in the image


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """How usable a face is for recognition; each part in [0, 1], 1 is best."""

    overall: float  # the one number used for weighting
    size: float  # from the face's size in pixels
    sharpness: float  # from image gradients of the aligned crop
    exposure: float  # falls when much of the crop is black or burnt out
    frontality: float  # falls with yaw and pitch
    landmarks: float  # how well the five points fit a face (falls under occlusion and false detections)


@dataclass(frozen=True, slots=True, eq=False)
class FaceView:
    """One look at one face: a detection, its aligned crop, and what was measured on it."""

    detection: Detection
    stamp: float  # time of the frame, seconds
    quality: FaceQuality
    pose: HeadPose
    crop_bgr: ImageArray | None = None  # aligned (112, 112, 3) uint8, or None where it was not needed
    # (64,) float32 of unit length, or None where it was not computed in this frame
    embedding: FloatArray | None = None
    # arithmetic that the embedding was computed in; a template made of the view records it
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
    """A person whom a face might show."""

    person_id: str  # permanent id
    name: str  # display name (may change, may collide)
    probability: float  # posterior in [0, 1]
    # cosine to the person's nearest template, or None where it was not measured
    similarity: float | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.probability:.2f})"


@dataclass(frozen=True, slots=True)
class Identity:
    """What is claimed of one track at one moment."""

    state: IdentityState = IdentityState.UNDECIDED
    person_id: str | None = None  # set for a known person, and for a stranger who has been given an id
    name: str = ""  # display name; empty when undecided
    probability: float = 0.0  # posterior of the claim in [0, 1]
    runner_up: Candidate | None = None  # the best other person, if there is one
    # Euclidean distance in [0, 2] to the closest template of the claimed (or best) person
    distance: float | None = None
    evidence_age: float | None = None  # seconds since an embedding last supported the claim


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """Where the middle of a face is in the camera's optical frame: x right, y down, z ahead."""

    xyz_m: FloatArray  # (3,) metres
    covariance_m2: FloatArray  # (3, 3) square metres
    source: str  # "depth", or "size": from the distance between the eyes of an adult


@dataclass(frozen=True, slots=True, eq=False)
class IdentifiedFace:
    """One face of one frame with its track and identity: what is published."""

    track_id: int  # number of the track; never reused while the process lives
    view: FaceView
    identity: Identity
    position: Position | None = None  # where it is, if the camera's model is known
    flatness: str = "unverified"  # "unverified", "solid" or "flat" (a picture of a face)
    flatness_source: str = ""  # what says so: "depth", "motion", or "" while it is unverified
    # the stranger that was created from this very track, while nothing has broken it
    own_stranger_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecognitionResult:
    """Everything found in one frame."""

    stamp: float  # stamp of the frame, seconds
    frame_id: str  # coordinate frame of the frame
    image_size: tuple[int, int]  # (width, height) in pixels
    faces: tuple[IdentifiedFace, ...]  # one entry per visible face, in coordinates of the image as it came
    gallery_version: int  # version of the gallery the identities were decided with
    # time spent by stage: resize, detect, align, embed, track, search
    stage_seconds: dict[str, float] = field(default_factory=dict)
    rotate: int = 0  # degrees by which the image has to be turned clockwise to be upright

"""Twelve seconds of video without a camera: a camera walks past framed portraits on a wall.

Two official photographs in the public domain (see assets/CREDITS.md) hang there: the *guest*, who can be
enrolled, and the *stranger*. First the guest is alone in view, then both are, then the guest is gone, and at
last is back at another place. The camera pans, turns, breathes and sees noise and changing light; every
frame is a function of its number alone. Demo, tests and benchmarks use it, and know the truth about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.media.lettering import ASSETS
from face_recognition_node.media.wall import Picture, build_wall, hang_in_rows
from face_recognition_node.vision.faces import FloatArray, ImageArray

RATE_HZ = 30.0
DURATION_S = 12.0
SIZE = (640, 480)

_FILES = {"guest": "eileen_collins.jpg", "stranger": "grace_hopper.jpg"}
NAMES = {"guest": "Eileen", "stranger": "Grace"}
FACE_BOXES: dict[str, tuple[float, float, float, float]] = {
    "guest": (178.0, 57.0, 273.0, 177.0),
    "stranger": (178.0, 107.0, 354.0, 328.0),
}
"""x1, y1, x2, y2 of the face in each portrait, pixels; where RetinaFace finds it."""
_CROPS = {"guest": (36, 0, 416, 400), "stranger": (0, 0, 512, 600)}
_WALL_SIZE = (2300, 1000)
_PLACES = (("guest", 520.0, 400.0, 1.0), ("stranger", 1090.0, 400.0, 0.64), ("guest", 1730.0, 400.0, 0.95))

# seconds, look-at x, y on the wall, width of wall in view, and the camera's turn to the side, degrees
_PATH = np.array(
    [
        (0.0, 440, 395, 800, -4),
        (1.5, 500, 375, 690, 22),
        (3.0, 540, 365, 620, -24),
        (4.5, 590, 380, 760, 6),
        (6.0, 800, 390, 930, -8),
        (7.2, 900, 390, 900, -4),
        (8.2, 1120, 385, 690, 12),
        (9.0, 1170, 385, 700, 8),
        (10.2, 1420, 390, 930, -10),
        (12.0, 1560, 385, 900, 10),
    ]
)


@dataclass(frozen=True, slots=True)
class TrueFace:
    """A face that is in view of the sample.

    Attributes:
        who: "guest" or "stranger".
        box_xyxy: (4,) float32 pixels around the face, the rectangle about its projected corners.
    """

    who: str
    box_xyxy: FloatArray


@lru_cache(maxsize=4)
def portrait(who: str) -> ImageArray:
    """Return the photograph of ``"guest"`` or ``"stranger"``, about 512 pixels wide, BGR uint8, read-only."""
    if who not in _FILES:
        raise InputError(f"who: expected one of {sorted(_FILES)}, got {who!r}")
    image = cv2.imread(str(ASSETS / _FILES[who]), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{ASSETS / _FILES[who]}: expected a picture, found none; reinstall the package")
    image.flags.writeable = False
    return image.astype(np.uint8, copy=False)


def render(time: float, size: tuple[int, int] = SIZE) -> ImageArray:
    """Return what the camera sees ``time`` seconds after the start, (height, width, 3) BGR uint8."""
    _require_size(size)
    warped = cv2.warpPerspective(
        _wall(), camera_matrix(time, size), size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    light = 1.0 + 0.10 * math.sin(0.9 * time) - 0.22 * math.exp(-(((time - 8.6) / 0.7) ** 2))
    lit = cv2.convertScaleAbs(warped, alpha=light, beta=2.0)
    return _with_noise(lit, round(time * 1000))


def true_faces(time: float, size: tuple[int, int] = SIZE) -> list[TrueFace]:
    """Return the faces whose box lies by at least 60 % in the frame that :func:`render` gives."""
    matrix = camera_matrix(time, size)
    seen = []
    for who, x, y, scale in _PLACES:
        box = _on_wall(who, x, y, scale)
        corners = np.array(
            [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]], np.float64
        )
        projected = cv2.perspectiveTransform(corners[None], matrix)[0]
        low, high = projected.min(axis=0), projected.max(axis=0)
        inside = np.clip(np.minimum(high, size) - np.maximum(low, 0), 0, None)
        if inside.prod() >= 0.6 * (high - low).prod():
            seen.append(TrueFace(who, np.concatenate([low, high]).astype(np.float32)))
    return seen


def sample_frame(size: tuple[int, int] = SIZE, faces: int = 2) -> ImageArray:
    """Return one still picture with a known number of faces, for tests and benchmarks.

    Args:
        size: (width, height) in pixels.
        faces: How many portraits hang on the wall, 0 to 12; from the left guest, stranger, guest, stranger …,
            every later pair mirrored so that no two of them are the same pixels.
    """
    _require_size(size)
    if not 0 <= faces <= 12:
        raise InputError(f"faces: expected 0 to 12, got {faces}")
    order = [("guest", "stranger")[index % 2] for index in range(faces)]
    pictures = [_picture(who, is_mirrored=index % 4 >= 2) for index, who in enumerate(order)]
    still = hang_in_rows(pictures, size)
    return _with_noise(still, 0)


def camera_matrix(time: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the (3, 3) homography from wall to image at ``time``: a pinhole camera that looks at a plane."""
    x, y, view, turn = _along_path(min(max(time, 0.0), DURATION_S))
    # A hand-held camera: three slow sways that never line up.
    x += 5 * math.sin(2.1 * time)
    y += 6 * math.sin(1.3 * time + 1.0) + 2 * math.sin(4.7 * time)
    roll = math.radians(1.6 * math.sin(1.1 * time + 0.4))
    width, height = size
    focal = 1.15 * width
    distance = focal * view / width
    yaw = math.radians(turn)
    right = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
    ahead = np.array([math.sin(yaw), 0.0, math.cos(yaw)])
    turned = np.array(
        [[math.cos(roll), -math.sin(roll), 0.0], [math.sin(roll), math.cos(roll), 0.0], [0.0, 0.0, 1.0]]
    )
    rotation = turned @ np.stack([right, [0.0, 1.0, 0.0], ahead])
    position = np.array([x, y, 0.0]) - distance * ahead
    intrinsic = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    matrix: np.ndarray = intrinsic @ np.stack([rotation[:, 0], rotation[:, 1], -rotation @ position], axis=1)
    return matrix


def _along_path(time: float) -> tuple[float, float, float, float]:
    """Interpolate the path by cubic Hermite pieces with central differences as slopes (Catmull-Rom)."""
    times, values = _PATH[:, 0], _PATH[:, 1:]
    slopes = np.gradient(values, times, axis=0)
    index = int(np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2))
    span = times[index + 1] - times[index]
    s = (time - times[index]) / span
    near, far = values[index], values[index + 1]
    point = (
        (2 * s**3 - 3 * s**2 + 1) * near
        + (s**3 - 2 * s**2 + s) * span * slopes[index]
        + (3 * s**2 - 2 * s**3) * far
        + (s**3 - s**2) * span * slopes[index + 1]
    )
    return float(point[0]), float(point[1]), float(point[2]), float(point[3])


def _picture(who: str, *, is_mirrored: bool = False) -> Picture:
    x1, y1, x2, y2 = _CROPS[who]
    image = portrait(who)[y1:y2, x1:x2]
    if who == "stranger":
        image = cv2.resize(image, None, fx=0.62, fy=0.62, interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    return Picture(image[:, ::-1].copy() if is_mirrored else image, NAMES[who])


def _on_wall(who: str, x: float, y: float, scale: float) -> tuple[float, float, float, float]:
    """Return the box of a hanging portrait's face in pixels of the wall."""
    crop, face = _CROPS[who], FACE_BOXES[who]
    left, top = x - scale * (crop[2] - crop[0]) / 2, y - scale * (crop[3] - crop[1]) / 2
    return (
        left + scale * (face[0] - crop[0]),
        top + scale * (face[1] - crop[1]),
        left + scale * (face[2] - crop[0]),
        top + scale * (face[3] - crop[1]),
    )


@lru_cache(maxsize=1)
def _wall() -> ImageArray:
    hanging = []
    for who, x, y, scale in _PLACES:
        x1, y1, x2, y2 = _CROPS[who]
        image = cv2.resize(
            portrait(who)[y1:y2, x1:x2], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        hanging.append((Picture(image.astype(np.uint8, copy=False), NAMES[who]), x, y))
    return build_wall(_WALL_SIZE, hanging)


@lru_cache(maxsize=4)
def _noise_field(size: tuple[int, int]) -> np.ndarray:
    """Return signed sensor noise a bit larger than a frame, mostly luminance, standard deviation 3 of 255."""
    width, height = size
    generator = np.random.default_rng(5)
    shape = (height + 64, width + 64, 1)
    field = 2.8 * generator.standard_normal(shape, np.float32) + generator.standard_normal(
        (*shape[:2], 3), np.float32
    )
    rounded: np.ndarray = np.rint(field).astype(np.int16)
    return rounded


def _with_noise(image_bgr: np.ndarray, seed: int) -> ImageArray:
    """Add a window of the noise field, at a place drawn from ``seed``."""
    height, width = image_bgr.shape[:2]
    x, y = np.random.default_rng(seed).integers(0, 64, 2)
    noise = _noise_field((width, height))[y : y + height, x : x + width]
    return cv2.add(image_bgr, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def _require_size(size: tuple[int, int]) -> None:
    if min(size) < 16 or max(size) > 8192:
        raise InputError(f"size: expected (width, height) of 16 to 8192 pixels, got {size}")

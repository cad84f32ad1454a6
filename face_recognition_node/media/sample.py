"""Twelve seconds of video without a camera: a camera walks past framed portraits on a wall.

Two official photographs in the public domain (see assets/CREDITS.md) hang there: the *guest*, who can be
enrolled, and the *stranger*. First the guest is alone in view, then both are, then the guest is gone, and at
last is back at another place. The camera pans, turns, breathes and sees noise and changing light; every
frame is a function of its number alone. Demo, tests and benchmarks use it, and know the truth about it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.media.lettering import ASSETS
from face_recognition_node.vision.faces import ImageArray

RATE_HZ = 30.0
DURATION_S = 12.0
SIZE = (640, 480)

_FILES = {"guest": "eileen_collins.jpg", "stranger": "grace_hopper.jpg"}
NAMES = {"guest": "Eileen", "stranger": "Grace"}
# x1, y1, x2, y2 of the face in each portrait, pixels; where RetinaFace finds it
FACE_BOXES: dict[str, tuple[float, float, float, float]] = {
    "guest": (178.0, 57.0, 273.0, 177.0),
    "stranger": (178.0, 107.0, 354.0, 328.0),
}
# the part of each portrait that hangs on the wall
CROPS = {"guest": (36, 0, 416, 400), "stranger": (0, 0, 512, 600)}
# who hangs where: the centre on the wall, pixels, and the scale
PLACES = (("guest", 520.0, 400.0, 1.0), ("stranger", 1090.0, 400.0, 0.64), ("guest", 1730.0, 400.0, 0.95))
_WALL_SIZE = (2300, 1000)
_WALL_COLOR, _MAT_COLOR, _WOOD_COLOR = (166, 160, 148), (232, 238, 240), (34, 46, 62)

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


def sample_frame(size: tuple[int, int] = SIZE, faces: int = 2) -> ImageArray:
    """Return one still picture of (width, height) pixels with 0 to 12 faces, for tests and benchmarks.

    From the left hang guest, stranger, guest, stranger …, every later pair mirrored so that no two of them
    are the same pixels.
    """
    _require_size(size)
    if not 0 <= faces <= 12:
        raise InputError(f"faces: expected 0 to 12, got {faces}")
    # hung in the rows that keep them largest
    cell, rows = max((min(size[0] / math.ceil(max(faces, 1) / n), size[1] / n), n) for n in (1, 2, 3))
    columns = math.ceil(faces / rows)
    hanging = []
    for index in range(faces):
        image = _picture(("guest", "stranger")[index % 2])[:, :: -1 if index % 4 >= 2 else 1]
        row, column = divmod(index, columns)
        in_row = min(columns, faces - row * columns)
        x = size[0] / 2 + (column - (in_row - 1) / 2) * size[0] / columns
        hanging.append((_scaled(image, 0.74 * cell / max(image.shape[:2])), x, (row + 0.48) * size[1] / rows))
    return _with_noise(_build_wall(size, hanging), 0)


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


def _picture(who: str) -> ImageArray:
    x1, y1, x2, y2 = CROPS[who]
    return portrait(who)[y1:y2, x1:x2]


def _scaled(image: ImageArray, scale: float) -> ImageArray:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=method).astype(np.uint8, copy=False)


@lru_cache(maxsize=1)
def _wall() -> ImageArray:
    return _build_wall(_WALL_SIZE, [(_scaled(_picture(who), scale), x, y) for who, x, y, scale in PLACES])


def _build_wall(size: tuple[int, int], hanging: Sequence[tuple[ImageArray, float, float]]) -> ImageArray:
    """Return an uneven (height, width, 3) wall with framed pictures centred at the given pixels."""
    width, height = size
    rough = np.random.default_rng(3).standard_normal((height // 24 + 2, width // 24 + 2), np.float32)
    relief = 4 * cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC)
    wall = np.clip(relief[..., None] + np.array(_WALL_COLOR, np.float32), 0, 255).astype(np.uint8)
    for image, x, y in hanging:
        h, w = image.shape[:2]
        left, top = round(x - w / 2), round(y - h / 2)
        for border, color in ((h // 12, _WOOD_COLOR), (h // 22, _MAT_COLOR)):
            cv2.rectangle(
                wall, (left - border, top - border), (left + w + border, top + h + border), color, -1
            )
        x1, y1 = max(left, 0), max(top, 0)
        part = wall[y1 : top + h, x1 : left + w]
        part[:] = image[y1 - top :, x1 - left :][: part.shape[0], : part.shape[1]]
    return wall


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

"""The aligned 112×112 face: one similarity warp, the same at training, enrollment and query."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import FloatArray, ImageArray, require_image
from face_recognition_node.vision.geometry import as_rows, estimate_similarities

CROP_SIZE = 112
"""Side of an aligned face, pixels."""

ALIGNMENT_TEMPLATE: FloatArray = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
"""(5, 2) where the five landmarks of an aligned face lie (the template of ArcFace, Deng et al. 2019)."""
ALIGNMENT_TEMPLATE.setflags(write=False)

ALIGNMENT_FINGERPRINT = "similarity112-" + hashlib.sha256(ALIGNMENT_TEMPLATE.tobytes()).hexdigest()[:12]
"""Names this warp; part of every embedder's fingerprint, so that galleries of another warp are refused."""

_SHRINK_BELOW = 0.5
"""Below this scale bilinear sampling skips pixels, and the face is first shrunk by area averaging."""


def align_faces(image_bgr: ImageArray, landmarks_xy: ArrayLike) -> ImageArray:
    """Return faces, (N, 112, 112, 3) uint8, warped so that their landmarks come to lie on the template.

    Pixels from outside the image are black. A face much larger than the crop is averaged down first, so that
    a close face looks as smooth as one further away.

    Args:
        image_bgr: (H, W, 3) uint8.
        landmarks_xy: (N, 5, 2) pixels in the order of faces.py; N may be 0.

    Raises:
        FrameError: For something that is no image.
        InputError: For landmarks of another shape, not finite, or all in one place.
    """
    require_image(image_bgr)
    warps = plan_warps((image_bgr.shape[0], image_bgr.shape[1]), landmarks_xy)
    crops = np.empty((len(warps), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for crop, warp in zip(crops, warps, strict=True):
        _warp(image_bgr, warp, crop)
    return crops


Aligner = Callable[[ImageArray, ArrayLike], ImageArray]
"""What :func:`align_faces` is: an image and landmarks in, crops out; a detector on a GPU has its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """How a face is cut out: a part of the image, shrunk by a whole factor, then warped.

    The part ends before ``right`` and ``bottom``; its sides are multiples of ``factor``. Blocks of factor ×
    factor pixels are averaged (1: none, and the part is the image); ``matrix`` is (2, 3), from the pixels of
    the shrunk part to those of the crop.
    """

    left: int
    top: int
    right: int
    bottom: int
    factor: int
    matrix: NDArray[np.float64]


def plan_warps(size: tuple[int, int], landmarks_xy: ArrayLike) -> list[Warp]:
    """Return how the faces of an image of ``size`` (height, width) are cut out; see :func:`align_faces`."""
    landmarks = as_rows("landmarks_xy", landmarks_xy, (5, 2))
    if len(landmarks) == 0:
        return []
    return [_plan(size, matrix) for matrix in estimate_similarities(landmarks, ALIGNMENT_TEMPLATE)]


def _plan(size: tuple[int, int], matrix: NDArray[np.float64]) -> Warp:
    height, width = size
    whole = Warp(0, 0, width, height, 1, matrix)
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale >= _SHRINK_BELOW:
        return whole
    inverse = cv2.invertAffineTransform(matrix)
    crop_corners = np.array([[0, 0], [CROP_SIZE, 0], [0, CROP_SIZE], [CROP_SIZE, CROP_SIZE]], np.float64)
    corners = crop_corners @ inverse[:, :2].T + inverse[:, 2]
    factor = int(1 / scale)  # at least 2; what is left to the warp is a scale in (0.5, 1]
    left, top = (int(max(0, math.floor(low) - factor)) for low in corners.min(axis=0))
    right = int(min(width, math.ceil(corners[:, 0].max()) + factor))
    bottom = int(min(height, math.ceil(corners[:, 1].max()) + factor))
    # whole blocks of factor x factor pixels keep the geometry exact
    columns, rows = (right - left) // factor, (bottom - top) // factor
    if columns < 1 or rows < 1:
        return whole
    # pixel centre of the shrunk part (u, v) lies at left + factor * u + (factor - 1) / 2
    offset = np.array([left, top]) + (factor - 1) / 2
    fitted = np.column_stack([matrix[:, :2] * factor, matrix[:, :2] @ offset + matrix[:, 2]])
    return Warp(left, top, left + columns * factor, top + rows * factor, factor, fitted)


def _warp(image_bgr: ImageArray, warp: Warp, crop: ImageArray) -> None:
    part = image_bgr
    if warp.factor > 1:
        part = image_bgr[warp.top : warp.bottom, warp.left : warp.right]
        size = part.shape[1] // warp.factor, part.shape[0] // warp.factor
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    cv2.warpAffine(
        part, warp.matrix, (CROP_SIZE, CROP_SIZE), dst=crop, flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )  # fmt: skip


def require_crops(crops_bgr: ImageArray, name: str = "crops_bgr") -> ImageArray:
    """Return ``crops_bgr`` if it is (N, 112, 112, 3) uint8, N ≥ 0, else raise InputError."""
    expected = (CROP_SIZE, CROP_SIZE, 3)
    if (
        not isinstance(crops_bgr, np.ndarray)
        or crops_bgr.dtype != np.uint8
        or crops_bgr.shape[1:] != expected
    ):
        got = f"{getattr(crops_bgr, 'dtype', type(crops_bgr).__name__)} {getattr(crops_bgr, 'shape', '')}"
        raise InputError(f"{name}: expected uint8 (N, {CROP_SIZE}, {CROP_SIZE}, 3) in BGR, got {got.strip()}")
    return crops_bgr

"""The aligned 112×112 face: one similarity warp, the same at training, enrollment and query."""

from __future__ import annotations

import hashlib
import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import FloatArray, ImageArray, require_image
from face_recognition_node.vision.geometry import as_rows, estimate_similarities

CROP_SIZE = 112  # side of an aligned face, pixels

# (5, 2) where the five landmarks of an aligned face lie (the template of ArcFace, Deng et al. 2019)
ALIGNMENT_TEMPLATE: FloatArray = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
ALIGNMENT_TEMPLATE.setflags(write=False)

# names this warp; part of every embedder's fingerprint, so that galleries of another warp are refused
ALIGNMENT_FINGERPRINT = "similarity112-" + hashlib.sha256(ALIGNMENT_TEMPLATE.tobytes()).hexdigest()[:12]

# below this scale bilinear sampling skips pixels, and the face is first shrunk by area averaging
_SHRINK_BELOW = 0.5


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
    landmarks = as_rows("landmarks_xy", landmarks_xy, (5, 2))
    crops = np.empty((len(landmarks), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    if len(landmarks):
        matrices = estimate_similarities(landmarks, ALIGNMENT_TEMPLATE)
        for crop, matrix in zip(crops, matrices, strict=True):
            part, fitted = _shrunk(image_bgr, matrix)
            cv2.warpAffine(
                part, fitted, (CROP_SIZE, CROP_SIZE), dst=crop, flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
            )  # fmt: skip
    return crops


def _shrunk(image_bgr: ImageArray, matrix: NDArray[np.float64]) -> tuple[ImageArray, NDArray[np.float64]]:
    """Return the part that a face needs, averaged down by a whole factor, and the (2, 3) warp from there."""
    height, width = image_bgr.shape[:2]
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale >= _SHRINK_BELOW:
        return image_bgr, matrix
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
        return image_bgr, matrix
    # pixel centre of the shrunk part (u, v) lies at left + factor * u + (factor - 1) / 2
    offset = np.array([left, top]) + (factor - 1) / 2
    fitted = np.column_stack([matrix[:, :2] * factor, matrix[:, :2] @ offset + matrix[:, 2]])
    part = image_bgr[top : top + rows * factor, left : left + columns * factor]
    return np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8), fitted


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

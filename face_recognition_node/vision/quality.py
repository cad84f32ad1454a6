"""How usable a face is for recognition, from its aligned crop, its box and its landmarks.

Each part says which share of the similarity between two pictures of one person is left when a face suffers
from this defect alone, so that ``overall``, their product, estimates that share for the face as it is. The
curves were measured on photographs of 700 people, one degraded in size, focus, light or cover, the other left
as it was, with an embedder that lost more than the present one (tools/measure_quality.py shows how much); the
order has stayed. Nothing here looks at identity or needs the embedder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.alignment import ALIGNMENT_TEMPLATE, CROP_SIZE, require_crops
from face_recognition_node.vision.faces import Detection, FaceQuality, ImageArray
from face_recognition_node.vision.pose import HeadFit, fit_heads

Curve = tuple[tuple[float, ...], tuple[float, ...]]

# box size in pixels -> quality
SIZE_CURVE: Curve = (
    (4.0, 8.0, 11.0, 14.0, 18.0, 25.0, 31.0, 44.0, 63.0),
    (0.0, 0.4, 0.59, 0.71, 0.83, 0.93, 0.97, 0.99, 1.0),
)
# logarithm of fine over coarse contrast, 0 for a sharp face of this size -> quality
SHARPNESS_CURVE: Curve = (
    (-1.0, -0.75, -0.6, -0.5, -0.36, -0.2, -0.1),
    (0.05, 0.2, 0.4, 0.58, 0.84, 0.96, 1.0),
)
# share of the face lost in the dark -> quality, brightened (relighting.py), with noise of 3 grey values
DARK_CURVE: Curve = ((0.1, 0.3, 0.47, 0.65, 0.77, 0.86, 1.0), (1.0, 0.98, 0.96, 0.93, 0.84, 0.65, 0.0))
# share of the face burnt out -> quality
BRIGHT_CURVE: Curve = ((0.0, 0.23, 0.65, 0.88, 1.0), (1.0, 0.97, 0.84, 0.54, 0.0))
YAW_CURVE: Curve = ((20.0, 35.0, 45.0, 60.0, 80.0), (1.0, 0.95, 0.88, 0.65, 0.3))  # degrees -> quality
PITCH_CURVE: Curve = ((15.0, 25.0, 40.0, 60.0), (1.0, 0.96, 0.8, 0.4))  # degrees -> quality
# squared Mahalanobis distance of the geometry from that of faces -> quality
LANDMARKS_CURVE: Curve = ((5.0, 10.0, 20.0, 40.0, 80.0), (1.0, 0.85, 0.6, 0.25, 0.05))

# grey values below and above which a pixel tells less and less, and nothing
DARK_LEVEL, BRIGHT_LEVEL = 40, 248

_FACE = (slice(18, 108), slice(18, 94))  # the part of the crop that is face
_CROP_SPREAD = float(np.sqrt(((ALIGNMENT_TEMPLATE - ALIGNMENT_TEMPLATE.mean(axis=0)) ** 2).sum() / 5))
_MINIMUM_SIDE = 24
_BLOCKS = 16
_SOBEL = 4.0
# of one pixel. `cv2.GaussianBlur` does the same exactly to the bit, in three times the time
_SMOOTHING = cv2.getGaussianKernel(7, 1.0)

# logarithm of fine over coarse contrast of a sharp face: at 112 pixels, and per logarithm of its side
SHARP_AT_FULL_SIZE, SHARP_BY_SIZE = -0.835, -0.351

# (7, 5) geometry of a face: linear in 1, yaw, pitch, yaw^2, pitch^2, sin^2 roll, yaw sin roll (radians)
_EXPECTED_LAYOUT = np.array(
    [
        [1.385, 0.248, -0.004, 0.080, 0.049],
        [-0.003, -0.020, 0.206, -0.001, 0.0],
        [-0.011, 0.024, 0.006, -0.079, 0.0],
        [0.042, 0.153, 0.012, 0.024, 0.0],
        [0.046, -0.131, 0.008, -0.154, 0.0],
        [0.040, -0.431, 0.017, 0.058, 0.0],
        [0.012, 0.081, -0.020, -0.108, 0.0],
    ]
)
# (5, 5) inverse covariance of what is left
_LAYOUT_PRECISION = np.array(
    [
        [1184.0, -73.0, 22.0, -366.0, -53.0],
        [-73.0, 218.0, 24.0, -130.0, -92.0],
        [22.0, 24.0, 2653.0, 330.0, 102.0],
        [-366.0, -130.0, 330.0, 1724.0, 285.0],
        [-53.0, -92.0, 102.0, 285.0, 1678.0],
    ]
)


def assess_quality(
    crops_bgr: ImageArray, detections: Sequence[Detection], heads: HeadFit | None = None
) -> list[FaceQuality]:
    """Return the quality of N faces by their (N, 112, 112, 3) crops and the detections these were cut from.

    ``heads`` are their head fits, if the caller has them already.

    Raises:
        InputError: If the lengths or shapes do not agree.
    """
    require_crops(crops_bgr)
    if len(crops_bgr) != len(detections):
        raise InputError(f"detections: expected one per crop ({len(crops_bgr)}), got {len(detections)}")
    if len(detections) == 0:
        return []
    boxes = np.stack([detection.box_xyxy for detection in detections]).astype(np.float64)
    landmarks = np.stack([detection.landmarks_xy for detection in detections]).astype(np.float64)
    heads = fit_heads(landmarks) if heads is None else heads
    if len(heads) != len(detections):
        raise InputError(f"heads: expected one for each of {len(detections)} detections, got {len(heads)}")
    extent = boxes[:, 2:] - boxes[:, :2]
    size = _read(SIZE_CURVE, np.sqrt(extent.prod(axis=1)))
    sharpness = _read(SHARPNESS_CURVE, measure_sharpness(crops_bgr, landmarks))
    dark, bright = measure_exposure(crops_bgr)
    exposure = _read(DARK_CURVE, dark) * _read(BRIGHT_CURVE, bright)
    frontality = _read(YAW_CURVE, np.abs(heads.yaw)) * _read(PITCH_CURVE, np.abs(heads.pitch))
    plausible = _read(LANDMARKS_CURVE, measure_implausibility(boxes, landmarks, heads))
    overall = size * sharpness * exposure * frontality * plausible
    parts = np.array([overall, size, sharpness, exposure, frontality, plausible])
    return [FaceQuality(*face) for face in parts.T.tolist()]


def measure_sharpness(crops_bgr: ImageArray, landmarks_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) logarithm of fine over coarse contrast: 0 for a sharp face, negative for a blurred one.

    A small face is first brought back from the crop to its own size, as the landmarks in the image tell it,
    so that enlarging it does not count as blur. Fine contrast is the square root of the smaller eigenvalue of
    the averaged structure tensor (Foerstner and Guelch 1987) after smoothing by one pixel: motion blur, which
    spares the contours along it, lowers it as much as defocus does, and the noise of a dark image hardly
    raises it. Coarse contrast is that of blocks of a sixteenth of the crop against their surroundings, so
    that light and skin cancel out.
    """
    centred = landmarks_xy - landmarks_xy.mean(axis=1, keepdims=True)
    scales = np.sqrt((centred**2).sum(axis=(1, 2)) / 5) / _CROP_SPREAD
    sides = np.minimum(np.maximum(np.rint(CROP_SIZE * scales), _MINIMUM_SIDE), CROP_SIZE).astype(int)
    contrast = [_contrast(crop, side) for crop, side in zip(crops_bgr, sides.tolist(), strict=True)]
    expected: NDArray[np.float64] = SHARP_AT_FULL_SIZE + SHARP_BY_SIZE * np.log(sides / CROP_SIZE)
    return np.asarray(contrast, np.float64) - expected


def _contrast(crop_bgr: ImageArray, side: int) -> float:
    """Return the logarithm of fine over coarse contrast of one crop reduced to ``side`` pixels."""
    grey = cv2.cvtColor(crop_bgr, cv2.COLOR_BGR2GRAY)
    blocks = cv2.resize(grey, (_BLOCKS, _BLOCKS), interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse = (blocks - cv2.GaussianBlur(blocks, (0, 0), 2.0))[_part(_BLOCKS)].ravel()
    if side < CROP_SIZE:
        grey = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    smooth = cv2.sepFilter2D(grey, -1, _SMOOTHING, _SMOOTHING)
    across, down = (
        gradient[_part(side)].astype(np.float32).ravel() for gradient in cv2.spatialGradient(smooth)
    )
    xx, xy, yy = float(across @ across), float(across @ down), float(down @ down)
    smaller = (xx + yy) / 2 - math.hypot((xx - yy) / 2, xy)
    fine = math.sqrt(max(smaller, 0.0) / across.size) / _SOBEL
    return math.log((fine + 0.05) / (math.sqrt(float(coarse @ coarse) / coarse.size) + 0.1))


def _part(side: int) -> tuple[slice, slice]:
    """Return the rows and columns that are face in a crop of this side."""
    rows, columns = (slice(edge.start * side // CROP_SIZE, edge.stop * side // CROP_SIZE) for edge in _FACE)
    return rows, columns


def measure_exposure(crops_bgr: ImageArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (N,) shares of the face that are lost in the dark and burnt out, each in [0, 1].

    A pixel darker than ``DARK_LEVEL`` is lost in proportion, because that is how noise and coarse steps of
    grey grow against what it shows.
    """
    green = crops_bgr[:, _FACE[0], _FACE[1], 1].reshape(len(crops_bgr), -1)
    lit = np.minimum(green, DARK_LEVEL).mean(axis=1) / DARK_LEVEL
    return 1.0 - lit, (green > BRIGHT_LEVEL).mean(axis=1)


def measure_implausibility(
    boxes_xyxy: NDArray[np.float64], landmarks_xy: NDArray[np.float64], heads: HeadFit
) -> NDArray[np.float64]:
    """Return (N,) how unlike a face the geometry is: a squared Mahalanobis distance with five degrees.

    The five measures are how the box lies around the landmarks (its size and shape against their spread, and
    the offset between the centres along and across the eye line) and the residual of the rigid head, each
    against what is expected at this yaw, pitch and roll. Mean and covariance come from the detector's answers
    on 5,699 photographs and 900 rotated ones: the median of faces is 4, the 95th percentile 17.
    """
    middle = landmarks_xy.mean(axis=1)
    spread = np.sqrt(((landmarks_xy - middle[:, None]) ** 2).sum(axis=(1, 2)) / 5)
    extent = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    size = np.sqrt(extent.prod(axis=1))
    x, y = ((middle - (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2) / size[:, None]).T
    yaw, pitch, roll = np.radians(heads.yaw), np.radians(heads.pitch), np.radians(heads.roll)
    cosine, sine = np.cos(roll), np.sin(roll)
    terms = np.array([np.ones_like(yaw), yaw, pitch, yaw**2, pitch**2, sine**2, yaw * sine])
    relative_size = np.log(size / np.maximum(spread, 1e-6))
    shape = np.log(extent[:, 1] / extent[:, 0])
    along, across = cosine * x + sine * y, cosine * y - sine * x
    measured = np.array([relative_size, shape, along, across, heads.residual])
    unlike = measured - _EXPECTED_LAYOUT.T @ terms
    distance: NDArray[np.float64] = (unlike * (_LAYOUT_PRECISION @ unlike)).sum(axis=0)
    return distance


def _read(curve: Curve, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read a piecewise linear curve, constant beyond its ends."""
    read: NDArray[np.float64] = np.interp(values, *curve)
    return read

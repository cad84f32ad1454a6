"""Depth over a face: samples of the depth image where the face is, and from them where it stands in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from face_recognition_node.vision.faces import Detection, FloatArray, Intrinsics

_ELLIPSE = (0.36, 0.40)
"""Half axes of the part of the box that is looked at: the face without hair, ears and background."""
_GRID = 32
"""Samples along each axis; more say little that is new, as the noise of depth cameras is smooth."""
_LEAST_SAMPLES = 60
_LEAST_COVERAGE = 0.5
_DEEPEST_FACE_M = 0.12
"""What lies farther than this from the median is background, hair or a hand before the face."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceDepth:
    """Depth samples of one face.

    Attributes:
        x: (N,) place of each sample on the unit disc that stands for the face, to the right.
        y: (N,) the same, downwards.
        metres: (N,) depth.
        median: Of all of them, metres.
    """

    x: FloatArray
    y: FloatArray
    metres: FloatArray
    median: float


def sample_face_depth(depth_m: FloatArray, detection: Detection) -> FaceDepth | None:
    """Return the depth over a face, or None where the depth image says too little of it.

    Args:
        depth_m: (H, W) float32 depth registered to the colour image, metres; NaN where nothing is known.
        detection: The face, in pixels of that image.
    """
    places = np.linspace(-1.0, 1.0, _GRID, dtype=np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(places, places))
    on_disc = x * x + y * y <= 1.0
    x, y = x[on_disc], y[on_disc]
    columns = np.floor(detection.center_xy[0] + _ELLIPSE[0] * detection.width * x).astype(np.int64)
    rows = np.floor(detection.center_xy[1] + _ELLIPSE[1] * detection.height * y).astype(np.int64)
    # A small face has fewer pixels than samples: the same pixel twice is no second measurement.
    _, first = np.unique(rows * depth_m.shape[1] + columns, return_index=True)
    x, y, columns, rows = x[first], y[first], columns[first], rows[first]
    height, width = depth_m.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    depth = np.full(len(x), np.nan, np.float32)
    depth[inside] = depth_m[rows[inside], columns[inside]]
    enough = max(_LEAST_SAMPLES, _LEAST_COVERAGE * len(x))
    known = np.isfinite(depth) & (depth > 0)
    if known.sum() < enough:
        return None
    known &= np.abs(depth - np.median(depth[known])) <= _DEEPEST_FACE_M
    if known.sum() < enough:
        return None
    return FaceDepth(x[known], y[known], depth[known], float(np.median(depth[known])))


def locate_face(face_depth: FaceDepth, detection: Detection, intrinsics: Intrinsics) -> FloatArray:
    """Return (3,) the face's centre in the camera's optical frame, metres: x right, y down, z ahead.

    The pinhole model: x = (u - cx) z / fx. The image is taken to be rectified.
    """
    u, v = (float(value) for value in detection.center_xy)
    z = face_depth.median
    x, y = (u - intrinsics.cx) * z / intrinsics.fx, (v - intrinsics.cy) * z / intrinsics.fy
    return np.array([x, y, z], np.float32)

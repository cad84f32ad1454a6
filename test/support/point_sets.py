"""Single point sets moved by similarities, for tests of what the package does with many at once."""

from __future__ import annotations

import numpy as np

from face_recognition_node.vision.geometry import estimate_similarities


def estimate_similarity(src_xy, dst_xy):
    """Return the (2, 3) similarity that best maps (K, 2) points onto (K, 2) points."""
    return estimate_similarities(np.asarray(src_xy, np.float64)[None], dst_xy)[0]


def transform_points(matrix, points_xy):
    """Return (..., 2) points moved by a (2, 3) affine matrix."""
    affine = np.asarray(matrix, np.float64)
    return np.asarray(np.asarray(points_xy, np.float64) @ affine[:, :2].T + affine[:, 2], np.float32)

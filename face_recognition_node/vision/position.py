"""Where a face is in space, and how certain that is: from depth, or from the distance between the eyes.

A pinhole camera sees an adult's eyes, D = 63.4 mm apart with a standard deviation of 3.8 mm (Dodgson,
"Variation and extrema of human interpupillary distance", Proc. SPIE 5291, 2004), under the angle d; with the
head turned by the yaw y their distance along the optical axis is

    z = D cos(y) / d,     (s_z / z)^2 = (s_D / D)^2 + (s_d / d)^2 + (tan(y) s_y)^2 + (s_y^2 / 2)^2.

The spread of D is the same in every frame: averaging does not help, and a child of six (52 mm) is taken to be
a fifth farther away than it is. From depth, the error is that of the sensor, which grows with z^2 (Khoshelham
and Elberink, Sensors 12, 2012), and of what of the face the median hits.
"""

from __future__ import annotations

import math

import numpy as np

from face_recognition_node.vision.faces import Detection, HeadPose, Intrinsics, Position

EYES_M = 0.0634
_EYES_SPREAD = 0.0038 / EYES_M
_LANDMARK_PX, _LANDMARK_SHARE = 0.4, 0.03
"""Standard deviation of the distance between the eyes: in pixels, and as a share of itself."""
_YAW_ERROR = math.radians(7.0)
_LARGEST_YAW = math.radians(60.0)
"""Beyond it the far eye is hidden and its landmark a guess."""
_SIDEWAYS_M = 0.01
_DEPTH_M, _DEPTH_PER_M2 = 0.01, 0.0015
_LEAST_EYES_PX = 3.0


def position_from_depth(depth_m: float, detection: Detection, intrinsics: Intrinsics) -> Position:
    """Return where the middle of a face is whose depth along the optical axis was measured."""
    return _position(depth_m, _DEPTH_M + _DEPTH_PER_M2 * depth_m**2, detection, intrinsics, "depth")


def position_from_size(detection: Detection, pose: HeadPose, intrinsics: Intrinsics) -> Position | None:
    """Return where a face is that is as large as an adult's; None where its eyes are too close to tell."""
    right, left = detection.landmarks_xy[:2].astype(np.float64)
    pixels = float(np.linalg.norm(left - right))
    if pixels < _LEAST_EYES_PX:
        return None
    angle = math.hypot((left[0] - right[0]) / intrinsics.fx, (left[1] - right[1]) / intrinsics.fy)
    yaw = min(abs(math.radians(pose.yaw)), _LARGEST_YAW)
    depth = EYES_M * math.cos(yaw) / angle
    share = math.hypot(
        _EYES_SPREAD,
        _LANDMARK_PX / pixels,
        _LANDMARK_SHARE,
        math.tan(yaw) * _YAW_ERROR,
        _YAW_ERROR**2 / 2,
    )
    return _position(depth, share * depth, detection, intrinsics, "size")


def _position(
    depth: float, error: float, detection: Detection, intrinsics: Intrinsics, source: str
) -> Position:
    """Return the middle of the box at a depth, by the pinhole model of a rectified image."""
    u, v = (float(value) for value in detection.center_xy)
    ray = np.array([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, 1.0])
    covariance = error**2 * np.outer(ray, ray) + np.diag([_SIDEWAYS_M**2, _SIDEWAYS_M**2, 0.0])
    return Position((depth * ray).astype(np.float32), covariance.astype(np.float32), source)

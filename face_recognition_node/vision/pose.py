"""Where a head looks and where it is: a rigid head fitted to five landmarks, and its place in space.

**Orientation**, under scaled orthographic projection, is the rotation ``R`` and scale ``s`` that minimise
``sum_k |x_k - s P R X_k|^2`` over the five centred landmarks ``x_k`` (``P`` drops the depth). The start is
POS (DeMenthon and Davis, "Model-Based Object Pose in 25 Lines of Code", IJCV 15, 1995: least squares for ``s
P R`` as a free 2x3 matrix, then the nearest scaled rotation), followed by a few damped Gauss-Newton steps on
``(s, R)``.

``HEAD_XYZ`` was found by factorisation (Tomasi and Kanade, IJCV 9, 1992, with the rigidity imposed as above
and left-right symmetry) from the detector's landmarks on 5,699 photographs; its zero of pitch is the median
of 900 press photographs. Unit: half the distance between the eyes, x right and y down in the image, z away
from the camera; so the tip of the nose stands out by about 21 mm.

**Position** comes from depth, or from the distance between the eyes. A pinhole camera sees an adult's eyes, D
= 63.4 mm apart with a standard deviation of 3.8 mm (Dodgson, "Variation and extrema of human interpupillary
distance", Proc. SPIE 5291, 2004), under the angle d; with the head turned by the yaw y their distance along
the optical axis is

    z = D cos(y) / d,     (s_z / z)^2 = (s_D / D)^2 + (s_d / d)^2 + (tan(y) s_y)^2 + (s_y^2 / 2)^2.

The spread of D is the same in every frame: averaging does not help, and a child of six (52 mm) is taken to be
a fifth farther away than it is. From depth, the error is that of the sensor, which grows with z^2 (Khoshelham
and Elberink, Sensors 12, 2012), and of what of the face the median hits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import Detection, FloatArray, HeadPose, Intrinsics, Position

Vector = tuple[float, float, float]
Rotation = tuple[Vector, Vector, Vector]  # the rows of a rotation matrix

# (5, 3) the rigid head: right eye, left eye, nose tip, right and left mouth corner
HEAD_XYZ: NDArray[np.float64] = np.array(
    [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.048, -0.670], [-0.831, 1.937, 0.094], [0.831, 1.937, 0.094]]
)

_CENTRED = HEAD_XYZ - HEAD_XYZ.mean(axis=0)
_POINTS: list[Vector] = [(x, y, z) for x, y, z in _CENTRED.tolist()]
_INVERSE: list[list[float]] = np.linalg.pinv(_CENTRED).tolist()
(_XX, _, _), (_, _YY, _YZ), (_, _, _ZZ) = (_CENTRED.T @ _CENTRED).tolist()
_STEPS = 3
_DAMPING = 1e-3
_LONGEST_STEP = 0.5
_FLAT = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class HeadFit:
    """Rigid heads fitted to N faces."""

    yaw: NDArray[np.float64]  # (N,) degrees, sign as in :class:`HeadPose`, after the roll has been undone
    pitch: NDArray[np.float64]  # (N,) degrees, likewise
    roll: NDArray[np.float64]  # (N,) degrees of the eye line, positive clockwise in the image, in (-180, 180]
    # (N,) root mean square distance between landmarks and fitted head, in units of the landmarks' own root
    # mean square spread; about 0.03 for a face, 0.07 at the 99th percentile
    residual: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.yaw)

    def poses(self) -> list[HeadPose]:
        """Return one :class:`HeadPose` per face."""
        angles = zip(self.yaw.tolist(), self.pitch.tolist(), self.roll.tolist(), strict=True)
        return [HeadPose(*face) for face in angles]


def estimate_pose(landmarks_xy: FloatArray) -> HeadPose:
    """Return the head pose of one face by its (5, 2) landmarks.

    Yaw and pitch are relative to the head's own upright, that is, after the in-plane roll has been undone;
    for an upright head they are the angles towards the right side and the top of the image.

    >>> import numpy as np
    >>> pose = estimate_pose(np.array([[40, 50], [72, 50], [60, 67], [43, 82], [69, 82]], np.float32))
    >>> pose.yaw > 5 and abs(pose.roll) < 1   # the nose lies right of the middle
    True
    """
    return fit_heads(np.asarray(landmarks_xy)[None]).poses()[0]


def fit_heads(landmarks_xy: ArrayLike) -> HeadFit:
    """Fit the rigid head to the (N, 5, 2) landmarks of N faces, N may be 0, at once.

    Five equal points give yaw = pitch = 0, residual = 1.

    Raises:
        InputError: For another shape or numbers that are not finite.
    """
    points = np.asarray(landmarks_xy, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise InputError(f"landmarks_xy: expected shape (N, 5, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("landmarks_xy: expected finite numbers, got NaN or infinity")
    # Face by face and in plain numbers: on arrays this small NumPy takes ten times as long.
    fits = [_fit_head(face) for face in points.tolist()]
    yaw, pitch, roll, residual = np.array(fits, np.float64).reshape(-1, 4).T
    return HeadFit(yaw, pitch, roll, residual)


def _fit_head(points: list[list[float]]) -> tuple[float, float, float, float]:
    """Return yaw, pitch and roll in degrees and the residual of five (x, y)."""
    (left_x, left_y), (right_x, right_y) = points[:2]
    roll = math.atan2(right_y - left_y, right_x - left_x)
    level = _levelled(points, roll)
    if not any(x or y for x, y in level):
        return 0.0, 0.0, math.degrees(roll), 1.0
    across, down = _product(_INVERSE, [x for x, _ in level]), _product(_INVERSE, [y for _, y in level])
    rotation, scale = _nearest_rotation(across, down)
    for _ in range(_STEPS):
        rotation, scale = _improve(across, down, rotation, scale)
    first, second, third = rotation
    error = sum(
        (x - scale * _dot(first, point)) ** 2 + (y - scale * _dot(second, point)) ** 2
        for (x, y), point in zip(level, _POINTS, strict=True)
    )
    # The face looks along the head's -z axis: minus the third column of R.
    yaw = math.degrees(math.atan2(-first[2], third[2]))
    pitch = math.degrees(math.asin(min(max(second[2], -1.0), 1.0)))
    return yaw, pitch, math.degrees(roll), math.sqrt(error / 5)


def _levelled(points: list[list[float]], roll: float) -> list[tuple[float, float]]:
    """Return the points centred, the eye line horizontal, of unit root mean square spread (0 stays 0)."""
    middle_x, middle_y = sum(x for x, _ in points) / 5, sum(y for _, y in points) / 5
    centred = [(x - middle_x, y - middle_y) for x, y in points]
    spread = max(math.sqrt(sum(x * x + y * y for x, y in centred) / 5), 1e-9)
    cosine, sine = math.cos(roll) / spread, math.sin(roll) / spread
    return [(cosine * x + sine * y, cosine * y - sine * x) for x, y in centred]


def _nearest_rotation(across: Vector, down: Vector) -> tuple[Rotation, float]:
    """Return the rotation and scale nearest to ``M``, the least squares solution for ``s P R``.

    ``across`` and ``down`` are the rows of ``M``. The rotation's first two rows are ``(M M')^(-1/2) M``; of a
    2x2 matrix the square root has a closed form (Cayley-Hamilton), in which the determinant of ``M M'`` is
    the squared area between the rows.
    """
    a, b, d = _dot(across, across), _dot(across, down), _dot(down, down)
    normal = _cross(across, down)
    area = math.sqrt(_dot(normal, normal))
    total = math.sqrt(a + d + 2 * area)  # of M's two singular values
    if area > _FLAT * (a + d):
        first = _combined(d + area, across, -b, down)
        second = _combined(-b, across, a + area, down)
    else:  # points on one line: any rotation about it is as near
        u, _, v = np.linalg.svd(np.array([across, down]), full_matrices=False)
        first, second = (u @ v).tolist()
    return _rotation(first, second), total / 2


def _improve(across: Vector, down: Vector, rotation: Rotation, scale: float) -> tuple[Rotation, float]:
    """One damped Gauss-Newton step for the log of the scale and a small rotation applied from the left.

    The error to minimise is ``tr((M - s P R) G (M - s P R)')`` with the head's Gram matrix ``G``; every entry
    of the normal equations is then one of ``H = R G R'`` and every slope one of ``Q = (M / s - P R) G R'``.
    With scale and rotation about z first and last they read, damping added to the diagonal::

         p  -f   g   0
        -f   w   0  -g        p = h00 + h11,   w = h22,   f = h12,   g = h02
         g   0   w  -f
         0  -g  -f   p

    Eliminating the two in the middle leaves two equations of one unknown each.
    """
    first, second, third = rotation
    weighed = [_weighed(row) for row in rotation]
    p = _dot(first, weighed[0]) + _dot(second, weighed[1]) + _DAMPING
    w = _dot(third, weighed[2]) + _DAMPING
    f, g = _dot(second, weighed[2]), _dot(first, weighed[2])
    share = 1 / max(scale, 1e-9)
    left, below = _combined(share, across, -1.0, first), _combined(share, down, -1.0, second)
    grow = _dot(left, weighed[0]) + _dot(below, weighed[1])
    x, y = -_dot(below, weighed[2]), _dot(left, weighed[2])
    z = _dot(below, weighed[0]) - _dot(left, weighed[1])
    rest = p - (f * f + g * g) / w
    grow, z = (grow + (f * x - g * y) / w) / rest, (z + (g * x + f * y) / w) / rest
    x, y = (x + f * grow + g * z) / w, (y - g * grow + f * z) / w
    grow, x, y, z = (min(max(step, -_LONGEST_STEP), _LONGEST_STEP) for step in (grow, x, y, z))
    moved = _rotation(
        _combined(1.0, _combined(1.0, first, y, third), -z, second),
        _combined(1.0, _combined(1.0, second, z, first), -x, third),
    )
    return moved, scale * (1.0 + grow)


def _rotation(first: Vector, second: Vector) -> Rotation:
    """Return the rotation whose first two rows are nearest to these (Gram-Schmidt)."""
    first = _unit(first)
    second = _unit(_combined(1.0, second, -_dot(first, second), first))
    return first, second, _cross(first, second)


def _unit(a: Vector) -> Vector:
    length = math.sqrt(_dot(a, a))
    return a[0] / length, a[1] / length, a[2] / length


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _weighed(a: Vector) -> Vector:
    """Return ``G a``; the head is its own mirror image, so x has nothing in common with y and z."""
    return _XX * a[0], _YY * a[1] + _YZ * a[2], _YZ * a[1] + _ZZ * a[2]


def _combined(s: float, a: Vector, t: float, b: Vector) -> Vector:
    """Return ``s a + t b``."""
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


def _product(matrix: list[list[float]], vector: Sequence[float]) -> Vector:
    """Return a matrix of three rows times a vector."""
    x, y, z = (sum(map(mul, row, vector)) for row in matrix)
    return x, y, z


EYES_M = 0.0634
_EYES_SPREAD = 0.0038 / EYES_M
# standard deviation of the distance between the eyes: in pixels, and as a share of itself
_LANDMARK_PX, _LANDMARK_SHARE = 0.4, 0.03
_YAW_ERROR = math.radians(7.0)
_LARGEST_YAW = math.radians(60.0)  # beyond it the far eye is hidden and its landmark a guess
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
        _EYES_SPREAD, _LANDMARK_PX / pixels, _LANDMARK_SHARE, math.tan(yaw) * _YAW_ERROR, _YAW_ERROR**2 / 2
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

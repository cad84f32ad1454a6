"""Head orientation from five landmarks: fit one rigid head under scaled orthographic projection.

The pose is the rotation ``R`` and scale ``s`` that minimise ``sum_k |x_k - s P R X_k|^2`` over the five
centred landmarks ``x_k`` (``P`` drops the depth). The start is POS (DeMenthon and Davis, "Model-Based Object
Pose in 25 Lines of Code", IJCV 15, 1995: least squares for ``s P R`` as a free 2x3 matrix, then the nearest
scaled rotation), followed by a few damped Gauss-Newton steps on ``(s, R)``.

``HEAD_XYZ`` was found by factorisation (Tomasi and Kanade, IJCV 9, 1992, with the rigidity imposed as above
and left-right symmetry) from the detector's landmarks on 5,699 photographs; its zero of pitch is the median
of 900 press photographs. Unit: half the distance between the eyes, x right and y down in the image, z away
from the camera; so the tip of the nose stands out by about 21 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.core.errors import InputError
from face_recognition_node.core.faces import FloatArray, HeadPose

HEAD_XYZ: NDArray[np.float64] = np.array(
    [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.048, -0.670], [-0.831, 1.937, 0.094], [0.831, 1.937, 0.094]]
)
"""(5, 3) the rigid head: right eye, left eye, nose tip, right and left mouth corner."""

_CENTRED = HEAD_XYZ - HEAD_XYZ.mean(axis=0)
_INVERSE = np.linalg.pinv(_CENTRED).T
_GRAM = _CENTRED.T @ _CENTRED
_NEXT, _AFTER = [1, 2, 0], [2, 0, 1]
_STEPS = 3
_DAMPING = 1e-3 * np.eye(4)
_ENTRY = np.array([[0, 1, 2, 0], [1, 3, 0, 2], [2, 0, 3, 1], [0, 2, 1, 0]])
_SIGN = np.array([[1, -1, 1, 0], [-1, 1, 0, -1], [1, 0, 1, -1], [0, -1, -1, 1]], np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class HeadFit:
    """Rigid heads fitted to N faces.

    Attributes:
        yaw: (N,) degrees, sign as in :class:`HeadPose`, after the roll has been undone.
        pitch: (N,) degrees, likewise.
        roll: (N,) degrees of the eye line, positive clockwise in the image, in (-180, 180].
        residual: (N,) root mean square distance between landmarks and fitted head, in units of the
            landmarks' own root mean square spread; about 0.03 for a face, 0.07 at the 99th percentile.
    """

    yaw: NDArray[np.float64]
    pitch: NDArray[np.float64]
    roll: NDArray[np.float64]
    residual: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.yaw)

    def poses(self) -> list[HeadPose]:
        """Return one :class:`HeadPose` per face."""
        angles = zip(self.yaw.tolist(), self.pitch.tolist(), self.roll.tolist(), strict=True)
        return [HeadPose(*face) for face in angles]


def estimate_pose(landmarks_xy: FloatArray) -> HeadPose:
    """Return the head pose of one face.

    Yaw and pitch are relative to the head's own upright, that is, after the in-plane roll has been undone;
    for an upright head they are the angles towards the right side and the top of the image.

    Args:
        landmarks_xy: (5, 2) pixels, in the order of :class:`~face_recognition_node.core.faces.Detection`.

    Raises:
        InputError: For another shape or numbers that are not finite.

    >>> import numpy as np
    >>> pose = estimate_pose(np.array([[40, 50], [72, 50], [60, 67], [43, 82], [69, 82]], np.float32))
    >>> pose.yaw > 5 and abs(pose.roll) < 1   # the nose lies right of the middle
    True
    """
    return fit_heads(np.asarray(landmarks_xy)[None]).poses()[0]


def fit_heads(landmarks_xy: ArrayLike) -> HeadFit:
    """Fit the rigid head to N faces at once.

    Args:
        landmarks_xy: (N, 5, 2) pixels; N may be 0. Five equal points give yaw = pitch = 0, residual = 1.

    Raises:
        InputError: For another shape or numbers that are not finite.
    """
    points = np.asarray(landmarks_xy, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise InputError(f"landmarks_xy: expected shape (N, 5, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("landmarks_xy: expected finite numbers, got NaN or infinity")
    if len(points) == 0:
        empty = np.zeros(0)
        return HeadFit(empty, empty, empty, empty)
    eye_line = points[:, 1] - points[:, 0]
    roll = np.arctan2(eye_line[:, 1], eye_line[:, 0])
    level = _levelled(points, roll)
    free = np.swapaxes(level, 1, 2) @ _INVERSE
    u, singular, v = np.linalg.svd(free, full_matrices=False)
    start = u @ v
    rotation, scale = _rotation(start[:, 0], start[:, 1]), singular.mean(axis=1)
    for _ in range(_STEPS):
        rotation, scale = _improve(free, rotation, scale)
    error = level - scale[:, None, None] * (_CENTRED @ np.swapaxes(rotation[:, :2], 1, 2))
    residual = np.sqrt((error**2).sum(axis=(1, 2)) / 5)
    degenerate = (level == 0).all(axis=(1, 2))
    rotation[degenerate], residual[degenerate] = np.eye(3), 1.0
    # The face looks along the head's -z axis: minus the third column of R.
    sideways, down, ahead = -rotation[:, 0, 2], -rotation[:, 1, 2], rotation[:, 2, 2]
    yaw = np.degrees(np.arctan2(sideways, ahead))
    pitch = np.degrees(np.arcsin(np.clip(-down, -1.0, 1.0)))
    return HeadFit(yaw, pitch, np.degrees(roll), residual)


def _levelled(points: NDArray[np.float64], roll: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points centred, the eye line horizontal, of unit root mean square spread (0 stays 0)."""
    centred = points - points.mean(axis=1, keepdims=True)
    cosine, sine = np.cos(roll), np.sin(roll)
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    spread = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True) / 5)
    level: NDArray[np.float64] = (centred / np.maximum(spread, 1e-9)) @ turn
    return level


def _improve(
    free: NDArray[np.float64], rotation: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One damped Gauss-Newton step for the log of the scale and a small rotation applied from the left.

    ``free`` is the least squares solution ``M`` for ``s P R``, so that the error to minimise is
    ``tr((M - s P R) G (M - s P R)')`` with the head's Gram matrix ``G``; every entry of the (4, 4) normal
    equations is then one of ``H = R G R'`` and every slope one of ``Q = (M / s - P R) G R'``.
    """
    transposed = np.swapaxes(rotation, 1, 2)
    h = rotation @ _GRAM @ transposed
    q = (free / np.maximum(scale, 1e-9)[:, None, None] - rotation[:, :2]) @ _GRAM @ transposed
    entries = np.stack([h[:, 0, 0] + h[:, 1, 1], h[:, 1, 2], h[:, 0, 2], h[:, 2, 2]], axis=1)
    slope = np.stack([q[:, 0, 0] + q[:, 1, 1], -q[:, 1, 2], q[:, 0, 2], q[:, 1, 0] - q[:, 0, 1]], axis=1)
    step = np.linalg.solve(entries[:, _ENTRY] * _SIGN + _DAMPING, slope[..., None])
    step = np.minimum(np.maximum(step, -0.5), 0.5)
    x, y, z = step[:, 1], step[:, 2], step[:, 3]
    first, second, third = rotation[:, 0], rotation[:, 1], rotation[:, 2]
    moved = _rotation(first + y * third - z * second, second + z * first - x * third)
    return moved, scale * (1.0 + step[:, 0, 0])


def _rotation(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, 3, 3) rotations whose first two rows are nearest to these (Gram-Schmidt)."""
    first = first / np.sqrt((first * first).sum(axis=1, keepdims=True))
    second = second - (first * second).sum(axis=1, keepdims=True) * first
    second = second / np.sqrt((second * second).sum(axis=1, keepdims=True))
    third = first[:, _NEXT] * second[:, _AFTER] - first[:, _AFTER] * second[:, _NEXT]
    return np.stack([first, second, third], axis=1)

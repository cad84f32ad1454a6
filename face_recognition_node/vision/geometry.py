"""Boxes and similarity transforms, as pure functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import Detection, FloatArray


def as_rows(name: str, value: ArrayLike, row_shape: tuple[int, ...]) -> FloatArray:
    """Return ``value`` as float32 of shape (N, *row_shape), N ≥ 0, or raise InputError naming it.

    An empty list counts as no rows, whatever its row shape.
    """
    array = np.asarray(value, dtype=np.float32)
    if array.size == 0 and array.ndim <= 1:
        return np.zeros((0, *row_shape), np.float32)
    if array.shape[1:] != row_shape:
        expected = ", ".join(["N", *(str(length) for length in row_shape)])
        raise InputError(f"{name}: expected shape ({expected}), got {array.shape}")
    return array


def box_areas(boxes_xyxy: ArrayLike) -> FloatArray:
    """Return the (N,) areas in square pixels of (N, 4) boxes; a box turned inside out has area 0."""
    boxes = as_rows("boxes_xyxy", boxes_xyxy, (4,))
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def intersection_matrix(boxes_a: ArrayLike, boxes_b: ArrayLike) -> FloatArray:
    """Return the (N, M) areas that each of (N, 4) boxes shares with each of (M, 4) boxes, square pixels."""
    a, b = as_rows("boxes_a", boxes_a, (4,)), as_rows("boxes_b", boxes_b, (4,))
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(right_bottom - left_top, 0)
    return np.asarray(sides[..., 0] * sides[..., 1], dtype=np.float32)


def iou_matrix(boxes_a: ArrayLike, boxes_b: ArrayLike) -> FloatArray:
    """Return the (N, M) intersection over union of (N, 4) and (M, 4) boxes, each in [0, 1].

    Two boxes without area have an intersection over union of 0, also when they coincide.
    """
    shared = intersection_matrix(boxes_a, boxes_b)
    union = box_areas(boxes_a)[:, None] + box_areas(boxes_b)[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), dtype=np.float32)


def covered_share(detection: Detection, other: Detection) -> float:
    """Return the share in [0, 1] of the first box that the other box covers."""
    x1, y1, x2, y2 = detection.box_xyxy.tolist()
    u1, v1, u2, v2 = other.box_xyxy.tolist()
    width, height = max(0.0, min(x2, u2) - max(x1, u1)), max(0.0, min(y2, v2) - max(y1, v1))
    return float(width * height) / (detection.width * detection.height)


def overlap(first: Detection, second: Detection) -> float:
    """Return the intersection over union of two boxes, in [0, 1]."""
    shared = covered_share(first, second) * first.width * first.height
    return shared / (first.width * first.height + second.width * second.height - shared)


def suppress_overlaps(boxes_xyxy: ArrayLike, scores: ArrayLike, iou_threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: return the indices of the kept of (N, 4) boxes, best score first.

    A box that overlaps a better kept one by more than the threshold is dropped; of equal scores the earlier
    row wins.
    """
    boxes = as_rows("boxes_xyxy", boxes_xyxy, (4,))
    values = np.asarray(scores, dtype=np.float32)
    if values.shape != (len(boxes),):
        raise InputError(f"scores: expected shape ({len(boxes)},), got {values.shape}")
    order = np.argsort(-values, kind="stable")
    overlaps = iou_matrix(boxes[order], boxes[order]) > iou_threshold
    alive = np.ones(len(order), bool)
    kept = []
    for rank in range(len(order)):
        if alive[rank]:
            kept.append(order[rank])
            alive &= ~overlaps[rank]
    return np.asarray(kept, dtype=np.intp)


def estimate_similarities(src_xy: ArrayLike, dst_xy: ArrayLike) -> NDArray[np.float64]:
    """Return the (N, 2, 3) similarities that best map (N, K, 2) point sets onto (K, 2), in least squares.

    With points as complex numbers a similarity without reflection is ``q = a p + b``; the least-squares
    ``a`` is ``Σ conj(p) q / Σ |p|²`` over centred points. Equals Umeyama (1991), eq. 34–43, for two
    dimensions where the rotation is proper. The matrices are ``[[c, -s, tx], [s, c, ty]]``.

    Raises:
        InputError: If the points of a set are (almost) all in one place, or not finite.
    """
    src, dst = np.asarray(src_xy, np.float64), np.asarray(dst_xy, np.float64)
    p, q = src[..., 0] + 1j * src[..., 1], dst[:, 0] + 1j * dst[:, 1]
    p_mean, q_mean = p.mean(axis=1, keepdims=True), q.mean()
    p_centred = p - p_mean
    spread = (np.abs(p_centred) ** 2).sum(axis=1)
    if not np.isfinite(spread).all():
        raise InputError("src_xy: expected finite numbers, got NaN or infinity")
    if (spread <= 1e-6).any():
        raise InputError("src_xy: expected points that differ, got a set that lies all in one place")
    a = (p_centred.conj() * (q - q_mean)).sum(axis=1) / spread
    b = q_mean - a * p_mean[:, 0]
    rows = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return np.ascontiguousarray(np.moveaxis(rows, 2, 0))

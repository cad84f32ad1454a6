"""Boxes, non-maximum suppression, similarity estimation: against slow loops and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from point_sets import estimate_similarity, transform_points

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.geometry import (
    box_areas,
    estimate_similarities,
    iou_matrix,
    suppress_overlaps,
)


def slow_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union


def random_boxes(rng, count: int) -> np.ndarray:
    corners = rng.uniform(0, 80, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(1, 60, (count, 2))], axis=1).astype(np.float32)


def test_iou_equals_a_slow_loop(rng):
    first, second = random_boxes(rng, 13), random_boxes(rng, 9)
    expected = [[slow_iou(a, b) for b in second.astype(float)] for a in first.astype(float)]
    np.testing.assert_allclose(iou_matrix(first, second), expected, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_iou_of_no_boxes(rng, n, m):
    assert iou_matrix(random_boxes(rng, n), random_boxes(rng, m)).shape == (n, m)
    assert iou_matrix([], random_boxes(rng, m)).shape == (0, m)


def test_boxes_without_area_overlap_nothing():
    empty = [[5, 5, 5, 9]]
    assert iou_matrix(empty, empty)[0, 0] == 0
    assert box_areas([[9, 9, 1, 1]])[0] == 0


def test_boxes_of_another_shape_are_named():
    with pytest.raises(InputError, match=r"boxes_a: expected shape \(N, 4\), got \(2, 5\)"):
        iou_matrix(np.zeros((2, 5)), np.zeros((1, 4)))


def slow_suppression(boxes, scores, threshold) -> list[int]:
    left = sorted(range(len(boxes)), key=lambda n: -scores[n])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [n for n in left if slow_iou(boxes[best], boxes[n]) <= threshold]
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.8])
def test_suppression_equals_a_slow_loop(rng, threshold):
    boxes, scores = random_boxes(rng, 60), rng.random(60)
    found = suppress_overlaps(boxes, scores, threshold).tolist()
    assert found == slow_suppression(boxes.astype(float), scores.astype(np.float32), threshold)


def test_suppression_of_nothing_and_of_equal_scores():
    assert suppress_overlaps([], [], 0.4).shape == (0,)
    same = [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]]
    assert suppress_overlaps(same, [0.5, 0.5, 0.5], 0.4).tolist() == [0, 2]


def test_suppression_wants_a_score_for_each_box():
    with pytest.raises(InputError, match=r"scores: expected shape \(2,\), got \(3,\)"):
        suppress_overlaps([[0, 0, 1, 1], [0, 0, 2, 2]], [0.1, 0.2, 0.3], 0.4)


def umeyama(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Umeyama (1991) by singular values: an independent way to the same similarity."""
    src_mean, dst_mean = src.mean(0), dst.mean(0)
    covariance = (dst - dst_mean).T @ (src - src_mean) / len(src)
    u, s, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (s * signs).sum() / ((src - src_mean) ** 2).sum(1).mean()
    return np.column_stack([scale * rotation, dst_mean - scale * rotation @ src_mean])


def test_similarity_equals_umeyama(rng):
    template = rng.uniform(0, 112, (5, 2))
    for _ in range(20):
        angle, scale = rng.uniform(-1, 1), rng.uniform(0.2, 5)
        rotation = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        src = template @ rotation.T + rng.uniform(-500, 500, 2) + rng.normal(0, 2, (5, 2))
        np.testing.assert_allclose(estimate_similarity(src, template), umeyama(src, template), atol=1e-6)


@given(st.floats(-math.pi, math.pi), st.floats(0.05, 20), st.floats(-2000, 2000), st.floats(-2000, 2000))
def test_similarity_recovers_any_rotation_scale_and_shift(angle, scale, x, y):
    points = np.array([[0, 0], [40, 2], [18, 25], [5, 44], [36, 41]], float)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    matrix = np.array([[cosine, -sine, x], [sine, cosine, y]])
    moved = transform_points(matrix, points).astype(float)
    back = estimate_similarity(moved, points)
    np.testing.assert_allclose(transform_points(back, moved), points, atol=0.05)
    assert back[0, 0] == back[1, 1]
    assert back[0, 1] == -back[1, 0]


def test_many_similarities_are_those_of_one_by_one(rng):
    sets, template = rng.uniform(0, 300, (7, 5, 2)), rng.uniform(0, 112, (5, 2))
    together = estimate_similarities(sets, template)
    assert together.shape == (7, 2, 3)
    np.testing.assert_allclose(together, [estimate_similarity(each, template) for each in sets])
    assert estimate_similarities(np.zeros((0, 5, 2)), template).shape == (0, 2, 3)


def test_similarity_refuses_points_in_one_place_and_nan():
    template = np.arange(10.0).reshape(5, 2)
    with pytest.raises(InputError, match="all in one place"):
        estimate_similarity(np.full((5, 2), 7.0), template)
    broken = template.copy()
    broken[2, 1] = np.nan
    with pytest.raises(InputError, match="finite"):
        estimate_similarity(broken, template)

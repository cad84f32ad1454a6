"""Decoding: only proposals are decoded, and to the same numbers as the textbook's anchors one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from face_recognition_node.common.errors import ModelError
from face_recognition_node.vision.retinaface_decoding import (
    Proposals,
    decode_cells,
    least_logit,
    select_cells,
)

SIZES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}


def random_maps(rng, height: int = 96, width: int = 128) -> list[np.ndarray]:
    maps = [rng.normal(0, 1, (30, height // s, width // s)).astype(np.float32) for s in SIZES]
    for level in maps:
        level[:2] -= 1.5
    return maps


def slow_decode(maps, threshold):
    """Decode every anchor in nested loops, after the formulas of SSD and RetinaFace."""
    found = []
    for (stride, sides), level in zip(SIZES.items(), maps, strict=True):
        _, height, width = level.shape
        for row in range(height):
            for column in range(width):
                for anchor, side in enumerate(sides):
                    score = 1 / (1 + math.exp(-float(level[anchor, row, column])))
                    if score < threshold:
                        continue
                    cx, cy = (column + 0.5) * stride, (row + 0.5) * stride
                    dx, dy, dw, dh = level[2 + 4 * anchor : 6 + 4 * anchor, row, column].tolist()
                    x, y = cx + 0.1 * side * dx, cy + 0.1 * side * dy
                    w, h = side * math.exp(0.2 * dw), side * math.exp(0.2 * dh)
                    points = level[10 + 10 * anchor : 20 + 10 * anchor, row, column].reshape(5, 2)
                    landmarks = [(cx + 0.1 * side * px, cy + 0.1 * side * py) for px, py in points.tolist()]
                    found.append((score, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), landmarks))
    return sorted(found, key=lambda item: -item[0])


def decode_maps(maps, threshold) -> Proposals:
    return decode_cells(select_cells(maps, least_logit(threshold)))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_decoding_equals_a_slow_loop(rng, threshold):
    maps = random_maps(rng)
    expected = slow_decode(maps, threshold)
    found = decode_maps(maps, threshold)
    order = np.argsort(-found.scores, kind="stable")
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found.scores[order], [item[0] for item in expected], rtol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy[order], [item[1] for item in expected], atol=1e-3)
    np.testing.assert_allclose(found.landmarks_xy[order], [item[2] for item in expected], atol=1e-3)


def test_no_candidates_have_empty_arrays():
    maps = [np.full((30, 96 // s, 128 // s), -9, np.float32) for s in SIZES]
    found = decode_maps(maps, 0.5)
    assert (found.boxes_xyxy.shape, found.scores.shape, found.landmarks_xy.shape) == ((0, 4), (0,), (0, 5, 2))


def test_absurd_sizes_stay_finite():
    maps = [np.full((30, 4, 4), 1e4, np.float32) for _ in SIZES]
    with np.errstate(over="ignore"):
        assert np.isfinite(decode_maps(maps, 0.5).boxes_xyxy).all()


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_maps_is_refused(count):
    with pytest.raises(ModelError, match="expected 3"):
        decode_maps([np.zeros((30, 4, 4), np.float32)] * count, 0.5)


def test_another_number_of_channels_is_refused():
    maps = [np.zeros((c, 4, 4), np.float32) for c in (30, 32, 30)]
    with pytest.raises(ModelError, match=r"stride 16: expected shape \(30, h, w\), got \(32, 4, 4\)"):
        decode_maps(maps, 0.5)


def test_candidates_are_mapped_filtered_and_joined(rng):
    found = decode_maps(random_maps(rng), 0.5)
    mapped = found.mapped(2.5, 32, 10)
    np.testing.assert_allclose(mapped.boxes_xyxy, (found.boxes_xyxy - [32, 10, 32, 10]) * 2.5, atol=1e-3)
    np.testing.assert_allclose(mapped.landmarks_xy, (found.landmarks_xy - [32, 10]) * 2.5, atol=1e-3)
    heights = found.boxes_xyxy[:, 3] - found.boxes_xyxy[:, 1]
    low, high = found.of_heights(0, 100), found.of_heights(100, math.inf)
    assert len(low) == (heights <= 100).sum() > 0
    assert len(high) == (heights >= 100).sum() > 0
    both = Proposals.joined([low, high])
    assert sorted(both.scores.tolist()) == sorted(found.scores.tolist())

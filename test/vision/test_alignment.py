"""The aligned crop: landmarks land on the template, large faces are averaged, borders are black."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from point_sets import estimate_similarity

from face_recognition_node.common.errors import FrameError, InputError
from face_recognition_node.vision.alignment import (
    ALIGNMENT_FINGERPRINT,
    ALIGNMENT_TEMPLATE,
    align_faces,
    require_crops,
)


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Return a picture whose colour tells the place: blue grows with x, green with y."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 250 / width, y * 250 / height, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def test_template_is_the_published_one():
    published = [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
    np.testing.assert_allclose(ALIGNMENT_TEMPLATE, published, atol=1e-4)
    assert ALIGNMENT_FINGERPRINT == "similarity112-8eb3d681a098"


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.9])
def test_crop_equals_a_slow_loop(scale):
    picture = smooth_picture(300, 320)
    angle = 0.3
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ALIGNMENT_TEMPLATE @ rotation.T + [70, 40]
    crop = align_faces(picture, landmarks[None])[0].astype(int)
    worst = 0
    for row in range(0, 112, 9):
        for column in range(0, 112, 9):
            x, y = rotation @ [column, row] + [70, 40]
            if 1 <= x <= 318 and 1 <= y <= 298:
                expected = [x * 250 / 320, y * 250 / 300, 90]
                worst = max(worst, np.abs(crop[row, column] - expected).max())
    assert worst <= 2


@pytest.mark.parametrize("scale", [2.1, 3.0, 5.5, 9.7])
def test_large_faces_keep_their_geometry(scale):
    picture = smooth_picture(1200, 1300)
    landmarks = ALIGNMENT_TEMPLATE * scale + [31, 57]
    crop = align_faces(picture, landmarks[None])[0].astype(float)
    rows, columns = np.mgrid[4:108, 4:108]
    expected = np.stack([(columns * scale + 31) * 250 / 1300, (rows * scale + 57) * 250 / 1200], axis=-1)
    assert np.abs(crop[4:108, 4:108, :2] - expected).max() <= 2


def test_large_faces_are_averaged_not_sampled(rng):
    picture = rng.integers(0, 256, (900, 900, 3), dtype=np.uint8)
    landmarks = ALIGNMENT_TEMPLATE * 7 + 50
    averaged = align_faces(picture, landmarks[None])[0]
    matrix = estimate_similarity(landmarks, ALIGNMENT_TEMPLATE)
    sampled = cv2.warpAffine(picture, matrix, (112, 112))
    assert averaged.std() < 0.3 * sampled.std()
    assert abs(averaged.mean() - 127.5) < 2


def test_outside_the_image_is_black():
    picture = np.full((100, 100, 3), 200, np.uint8)
    crop = align_faces(picture, (ALIGNMENT_TEMPLATE - 60)[None])[0]
    assert (crop[:40, :40] == 0).all()
    assert (crop[80:, 80:] == 200).all()


def test_a_face_wholly_outside_is_a_black_crop():
    picture = np.full((50, 60, 3), 200, np.uint8)
    for scale in (1, 8):
        assert (align_faces(picture, (ALIGNMENT_TEMPLATE * scale + 5000)[None]) == 0).all()


def test_no_faces():
    picture = np.zeros((10, 10, 3), np.uint8)
    assert align_faces(picture, []).shape == (0, 112, 112, 3)
    assert align_faces(picture, np.zeros((0, 5, 2))).dtype == np.uint8


def test_several_faces_are_those_of_one_by_one(rng):
    picture = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    landmarks = np.stack([ALIGNMENT_TEMPLATE * s + o for s, o in ((0.4, 9), (1.0, 60), (2.6, 0))])
    together = align_faces(picture, landmarks)
    for crop, points in zip(together, landmarks, strict=True):
        assert (crop == align_faces(picture, points[None])[0]).all()


def test_a_view_of_a_larger_picture_and_read_only_memory(rng):
    large = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    large.setflags(write=False)
    part = large[20:180, 50:250]
    expected = align_faces(np.ascontiguousarray(part), (ALIGNMENT_TEMPLATE + 20)[None])
    assert (align_faces(part, (ALIGNMENT_TEMPLATE + 20)[None]) == expected).all()


def test_bad_input_is_named():
    picture = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(InputError, match="landmarks_xy: expected shape"):
        align_faces(picture, np.zeros((5, 2)))
    with pytest.raises(InputError, match="all in one place"):
        align_faces(picture, np.zeros((1, 5, 2)))
    with pytest.raises(FrameError, match="BGR"):
        align_faces(picture[..., 0], ALIGNMENT_TEMPLATE[None])
    with pytest.raises(InputError, match=r"expected uint8 \(N, 112, 112, 3\)"):
        require_crops(np.zeros((1, 64, 64, 3), np.uint8))


@given(st.floats(-50, 400), st.floats(-50, 400), st.floats(0.02, 30), st.floats(-3.1, 3.1))
def test_any_face_gives_a_crop(x, y, scale, angle):
    picture = smooth_picture(120, 160)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    crops = align_faces(picture, (ALIGNMENT_TEMPLATE @ rotation.T + [x, y])[None])
    assert crops.shape == (1, 112, 112, 3)

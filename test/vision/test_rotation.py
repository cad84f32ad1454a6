"""Turned cameras: pictures, points and whole answers there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import (
    Detection,
    FaceQuality,
    FaceView,
    HeadPose,
    IdentifiedFace,
    Identity,
    RecognitionResult,
)
from face_recognition_node.vision.rotation import rotate_box, rotate_image, rotate_points, to_original

TURNS = [0, 90, 180, 270]


@pytest.mark.parametrize("degrees", TURNS)
@given(width=st.integers(1, 8), height=st.integers(1, 8), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_point_follows_its_pixel(degrees: int, width: int, height: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = 255
    turned = rotate_image(image, degrees)
    point = rotate_points(np.array([x + 0.5, y + 0.5], np.float32), degrees, (width, height))
    found_y, found_x = np.argwhere(turned[:, :, 0] == 255)[0]
    assert point.tolist() == [found_x + 0.5, found_y + 0.5]


@pytest.mark.parametrize("degrees", TURNS)
def test_an_answer_comes_back_to_the_original(degrees: int) -> None:
    original_box = np.array([10, 20, 60, 90], np.float32)
    marks = np.array([[20, 30], [50, 32], [35, 50], [22, 70], [48, 71]], np.float32)
    size = (200, 100)
    box, landmarks = rotate_box(original_box, degrees, size), rotate_points(marks, degrees, size)
    view = FaceView(
        Detection(box, 0.9, landmarks), 1.0, FaceQuality(1, 1, 1, 1, 1, 1), HeadPose(1.0, 2.0, 3.0)
    )
    turned_size = size if degrees in (0, 180) else size[::-1]
    result = RecognitionResult(1.0, "camera", turned_size, (IdentifiedFace(4, view, Identity()),), 7)
    back = to_original(result, degrees)
    assert back.image_size == size
    np.testing.assert_allclose(back.faces[0].view.detection.box_xyxy, original_box)
    np.testing.assert_allclose(back.faces[0].view.detection.landmarks_xy, marks)
    assert (back.faces[0].track_id, back.faces[0].view.pose, back.gallery_version) == (4, view.pose, 7)


def test_an_empty_answer_comes_back() -> None:
    assert to_original(RecognitionResult(1.0, "", (3, 4), (), 0), 90).image_size == (4, 3)


def test_other_angles_are_refused() -> None:
    with pytest.raises(InputError, match="0, 90, 180 or 270"):
        rotate_image(np.zeros((2, 2, 3), np.uint8), 45)

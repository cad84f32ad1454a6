"""The sample video: the same on every machine, moving smoothly, and honest about where its faces are."""

from __future__ import annotations

import numpy as np
import pytest
from sample_truth import true_faces

from face_recognition_node.backends import load_detector
from face_recognition_node.common.errors import InputError
from face_recognition_node.config import Config
from face_recognition_node.media.sample import (
    DURATION_S,
    FACE_BOXES,
    camera_matrix,
    portrait,
    render,
    sample_frame,
)
from face_recognition_node.media.sources import open_source, sample_source
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.geometry import iou_matrix


def who_at(time: float) -> list[str]:
    return [seen.who for seen in true_faces(time)]


def test_a_frame_depends_on_its_time_alone() -> None:
    first = render(3.0)
    render(7.0)
    assert np.array_equal(render(3.0), first)
    assert not np.array_equal(render(3.1), first)
    assert (first.shape, first.dtype) == ((480, 640, 3), np.uint8)


def test_the_story_is_told() -> None:
    assert {tuple(who_at(time)) for time in np.arange(0, 4.5, 0.1)} == {("guest",)}
    assert {tuple(sorted(who_at(time))) for time in np.arange(5.6, 7.0, 0.1)} == {("guest", "stranger")}
    assert {tuple(who_at(time)) for time in np.arange(7.9, 9.2, 0.1)} == {("stranger",)}
    assert sorted(who_at(10.4)) == ["guest", "stranger"]
    assert who_at(11.9) == ["guest"]


def test_faces_have_the_size_that_robots_meet() -> None:
    heights = [
        float(seen.box_xyxy[3] - seen.box_xyxy[1])
        for time in np.arange(0, DURATION_S, 0.1)
        for seen in true_faces(time)
    ]
    assert min(heights) > 60
    assert max(heights) < 140


def test_the_camera_moves_smoothly() -> None:
    center = np.array([900.0, 400.0, 1.0])
    places = []
    for time in np.arange(0, DURATION_S, 1 / 30):
        x, y, w = camera_matrix(time) @ center
        places.append((x / w, y / w))
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() < 25
    assert np.linalg.norm(np.diff(places, 2, axis=0), axis=1).max() < 3


def test_true_boxes_hold_the_faces_pixels() -> None:
    """The colours inside a true box are those of the portrait's face, up to light and noise."""
    for time in (0.0, 2.2, 6.4, 8.6, 10.8):
        frame = render(time)
        for seen in true_faces(time):
            x1, y1, x2, y2 = seen.box_xyxy.astype(int)
            shown = frame[max(y1, 0) : y2, max(x1, 0) : x2].reshape(-1, 3).mean(axis=0)
            a1, b1, a2, b2 = (int(value) for value in FACE_BOXES[seen.who])
            true = portrait(seen.who)[b1:b2, a1:a2].reshape(-1, 3).mean(axis=0)
            if x1 >= 0 and x2 <= 640:
                assert np.corrcoef(shown, true)[0, 1] > 0.98


def test_source_has_its_rate_length_and_size() -> None:
    source = sample_source(rate=2, size=(320, 240))
    frames = list(source)
    assert source.n_frames == len(frames) == 24
    assert frames[1].stamp == 0.5
    assert frames[0].image_bgr.shape == (240, 320, 3)
    opened = open_source("sample")
    assert (opened.rate_hz, opened.n_frames, opened.name) == (30.0, 360, "sample")


@pytest.mark.parametrize("faces", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
def test_stills_have_any_size_and_number_of_faces(faces: int, size: tuple[int, int]) -> None:
    still = sample_frame(size, faces)
    assert still.shape == (size[1], size[0], 3)
    assert np.array_equal(still, sample_frame(size, faces))


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(InputError, match="who"):
        portrait("nobody")
    with pytest.raises(InputError, match="faces"):
        sample_frame(faces=13)
    with pytest.raises(InputError, match="size"):
        render(0.0, (4, 4))


@pytest.fixture(scope="module")
def detector() -> Detector:
    config = Config()
    return load_detector(config.models, config.detector)


@pytest.mark.parametrize(
    ("faces", "size"), [(0, (640, 480)), (2, (640, 480)), (5, (1280, 720)), (12, (1280, 720))]
)
def test_the_real_detector_finds_as_many_faces_as_hang_there(
    detector: Detector, faces: int, size: tuple[int, int]
) -> None:
    assert len(detector.detect(sample_frame(size, faces))) == faces


@pytest.mark.slow
def test_the_real_detector_finds_the_true_boxes(detector: Detector) -> None:
    for time in np.arange(0, DURATION_S, 0.5):
        found = detector.detect(render(time))
        boxes = np.array([one.box_xyxy for one in found], np.float32).reshape(-1, 4)
        for seen in true_faces(time):
            assert iou_matrix(seen.box_xyxy[None], boxes).max(initial=0) > 0.5, f"{seen.who} at {time:.1f} s"


def test_images_that_may_not_be_written_are_taken(detector: Detector) -> None:
    """Messages arrive in read-only memory; crops and mirror images are not contiguous."""
    image = sample_frame((640, 480), 2)
    expected = detector.detect(image)
    locked = image.copy()
    locked.flags.writeable = False
    assert len(detector.detect(locked)) == len(expected) == 2
    padded = np.zeros((480, 700, 3), np.uint8)
    padded[:, 30:670] = image
    assert np.allclose(detector.detect(padded[:, 30:670])[0].box_xyxy, expected[0].box_xyxy, atol=0.01)

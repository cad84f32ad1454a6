"""Faces followed between searches: the flow, when it gives up, the schedule, identity carried along."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from face_recognition_node.common.stages import StageClock
from face_recognition_node.vision.faces import Detection
from face_recognition_node.vision.following import FaceFinder, follow_face, remember_face

SIZE = (480, 270)


def face_at(x: float, y: float, side: float, turn: float = 0.0) -> Detection:
    """Return a face with its middle at (x, y), turned by degrees."""
    marks = np.array([[-0.2, -0.15], [0.2, -0.15], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]])
    a = math.radians(turn)
    marks = marks @ np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    half = side / 2
    return Detection(np.array([x - half, y - half, x + half, y + half]), 0.9, np.array([x, y]) + side * marks)


@pytest.fixture(scope="module")
def portrait(guest_bgr) -> np.ndarray:
    """Return a real face of 96 x 96 pixels; flow on noise alone would be too easy or too hard."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.config import DetectorConfig, ModelsConfig

    face = load_detector(ModelsConfig(), DetectorConfig()).detect(guest_bgr)[0]
    x, y = (float(value) for value in face.center_xy)
    side = round(1.3 * face.size_px)
    cut = cv2.getRectSubPix(guest_bgr, (side, side), (x, y))
    return cv2.resize(cut, (96, 96), interpolation=cv2.INTER_AREA)


def picture(portrait: np.ndarray, face: Detection, turn: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return a picture in which the portrait fills 1.3 times the face's box."""
    rng = np.random.default_rng(seed)
    image = np.full((SIZE[1], SIZE[0], 3), 120.0)
    scale = 1.3 * face.size_px / 96
    matrix = cv2.getRotationMatrix2D((48, 48), -turn, scale)
    matrix[:, 2] += face.center_xy - 48
    image = image.astype(np.uint8)
    cv2.warpAffine(portrait, matrix, SIZE, dst=image, borderMode=cv2.BORDER_TRANSPARENT)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "side", "turn"),
    [
        (206, 137, 80, 0),
        (170, 120, 80, 0),
        (200, 135, 88, 0),
        (200, 135, 74, 0),
        (204, 133, 80, 8),
        (230, 150, 84, -5),
    ],
)
def test_a_face_that_moves_grows_and_turns_is_followed(portrait, x, y, side, turn):
    before, after = face_at(200, 135, 80), face_at(x, y, side, turn)
    patch = remember_face(picture(portrait, before), before)
    found = follow_face(patch, picture(portrait, after, turn, seed=1))
    assert found is not None
    assert found.score == before.score
    np.testing.assert_allclose(found.landmarks_xy, after.landmarks_xy, atol=0.03 * side)
    np.testing.assert_allclose(found.box_xyxy, after.box_xyxy, atol=0.05 * side)


@pytest.mark.parametrize("side", [16, 30, 200])
def test_small_and_large_faces(portrait, side):
    before, after = face_at(240, 135, side), face_at(240 + 0.1 * side, 135, side)
    found = follow_face(remember_face(picture(portrait, before), before), picture(portrait, after, seed=1))
    assert found is not None
    np.testing.assert_allclose(found.landmarks_xy, after.landmarks_xy, atol=max(0.5, 0.03 * side))


@pytest.mark.parametrize("center", [(10, 10), (479, 135), (240, 268)])
def test_a_face_at_the_border_is_followed_or_given_up_but_never_an_error(portrait, center):
    before = face_at(*center, 60)
    image = picture(portrait, before)
    found = follow_face(remember_face(image, before), image)
    if found is not None:
        np.testing.assert_allclose(found.box_xyxy, before.box_xyxy, atol=2)


def test_a_face_outside_the_picture_is_given_up(portrait):
    outside = face_at(900, 135, 60)
    image = picture(portrait, face_at(200, 135, 60))
    assert follow_face(remember_face(image, outside), image) is None


def test_a_face_that_is_gone_is_given_up(portrait, rng):
    before = face_at(200, 135, 80)
    patch = remember_face(picture(portrait, before), before)
    noise = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    assert follow_face(patch, noise) is None
    assert follow_face(patch, picture(portrait, face_at(60, 60, 40), seed=1)) is None


class ScriptedDetector:
    """Knows where the faces are and counts how often it is asked."""

    def __init__(self) -> None:
        self.faces: list[Detection] = []
        self.calls = 0

    def search(self, lit_bgr, clock=None) -> list[Detection]:
        self.calls += 1
        return self.faces


def test_the_detector_is_asked_every_third_frame(portrait):
    detector = ScriptedDetector()
    finder = FaceFinder(detector)
    for number in range(9):
        detector.faces = [face_at(200 + 4 * number, 135, 80)]
        clock = StageClock()
        (found,) = finder.find(picture(portrait, detector.faces[0], seed=number), 3, clock)
        np.testing.assert_allclose(found.center_xy, detector.faces[0].center_xy, atol=2)
        assert ("detect" in clock.seconds) == (number % 3 == 0)
    assert detector.calls == 3


def test_every_frame_is_searched_by_default(portrait):
    detector = ScriptedDetector()
    finder = FaceFinder(detector)
    for _ in range(4):
        assert finder.find(picture(portrait, face_at(200, 135, 80)), 1, StageClock()) == []
    assert detector.calls == 4


def test_a_lost_face_is_searched_at_once(portrait):
    detector = ScriptedDetector()
    finder = FaceFinder(detector)
    detector.faces = [face_at(200, 135, 80)]
    finder.find(picture(portrait, detector.faces[0]), 10, StageClock())
    detector.faces = []
    empty = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    assert finder.find(empty, 10, StageClock()) == []
    assert detector.calls == 2
    assert finder.find(empty, 10, StageClock()) == []  # nobody to follow, nobody to lose
    assert detector.calls == 2


def test_another_size_a_reset_and_a_shorter_interval_search_at_once(portrait):
    detector = ScriptedDetector()
    finder = FaceFinder(detector)
    detector.faces = [face_at(100, 100, 60)]
    image = picture(portrait, detector.faces[0])
    finder.find(image, 10, StageClock())
    finder.find(image, 10, StageClock())
    assert detector.calls == 1
    finder.find(image[:240], 10, StageClock())
    assert detector.calls == 2
    finder.reset()
    finder.find(image[:240], 10, StageClock())
    assert detector.calls == 3
    finder.find(image[:240], 1, StageClock())
    assert detector.calls == 4
    finder.find(image[:240], 10, StageClock())  # what was found meanwhile was not kept
    assert detector.calls == 5


def test_an_inner_stage_interrupts_the_outer_one():
    now = [0.0]
    clock = StageClock(lambda: now[0])
    with clock.stage("detect"):
        now[0] += 1.0
        with clock.stage("resize"):
            now[0] += 0.25
        now[0] += 2.0
    now[0] += 100.0
    with clock.stage("resize"):
        now[0] += 0.5
    assert clock.seconds == {"detect": 3.0, "resize": 0.75}


def test_a_stage_that_fails_is_closed():
    now = [0.0]
    clock = StageClock(lambda: now[0])

    def fail() -> None:
        with clock.stage("detect"), clock.stage("resize"):
            now[0] += 1.0
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    now[0] += 5.0
    with clock.stage("track"):
        now[0] += 2.0
    assert clock.seconds == {"resize": 1.0, "detect": 0.0, "track": 2.0}

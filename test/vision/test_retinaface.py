"""The detector: from 16-pixel far faces to one that fills the picture, padding, thresholds, threads."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from point_sets import transform_points

from face_recognition_node.backends import load_detector
from face_recognition_node.common.errors import ConfigurationError, FrameError
from face_recognition_node.common.resources import models_directory
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.vision.geometry import iou_matrix
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.retinaface import Placement, RetinaFaceDetector, select_faces
from face_recognition_node.vision.retinaface_decoding import Proposals
from face_recognition_node.vision.runner import BackendReport

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def detector() -> RetinaFaceDetector:
    return load_detector(ModelsConfig(), DetectorConfig())


@pytest.fixture(scope="module")
def portraits(detector, guest_bgr, stranger_bgr):
    """Each portrait with its face as found at its own size: (picture, box, landmarks)."""
    found = []
    for picture in (guest_bgr, stranger_bgr):
        face = detector.detect(picture)[0]
        assert face.score > 0.99
        found.append((picture, face.box_xyxy, face.landmarks_xy))
    return found


def place(portrait, size, face_height, center):
    """Return a (height, width) picture with the face so high and there, and its box and landmarks."""
    picture, box, landmarks = portrait
    scale = face_height / (box[3] - box[1])
    middle = (box[:2] + box[2:]) / 2
    if scale < 0.6:  # a camera averages over what it cannot resolve
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
    matrix = np.array([[scale, 0, center[0] - scale * middle[0]], [0, scale, center[1] - scale * middle[1]]])
    image = cv2.warpAffine(
        picture, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    corners = transform_points(matrix, box.reshape(2, 2)).reshape(4)
    return image, corners, transform_points(matrix, landmarks)


def best(detections, box):
    """Return the detection that overlaps ``box`` most and its overlap, or (None, 0)."""
    if not detections:
        return None, 0.0
    overlaps = iou_matrix([box], [face.box_xyxy for face in detections])[0]
    return detections[int(overlaps.argmax())], float(overlaps.max())


@pytest.mark.parametrize(("height", "least"), [(16, 0.7), (20, 0.9), (32, 1.0)])
@pytest.mark.slow
def test_far_faces_in_1280x720(detector, portraits, rng, height, least):
    found = []
    for number in range(12):
        center = rng.uniform((40, 40), (1240, 680))
        image, box, _ = place(portraits[number % 2], (720, 1280), height, center)
        found.append(best(detector.detect(image), box)[1] > 0.4)
    assert np.mean(found) >= least


@pytest.mark.parametrize(
    "size",
    [
        (480, 640),
        *(pytest.param(s, marks=SLOW) for s in ((720, 1280), (1080, 1920), (1280, 720))),
        (120, 160),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.8, 1.1])
def test_a_face_that_fills_the_picture(detector, portraits, size, share):
    for portrait in portraits:
        for shift in (-0.1, 0.1):
            face_height = share * size[0] if size[0] < size[1] else min(share, 0.9) * size[0]
            center = (size[1] * (0.5 + shift), size[0] / 2)
            image, box, landmarks = place(portrait, size, face_height, center)
            face, overlap = best(detector.detect(image), box)
            assert overlap > 0.5
            eye_distance = np.linalg.norm(landmarks[1] - landmarks[0])
            error = np.linalg.norm(face.landmarks_xy - landmarks, axis=1).mean() / eye_distance
            assert error < 0.2


@pytest.mark.slow
def test_without_the_close_pass_the_largest_faces_are_lost(detector, portraits):
    image, box, _ = place(portraits[0], (1280, 720), 1200, (360, 640))
    lone = load_detector(ModelsConfig(), DetectorConfig(close_pass=False))
    assert best(lone.detect(image), box)[1] < 0.5 < best(detector.detect(image), box)[1]


@pytest.mark.parametrize("size", [(480, 640), (470, 333), (97, 130), pytest.param((1000, 1900), marks=SLOW)])
def test_a_shifted_picture_shifts_the_face(detector, portraits, size):
    """Padding and resizing keep the geometry, whatever the picture's sides."""
    height = 0.4 * min(size)
    for center in ((size[1] * 0.3, size[0] * 0.4), (size[1] * 0.65, size[0] * 0.6)):
        image, _, landmarks = place(portraits[0], size, height, center)
        face = detector.detect(image)[0]
        eye_distance = np.linalg.norm(landmarks[1] - landmarks[0])
        assert np.linalg.norm(face.landmarks_xy - landmarks, axis=1).max() < 0.2 * eye_distance


@pytest.mark.slow
def test_pictures_without_faces(detector, rng):
    assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == []
    assert detector.detect(np.full((480, 640, 3), 255, np.uint8)) == []
    assert detector.detect(rng.integers(0, 256, (300, 2000, 3), dtype=np.uint8)) == []


def test_views_and_read_only_memory_change_nothing(detector, guest_bgr):
    large = np.zeros((700, 700, 3), np.uint8)
    large[100:612, 50:562] = guest_bgr
    view = large[100:612, 50:562]
    fixed = guest_bgr.copy()
    fixed.setflags(write=False)
    expected = detector.detect(np.ascontiguousarray(guest_bgr))[0].box_xyxy
    for picture in (view, fixed, np.asfortranarray(guest_bgr)):
        np.testing.assert_allclose(detector.detect(picture)[0].box_xyxy, expected, atol=1e-3)


def test_something_that_is_no_image_is_refused(detector):
    with pytest.raises(FrameError, match="uint8"):
        detector.detect(np.zeros((10, 10, 3), np.float32))
    with pytest.raises(FrameError, match="pixel"):
        detector.detect(np.zeros((0, 10, 3), np.uint8))


def test_thresholds_change_with_the_next_frame(detector, guest_bgr):
    own = load_detector(ModelsConfig(), DetectorConfig())
    assert len(own.detect(guest_bgr)) == 1
    own.config = DetectorConfig(minimum_face_px=400)
    assert own.detect(guest_bgr) == []


def test_two_threads_get_their_own_answers(detector, portraits):
    expected = [detector.detect(picture)[0].box_xyxy for picture, _, _ in portraits]
    wrong = []

    def look(number: int) -> None:
        for _ in range(5):
            got = detector.detect(portraits[number][0])[0].box_xyxy
            if not np.allclose(got, expected[number], atol=1e-3):
                wrong.append(number)

    threads = [threading.Thread(target=look, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class RecordingRunner:
    """Answers "no face" and keeps what it was given."""

    def __init__(self) -> None:
        self.report = BackendReport("recording", "none", "", "fp32")
        self.images: list[np.ndarray] = []

    def run(self, images_bgr):
        self.images.append(images_bgr.copy())
        _, height, width, _ = images_bgr.shape
        return tuple(np.full((1, 30, height // s, width // s), -9, np.float32) for s in (8, 16, 32))


def recording(**config) -> tuple[RetinaFaceDetector, RecordingRunner]:
    runner = RecordingRunner()
    card = ModelCard.read(models_directory() / "retinaface_mobilenet025.json")
    return RetinaFaceDetector(runner, card, DetectorConfig(**config)), runner


def test_the_margin_has_the_mean_colour_also_after_another_frame():
    detector, runner = recording()
    detector.detect(np.full((720, 1280, 3), 190, np.uint8))
    detector.detect(np.full((500, 1280, 3), 200, np.uint8))
    detector.detect(np.full((720, 1280, 3), 170, np.uint8))
    main, close = runner.images[-2:]
    assert main.shape == (1, 736, 1280, 3)
    assert (main[0, :720] == 170).all()
    assert (main[0, 720:] == (104, 117, 123)).all()
    assert close.shape == (1, 160, 192, 3)
    assert (close[0, 32:104, 32:160] == 170).all()
    assert (close[0, :32] == (104, 117, 123)).all()
    assert (close[0, :, 160:] == (104, 117, 123)).all()


def test_a_small_picture_is_looked_at_once_and_a_fitting_one_is_not_copied():
    detector, runner = recording()
    detector.detect(np.zeros((480, 640, 3), np.uint8))
    assert [image.shape for image in runner.images] == [(1, 480, 640, 3)]


def test_the_working_width_is_met():
    detector, runner = recording(working_width=640, close_pass=False)
    detector.detect(np.zeros((1080, 1920, 3), np.uint8))
    assert runner.images[0].shape == (1, 384, 640, 3)


@pytest.mark.parametrize("size", [(1, 1), (33, 31), (720, 1280), (3000, 40), (5, 4000)])
@pytest.mark.parametrize("margin", [0, 32])
def test_placements_fit(size, margin):
    placement = Placement.fit(size, 640, margin)
    assert all(side % 32 == 0 for side in placement.canvas)
    for canvas, content in zip(placement.canvas, placement.content, strict=True):
        assert content >= 1
        assert content + 2 * margin <= canvas < content + 2 * margin + 32
    assert max(placement.content) <= 640


def proposals(*rows) -> Proposals:
    """Return proposals of (x1, y1, x2, y2, score) with landmarks spread over each box."""
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    pattern = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    landmarks = boxes[:, None, :2] + pattern * (boxes[:, None, 2:] - boxes[:, None, :2])
    return Proposals(boxes, np.array([row[4] for row in rows], np.float32), landmarks)


def test_selection_thins_out():
    found = proposals(
        (0, 0, 100, 120, 0.99),
        (5, 5, 104, 122, 0.95),  # overlaps the first
        (30, 40, 70, 80, 0.9),  # a part of the first
        (300, 0, 400, 120, 0.85),  # too unsure for its size
        (500, 0, 515, 18, 0.3),  # far, so little is enough
        (600, 0, 606, 8, 0.9),  # smaller than asked for
    )
    kept = select_faces(found, DetectorConfig())
    assert [face.box_xyxy[0] for face in kept] == [0, 500]


def test_a_sure_face_inside_a_less_sure_one_stays():
    found = proposals((0, 0, 200, 240, 0.93), (60, 60, 110, 120, 0.99))
    assert len(select_faces(found, DetectorConfig())) == 2


def test_selection_scales_the_threshold_and_limits_the_number():
    far = proposals((0, 0, 60, 72, 0.5))
    assert select_faces(far, DetectorConfig()) == []
    assert len(select_faces(far, DetectorConfig(), scale=4.0)) == 1
    many = proposals(*[(100 * n, 0, 100 * n + 80, 100, 0.91 + 0.001 * n) for n in range(20)])
    kept = select_faces(many, DetectorConfig(maximum_faces=3))
    assert [round(face.score, 3) for face in kept] == [0.929, 0.928, 0.927]


def test_heaped_landmarks_and_infinite_boxes_are_no_face():
    heaped = proposals((0, 0, 100, 120, 0.99))
    heaped = Proposals(heaped.boxes_xyxy, heaped.scores, np.full((1, 5, 2), 50, np.float32))
    assert select_faces(heaped, DetectorConfig()) == []
    broken = proposals((0, 0, np.inf, 120, 0.99))
    with np.errstate(invalid="ignore"):
        assert select_faces(broken, DetectorConfig()) == []
    assert select_faces(proposals(), DetectorConfig()) == []


def test_least_score_rises_with_size():
    config = DetectorConfig(score_threshold=0.9, far_score_threshold=0.2)
    heights = np.array([0, 10, 20, 43.8, 96, 500])
    np.testing.assert_allclose(config.least_score(heights), [0.2, 0.2, 0.2, 0.55, 0.9, 0.9], atol=1e-3)
    with pytest.raises(ConfigurationError, match="far_score_threshold"):
        DetectorConfig(score_threshold=0.3, far_score_threshold=0.5)

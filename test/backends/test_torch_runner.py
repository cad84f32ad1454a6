"""What surrounds the detector's network on a GPU, run here on the CPU: the same faces, one upload a frame."""

from __future__ import annotations

import numpy as np
import pytest

from face_recognition_node.assembly import Models, Pipeline
from face_recognition_node.backends import load_detector, load_embedder
from face_recognition_node.common.errors import ModelError
from face_recognition_node.common.resources import models_directory
from face_recognition_node.config import Config, DetectorConfig, ModelsConfig
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.media.sample import sample_frame
from face_recognition_node.vision.alignment import CROP_SIZE, align_faces
from face_recognition_node.vision.faces import Frame
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.retinaface import RetinaFaceDetector
from face_recognition_node.vision.retinaface_decoding import Placement
from face_recognition_node.vision.runner import BackendReport

torch = pytest.importorskip("torch", reason="the GPU's backends are written in torch")

from tensorrt_standin import Standin  # noqa: E402

from face_recognition_node.backends.tensorrt import TorchTensorRtRunner  # noqa: E402
from face_recognition_node.backends.torch_runner import FrameSearch, TorchPreprocessing, open_torch_runner  # noqa: E402

CARD = ModelCard.read(models_directory() / "retinaface_mobilenet025.json")
SIZES = [
    (640, 480),
    *(pytest.param(s, marks=pytest.mark.slow) for s in ((1280, 720), (1600, 900), (3840, 2160))),
]
"""As it is, with a margin below, shrunk by less than two, averaged down."""


class Silent:
    """Serves until the engine is there, and finds nothing."""

    report = BackendReport("openvino", "CPU", "until the engine is ready", "fp32")

    def run(self, images_bgr):
        _, height, width, _ = images_bgr.shape
        return tuple(np.full((1, 30, height // s, width // s), -9.0, np.float32) for s in (8, 16, 32))


class CountingRunner(TorchTensorRtRunner):
    """Counts the frames that are uploaded and the faces that are cut from the uploaded copy."""

    uploads = cuts = 0

    def watch(self) -> None:
        preprocess, search = self._search._preprocess, self._search
        upload, sample = preprocess.upload, search._sample

        def counted_upload(images_bgr):
            self.uploads += 1
            return upload(images_bgr)

        def counted_sample(picture, matrices):
            self.cuts += len(matrices)
            return sample(picture, matrices)

        preprocess.upload, search._sample = counted_upload, counted_sample


@pytest.fixture
def runner(tmp_path) -> CountingRunner:
    made = CountingRunner(CARD, ModelsConfig(), Silent(), Standin(), "auto", tmp_path, 1)
    made.watch()
    return made


@pytest.fixture(scope="module")
def usual() -> RetinaFaceDetector:
    return RetinaFaceDetector(open_torch_runner(CARD, ModelsConfig(device="cpu"), ""), CARD, DetectorConfig())


@pytest.mark.parametrize("size", SIZES)
def test_the_same_faces_as_on_the_cpu(runner, usual, size):
    frame = sample_frame(size, faces=4)
    detector = RetinaFaceDetector(runner, CARD, DetectorConfig())
    assert detector.detect(frame) == []  # the engine is not there yet; what serves meanwhile finds nothing
    assert runner.wait(60)
    found, expected = detector.detect(frame), usual.detect(frame)
    assert len(found) == len(expected) == 4
    tolerance = 1.0 if size == (3840, 2160) else 0.1  # areas are averaged a little differently
    scale = max(1.0, max(size) / 1280)
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=0.01)
        assert np.allclose(one.box_xyxy, other.box_xyxy, atol=tolerance * scale)
        assert np.allclose(one.landmarks_xy, other.landmarks_xy, atol=tolerance * scale)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_the_same_aligned_faces_and_embeddings(runner, usual, size):
    frame = sample_frame(size, faces=4)
    landmarks = np.stack([face.landmarks_xy for face in usual.detect(frame)])
    landmarks[0] -= landmarks[0].min(axis=0) - 2  # one face reaches over the image's corner
    detector = RetinaFaceDetector(runner, CARD, DetectorConfig())
    detector.detect(frame)
    assert runner.wait(60)
    detector.detect(frame)
    got, expected = detector.align_faces(frame, landmarks), align_faces(frame, landmarks)
    assert runner.cuts == 4
    assert got.shape == expected.shape == (4, CROP_SIZE, CROP_SIZE, 3)
    assert np.abs(got.astype(int) - expected).mean() < 1.0
    embedder = load_embedder(ModelsConfig())
    cosines = (embedder.embed(got) * embedder.embed(expected)).sum(axis=1)
    assert cosines.min() > 0.999


@pytest.mark.slow
def test_a_frame_is_uploaded_once_for_search_second_pass_and_faces(runner, usual, tmp_path):
    frame = Frame(sample_frame((1280, 720), faces=3), 0.0, "camera")
    detector = RetinaFaceDetector(runner, CARD, DetectorConfig())
    detector.warm_up((720, 1280))
    assert runner.wait(60)
    embedder = load_embedder(ModelsConfig())
    models = Models(detector, embedder, Calibration.from_card(embedder.card), detector.align_faces)
    runner.uploads = 0  # the engine's self-test had pictures of its own
    with Pipeline.open(Config(), models=models) as pipeline:
        for _ in range(3):
            assert len(pipeline.process(frame).faces) == 3
    assert runner.uploads == 3
    assert runner.cuts == 9


def test_another_image_than_the_searched_one_is_cut_on_the_cpu(runner, usual):
    frame = sample_frame((640, 480), faces=2)
    other = np.ascontiguousarray(frame[:, ::-1])
    detector = RetinaFaceDetector(runner, CARD, DetectorConfig())
    detector.warm_up((480, 640))
    assert runner.wait(60)
    detector.detect(frame)
    landmarks = np.stack([face.landmarks_xy for face in usual.detect(other)])
    assert np.array_equal(detector.align_faces(other, landmarks), align_faces(other, landmarks))
    assert runner.cuts == 0
    assert detector.align_faces(frame, landmarks[:0]).shape == (0, CROP_SIZE, CROP_SIZE, 3)


def test_on_the_cpu_torch_leaves_it_to_opencv():
    detector = load_detector(ModelsConfig(backend="torch", device="cpu"), DetectorConfig())
    assert detector.runner.find_cells(sample_frame(), [], 0.0) is None


def test_an_engine_that_fails_leaves_the_frame_to_the_other_backend(runner, usual):
    frame = sample_frame((640, 480), faces=2)
    detector = RetinaFaceDetector(runner, CARD, DetectorConfig())
    detector.warm_up((480, 640))
    assert runner.wait(60)
    landmarks = np.stack([face.landmarks_xy for face in detector.detect(frame)])

    def fail(*arguments):
        raise RuntimeError("CUDA out of memory")

    runner._search._select = runner._search._sample = fail
    assert np.array_equal(detector.align_faces(frame, landmarks), align_faces(frame, landmarks))
    assert detector.detect(frame) == []  # what serves meanwhile finds nothing
    assert "failed while it served" in runner.report.reason


def test_maps_of_another_shape_are_an_error():
    search = FrameSearch(torch, TorchPreprocessing(CARD, "cpu"), "cpu")
    frame = sample_frame((640, 480))
    placement = Placement.fit((480, 640), 640)
    with pytest.raises(ModelError, match="expected 3, one for each stride, got 1"):
        search.find_cells(lambda planes: [planes], frame, [placement], 0.0)

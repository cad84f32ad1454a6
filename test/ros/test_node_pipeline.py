"""From message to answer with a recognizer that only remembers; the answers as messages."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

pytest.importorskip("built_interfaces")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from face_recognition_interfaces.msg import Face
from face_recognition_node.common.errors import FrameError
from face_recognition_node.ros.diagnostics import StreamStatistics
from face_recognition_node.ros.images import DepthBuffer
from face_recognition_node.ros.messages import bgr_to_image, to_face, to_face_array
from face_recognition_node.ros.parameters import Settings
from face_recognition_node.ros.pipeline import FramePipeline, Packet
from face_recognition_node.vision.faces import (
    Candidate,
    Detection,
    FaceQuality,
    FaceView,
    Frame,
    HeadPose,
    IdentifiedFace,
    Identity,
    IdentityState,
    Intrinsics,
    RecognitionResult,
)

STAMP = 1_700_000_000


class Recorder:
    """Stands in for the recognizer: the pipeline around it is what is tested here."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.configs: list[object] = []
        self.resets = 0
        self.rotate = 0
        self.embedded_all: list[bool] = []
        self.error: Exception | None = None

    def process(self, frame: Frame, *, embed_all: bool = False) -> RecognitionResult:
        self.embedded_all.append(embed_all)
        if self.error is not None:
            raise self.error
        self.frames.append(frame)
        height, width = frame.image_bgr.shape[:2]
        return RecognitionResult(frame.stamp, frame.frame_id, (width, height), (), 7, {"detect": 0.01})

    def update_config(self, config: object) -> None:
        self.configs.append(config)

    def reset(self) -> None:
        self.resets += 1


class Sink:
    def __init__(self) -> None:
        self.faces: list[tuple[RecognitionResult, Header]] = []
        self.annotated: list[np.ndarray] = []
        self.bad: list[tuple[str, bool]] = []

    def now(self) -> float:
        return STAMP + 0.5

    def publish_faces(self, result, header, image_bgr) -> None:
        self.faces.append((result, header))

    def publish_annotated(self, image_bgr, result, header) -> None:
        self.annotated.append(image_bgr)

    def report_bad_frame(self, error, is_first) -> None:
        self.bad.append((error.kind, is_first))


class Bench:
    def __init__(self) -> None:
        self.recognizer, self.sink = Recorder(), Sink()
        self.depth, self.statistics = DepthBuffer(), StreamStatistics()
        self.results: list[RecognitionResult] = []
        self.pipeline = FramePipeline(
            self.recognizer, Settings(), self.depth, self.statistics, self.sink, self.results.append
        )

    def send(self, message: Image, arrived: float = STAMP + 1.0) -> None:
        self.pipeline.handle(Packet(message, arrived))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def image(sec: int = STAMP, nanosec: int = 250_000_000, size: tuple[int, int] = (4, 6)) -> Image:
    pixels = np.full((*size, 3), 9, np.uint8)
    return bgr_to_image(pixels, Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id="camera"))


def depth_image(nanosec: int, millimetres: int, size: tuple[int, int] = (4, 6)) -> Image:
    pixels = np.full(size, millimetres, np.uint16)
    return Image(
        header=Header(stamp=Time(sec=STAMP, nanosec=nanosec)), height=size[0], width=size[1],
        encoding="16UC1", step=2 * size[1], data=pixels.tobytes(),
    )  # fmt: skip


def test_an_image_is_answered_under_its_own_header(bench) -> None:
    message = image()
    bench.send(message)
    ((result, header),) = bench.sink.faces
    assert header is message.header
    assert bench.recognizer.frames[0].stamp == pytest.approx(STAMP + 0.25)
    assert bench.recognizer.frames[0].frame_id == "camera"
    assert bench.recognizer.frames[0].depth_m is None
    assert set(result.stage_seconds) == {"decode", "detect"}
    assert bench.results == [result]
    summary = bench.statistics.summarize()
    assert summary.latency_p50 == pytest.approx(0.25, abs=1e-3)
    assert set(summary.stage_seconds) == {"decode", "detect", "publish"}


def test_an_unstamped_image_gets_its_time_of_arrival(bench) -> None:
    bench.send(image(0, 0), arrived=123.5)
    assert bench.recognizer.frames[0].stamp == 123.5
    assert math.isnan(bench.statistics.summarize().latency_p50)


def camera_info(width: int, height: int, focal: float = 500.0) -> CameraInfo:
    k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, k=k)


def test_the_camera_model_comes_along_with_depth_scaled_to_the_image(bench) -> None:
    bench.depth.add_camera_info(camera_info(12, 8))
    bench.send(image())
    assert bench.recognizer.frames[0].intrinsics == Intrinsics(250.0, 250.0, 3.0, 2.0)
    bench.depth.add(depth_image(250_000_000, 1500))
    bench.send(image())
    assert bench.recognizer.frames[1].intrinsics == Intrinsics(250.0, 250.0, 3.0, 2.0)


def test_depth_of_a_driver_that_does_not_stamp_fits_and_a_camera_is_forgotten(bench) -> None:
    bench.depth._now = lambda: 123.4
    bench.depth.add_camera_info(camera_info(6, 4))
    unstamped = depth_image(0, 1500)
    unstamped.header.stamp.sec = 0
    bench.depth.add(unstamped)
    bench.send(image(0, 0), arrived=123.41)
    assert bench.recognizer.frames[0].depth_m is not None
    bench.depth.camera_info = None
    assert bench.depth.intrinsics((4, 6)) is None


def test_the_model_of_the_rectified_image_goes_first(bench) -> None:
    info = camera_info(6, 4)
    info.p = [470.0, 0.0, 3.5, 0.0, 0.0, 480.0, 2.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    bench.depth.add_camera_info(info)
    bench.depth.add(depth_image(250_000_000, 1500))
    bench.send(image())
    assert bench.recognizer.frames[0].intrinsics == Intrinsics(470.0, 480.0, 3.5, 2.5)


@pytest.mark.parametrize(
    "info",
    [camera_info(6, 6), camera_info(0, 0)]
    + [camera_info(6, 4, focal=focal) for focal in (0.0, 1e-300, 1e308, math.nan)],
)
def test_a_camera_model_of_something_else_is_told_once_and_the_image_answered(bench, info) -> None:
    bench.depth.add_camera_info(info)
    bench.depth.add(depth_image(250_000_000, 1500))
    for _ in range(2):
        bench.send(image())
    assert bench.sink.bad == [("camera_info", True), ("camera_info", False)]
    assert len(bench.sink.faces) == 2


def test_bad_images_are_counted_and_the_next_one_is_answered(bench) -> None:
    broken = image()
    broken.encoding = "bgr7"
    for message in (broken, broken, image()):
        bench.send(message)
    bench.recognizer.error = FrameError("size", "too small")
    bench.send(image())
    bench.recognizer.error = None
    bench.send(image())
    assert bench.sink.bad == [("encoding", True), ("encoding", False), ("size", True)]
    assert dict(bench.statistics.summarize().bad) == {"encoding": 2, "size": 1}
    assert len(bench.sink.faces) == 2


def test_depth_of_the_nearest_stamp_goes_along(bench) -> None:
    for nanosec, millimetres in ((200_000_000, 1000), (240_000_000, 2000), (290_000_000, 3000)):
        bench.depth.add(depth_image(nanosec, millimetres))
    bench.send(image())
    depth = bench.recognizer.frames[0].depth_m
    assert depth.shape == (4, 6)
    assert depth[0, 0] == pytest.approx(2.0)


def test_depth_of_another_time_or_size_is_left_out(bench) -> None:
    bench.depth.add(depth_image(0, 1000))
    bench.send(image())
    assert bench.recognizer.frames[0].depth_m is None
    assert bench.sink.bad == []
    bench.depth.add(depth_image(250_000_000, 1000, size=(2, 3)))
    bench.send(image())
    assert bench.recognizer.frames[1].depth_m is None
    assert bench.sink.bad == [("depth_size", True)]
    assert len(bench.sink.faces) == 2


def test_settings_take_effect_on_the_next_image(bench) -> None:
    bench.send(image())
    changed = Settings().with_values({"identity.target_false_accept_rate": 0.2, "rotate": 180})
    bench.pipeline.update_settings(changed)
    assert bench.recognizer.configs == [changed.recognition]
    assert (bench.recognizer.rotate, bench.recognizer.resets) == (180, 1)
    bench.pipeline.update_settings(changed)
    assert bench.recognizer.resets == 1, "tracks are given up only when the picture turns"


def test_observers_see_results_and_have_every_face_embedded(bench) -> None:
    first, second = [], []
    with bench.pipeline.observed_by(first.append):
        bench.send(image())
        with bench.pipeline.observed_by(second.append):
            bench.send(image())
        bench.send(image())
    bench.send(image())
    assert bench.recognizer.embedded_all == [True, True, True, False]
    assert (len(first), len(second), len(bench.results)) == (3, 1, 4)


def test_observers_do_not_see_images_that_came_before_them(bench) -> None:
    """A search under load ended with a face of an image from 2.3 s before it began."""
    seen = []
    before = Packet(image(), STAMP + 1.0)
    with bench.pipeline.observed_by(seen.append):
        bench.pipeline.handle(before)
        assert seen == []
        bench.send(image(), arrived=STAMP - 60.0)  # as of a bag that has begun anew
    assert len(seen) == 1
    assert len(bench.results) == 2


def test_who_asks_for_the_recognizer_gets_it_although_the_worker_never_rests(bench) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            bench.send(image())

    worker = threading.Thread(target=work)
    worker.start()
    got = 0
    for _ in range(200):
        with bench.pipeline.exclusive():
            got += 1
    stop.set()
    worker.join(10)
    assert got == 200
    assert not worker.is_alive()


def face(**identity) -> IdentifiedFace:
    detection = Detection(
        np.array([1, 2, 41, 62], np.float32), 0.98, np.arange(10, dtype=np.float32).reshape(5, 2)
    )
    embedding = np.eye(1, 64, dtype=np.float32)[0]
    view = FaceView(
        detection, 1.0, FaceQuality(0.7, 1, 1, 1, 1, 1), HeadPose(10.0, -5.0, 2.0), embedding=embedding
    )
    return IdentifiedFace(12, view, Identity(**identity))


def test_a_known_face_as_a_message() -> None:
    identity = {
        "state": IdentityState.KNOWN, "person_id": "p-1", "name": "Anna", "probability": 0.97,
        "runner_up": Candidate("p-2", "Berta", 0.02), "distance": 0.5, "evidence_age": 0.1,
    }  # fmt: skip
    message = to_face(face(**identity))
    assert (message.identity_state, message.person_id, message.name) == (Face.KNOWN, "p-1", "Anna")
    assert (message.runner_up_person_id, message.runner_up_name) == ("p-2", "Berta")
    assert message.probability == pytest.approx(0.97)
    assert message.template_distance == pytest.approx(0.5)
    assert message.box_xyxy.tolist() == [1, 2, 41, 62]
    assert message.landmarks_xy.tolist() == list(range(10))
    assert (message.size_px, message.yaw, message.pitch, message.roll) == (60, 10, -5, 2)
    assert (message.track_id, message.flatness, message.has_position) == (12, Face.UNVERIFIED, False)
    assert len(message.embedding) == 0, "embeddings are biometric: only on request"


def test_what_is_not_known_is_nan_or_empty() -> None:
    message = to_face(face())
    assert message.identity_state == Face.UNDECIDED
    assert math.isnan(message.template_distance)
    assert math.isnan(message.evidence_age)
    assert (message.person_id, message.runner_up_person_id, message.runner_up_probability) == ("", "", 0.0)


def test_embeddings_on_request() -> None:
    array = to_face_array(RecognitionResult(1.0, "", (640, 480), (face(),), 5), Header(frame_id="c"), True)
    assert (array.image_width, array.image_height, array.gallery_version) == (640, 480, 5)
    assert array.header.frame_id == "c"
    assert len(array.faces[0].embedding) == 64

"""From one image message to its answer; runs on the worker's thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from sensor_msgs.msg import CompressedImage, Image

from face_recognition_node.common.errors import FrameError
from face_recognition_node.media.pixels import image_to_bgr
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.ros.diagnostics import StreamStatistics
from face_recognition_node.ros.images import DepthBuffer
from face_recognition_node.ros.messages import stamp_to_seconds
from face_recognition_node.ros.parameters import Settings
from face_recognition_node.vision.faces import Frame, ImageArray, RecognitionResult

if TYPE_CHECKING:
    from face_recognition_node.ros.outputs import AnswerPublisher

ValueT = TypeVar("ValueT")


Observer = Callable[[RecognitionResult], None]


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """An image message as it arrived."""

    message: Image | CompressedImage  # the image
    arrived: float  # when, seconds of the node's clock
    # the same in monotonic seconds, which no bag that starts anew sets back
    received: float = field(default_factory=time.monotonic)


class FramePipeline:
    """Converts, recognizes, publishes, and tells those who watch (an enrollment).

    ``on_result`` is called with every result after it was published.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        settings: Settings,
        depth: DepthBuffer,
        statistics: StreamStatistics,
        outputs: AnswerPublisher,
        on_result: Observer,
    ) -> None:
        self.recognizer = recognizer
        self._settings = settings
        self._depth = depth
        self._statistics = statistics
        self._outputs = outputs
        self._on_result = on_result
        self._observers: tuple[tuple[Observer, float], ...] = ()
        self._observing = threading.Lock()
        self._turn, self._working = threading.Lock(), threading.Lock()
        recognizer.rotate = settings.node.rotate

    def update_settings(self, settings: Settings) -> None:
        """Use other parameters from the next image on."""
        with self.exclusive():
            self._settings = settings
            self.recognizer.update_config(settings.recognition)
            if settings.node.rotate != self.recognizer.rotate:
                self.recognizer.rotate = settings.node.rotate
                self.recognizer.reset()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep the recognizer to oneself between two images.

        Callers are served in turn: two locks, so that a busy worker cannot take the second one again before
        those who wait.
        """
        self._turn.acquire()
        try:
            self._working.acquire()
        finally:
            self._turn.release()
        try:
            yield
        finally:
            self._working.release()

    @contextlib.contextmanager
    def observed_by(self, observer: Observer) -> Iterator[None]:
        """Call ``observer`` with each result, every face of it embedded, while the block runs.

        An image that arrived before is none of its: on a busy machine it may still be in work, and show where
        the camera looked before.
        """
        entry = (observer, time.monotonic())
        with self._observing:
            self._observers = (*self._observers, entry)
        try:
            yield
        finally:
            with self._observing:
                self._observers = tuple(item for item in self._observers if item is not entry)

    def reset(self) -> None:
        """Forget all tracks."""
        with self.exclusive():
            self.recognizer.reset()

    def handle(self, packet: Packet) -> None:
        """Answer one image message, or count it as bad."""
        header = packet.message.header
        try:
            with self.exclusive():
                result, image, lacks_depth = self._recognize(packet)
        except FrameError as error:
            self._outputs.report_bad_frame(error, self._statistics.count_bad(error.kind))
            return
        started = time.perf_counter()
        self._outputs.publish_faces(result, header, image)
        stages = {**result.stage_seconds, "publish": time.perf_counter() - started}
        stamp = stamp_to_seconds(header.stamp)
        latency = self._outputs.now() - stamp if stamp else float("nan")
        self._statistics.count_answered(latency, stages, lacks_depth)
        self._on_result(result)
        for observer, since in self._observers:
            if packet.received >= since:
                observer(result)
        self._outputs.publish_annotated(image, result, header)

    def _recognize(self, packet: Packet) -> tuple[RecognitionResult, ImageArray, bool]:
        """Return the answer, the picture, and whether depth was wanted and did not come."""
        started = time.perf_counter()
        # A driver that does not stamp gets the time of arrival, for the tracker's sake.
        stamp = stamp_to_seconds(packet.message.header.stamp) or packet.arrived
        image = image_to_bgr(packet.message, self._settings.node.maximum_megapixels)
        size, tolerance = (image.shape[0], image.shape[1]), self._settings.node.depth_tolerance
        depth = self._or_none(lambda: self._depth.find(stamp, tolerance, size))
        intrinsics = self._or_none(lambda: self._depth.intrinsics(size))
        decoded = time.perf_counter() - started
        frame = Frame(image, stamp, packet.message.header.frame_id, depth, intrinsics)
        result = self.recognizer.process(frame, embed_all=bool(self._observers))
        result = replace(result, stage_seconds={"decode": decoded, **result.stage_seconds})
        return result, image, depth is None and bool(self._settings.node.depth_topic)

    def _or_none(self, get: Callable[[], ValueT | None]) -> ValueT | None:
        """Return what comes with an image, or None and a report: the image is good without it."""
        try:
            return get()
        except FrameError as error:
            self._outputs.report_bad_frame(error, self._statistics.count_bad(error.kind))
            return None

"""The recognition node: a lifecycle around the pipeline. Messages in, the core decides, messages out."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from face_recognition_node.common.background import repeat
from face_recognition_node.common.errors import GalleryError
from face_recognition_node.common.newest import NewestItemWorker
from face_recognition_node.ros.actions import EnrollmentServer, FindServer
from face_recognition_node.ros.diagnostics import (
    ImagePublisher,
    NodeHealth,
    StreamStatistics,
    TroubleLog,
    find_profile_trouble,
    to_diagnostics,
)
from face_recognition_node.ros.images import DepthBuffer, ImageInput
from face_recognition_node.ros.lifecycle import forwarded_logs, loud, state_label
from face_recognition_node.ros.messages import DIAGNOSTICS, stamp_to_seconds
from face_recognition_node.ros.outputs import AnswerPublisher
from face_recognition_node.ros.parameters import NodeParameters, Settings
from face_recognition_node.ros.pipeline import FramePipeline, Packet
from face_recognition_node.ros.runtime import (
    HOUSEKEEPING_PERIOD_S,
    Host,
    Housekeeper,
    open_runtime,
    twin_warning,
)
from face_recognition_node.ros.services import GalleryServices

logger = logging.getLogger(__name__)


# how often the node looks whether somebody wants its answers and whether the gallery has changed
CHECK_PERIOD_S = 0.2
LINGER_S = 2.0  # how long it goes on after the last one has gone: subscribers come and go


class FaceRecognitionNode(Host):
    """Publishes who is in the images it receives."""

    def __init__(self) -> None:
        self._to_close = ExitStack()  # first: rclpy destroys half-made nodes, too
        super().__init__("face_recognition")
        self._to_close.enter_context(forwarded_logs(self.get_logger()))
        self._to_close.callback(super().destroy_node)
        self._answers: AnswerPublisher | None = None
        self._worker: NewestItemWorker[Packet] | None = None
        self._state_lock = threading.RLock()
        self._statistics = StreamStatistics()
        self._depth = DepthBuffer(now=lambda: self.get_clock().now().nanoseconds * 1e-9)
        self._housekeeper = Housekeeper()
        self._twins: list[tuple[str, str]] = []
        self._trouble = TroubleLog()
        self._last_wanted = 0.0
        self._runs_begun: set[Path] = set()
        self.node_parameters = NodeParameters(self, lambda: self.runtime is not None, self._on_settings)
        self._input = ImageInput(
            self, self.settings.node, self._on_image, self._depth.add, self._depth.add_camera_info
        )
        self._to_close.callback(self._input.destroy)
        self._gallery_services = GalleryServices(self)
        self._enrollment = EnrollmentServer(self)
        self._to_close.callback(self._enrollment.close)
        self._search = FindServer(self)
        self._to_close.callback(self._search.close)
        self._diagnostics = self.create_publisher(DIAGNOSTICS.type, DIAGNOSTICS.name, DIAGNOSTICS.qos)
        ending = threading.Event()
        for method, period_s in (
            (self.check, CHECK_PERIOD_S),
            (self._diagnose, self.settings.node.diagnostics_period),
            (self._tidy, HOUSEKEEPING_PERIOD_S),  # on a thread of its own: it may wait long for the disk
        ):
            thread = repeat(method, period_s, ending, method.__name__)
            self._to_close.callback(thread.join, timeout=2.0)
        self._to_close.callback(ending.set)

    @property
    def settings(self) -> Settings:
        """The parameters in force."""
        return self.node_parameters.settings

    @property
    def image_topic(self) -> str:
        """Full name of the topic images are expected on."""
        return self._input.topic(self.settings.node)

    # The lifecycle: each step undoes exactly what its counterpart did.

    @loud
    def on_configure(self) -> None:
        """Load and warm the models, open the gallery, and show who is in it."""
        runtime = open_runtime(self.settings, self._runs_begun)
        try:
            answers = AnswerPublisher(self, self.settings.node)
        except BaseException:
            runtime.close()
            raise
        self.pipeline = FramePipeline(
            runtime.recognizer, self.settings, self._depth, self._statistics, answers, self._housekeeper.note
        )
        self.runtime, self._answers = runtime, answers
        self.publish_gallery()
        persons = runtime.describe_gallery()
        self.get_logger().info(
            f"configured: detector {runtime.describe_models()['detector backend']}; gallery "
            f"{persons['file']} with {persons['persons']} persons and {persons['strangers']} strangers"
        )

    @loud
    def on_activate(self) -> None:
        """Answer images from now on, while anybody wants that."""
        if self.pipeline is None or self._answers is None:
            raise RuntimeError("activated without having been configured")
        self.pipeline.reset()
        self._depth.clear()
        self._statistics.reset()
        self._worker = NewestItemWorker(self.pipeline.handle, self._on_failure, "recognizer")
        try:
            self._worker.start()
            self._answers.activate()
            self.is_active = True
            self.check()
        except BaseException:
            self._stop()
            raise
        self.get_logger().info(f"active: answers images on {self.image_topic}")

    @loud
    def on_deactivate(self) -> None:
        """Receive no more images; an enrollment under way ends and stores nothing."""
        self._stop()

    @loud
    def on_cleanup(self) -> None:
        """Close the gallery and let the models go."""
        self._close()

    @loud
    def on_shutdown(self) -> None:
        """Stop and close, from any state."""
        self._stop()
        self._close()

    def _stop(self) -> None:
        with self._state_lock:
            self.is_active = False
            self._input.close()
        self._enrollment.interrupt()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        if self._answers is not None:
            self._answers.deactivate()

    def _close(self) -> None:
        with (
            ExitStack() as stack,
            self._state_lock,
        ):  # left before the gallery is closed, which takes its time
            runtime, self.runtime, self.pipeline = self.runtime, None, None
            self._twins = []
            if runtime is not None:
                stack.callback(runtime.close)
            self._depth.camera_info = None  # the next one configured may be another camera
            answers, self._answers = self._answers, None
            if answers is not None:
                answers.close()

    def destroy_node(self) -> None:
        """Take the node off the network."""
        self._to_close.close()

    # Callbacks; none of them waits for the recognizer.

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.count_received(stamp_to_seconds(message.header.stamp))
        worker = self._worker
        if worker is not None:
            worker.offer(Packet(message, self.get_clock().now().nanoseconds * 1e-9))

    def _on_failure(self, error: Exception) -> None:
        """Count an error that nobody foresaw, log it with its traceback the first time, and go on."""
        if self._statistics.count_bad(f"internal {type(error).__name__}"):
            self.get_logger().error(
                "".join(traceback.format_exception(type(error), error, error.__traceback__))
            )

    def _on_settings(self, settings: Settings) -> None:
        pipeline, runtime, answers = self.pipeline, self.runtime, self._answers
        if pipeline is None or runtime is None or answers is None:
            return
        answers.config = settings.node
        pipeline.update_settings(settings)
        runtime.update_config(settings.recognition)
        self.check()

    def publish_gallery(self) -> None:
        """Show who is known, if that has changed."""
        with self._state_lock:
            if self.runtime is not None and self._answers is not None:
                self._answers.publish_gallery(self.runtime.gallery.snapshot())

    def wanted_by(self) -> list[str]:
        """Return who wants images answered, in words."""
        wanted = []
        if self.settings.node.always_on:
            wanted.append("always_on")
        if self._enrollment.is_running:
            wanted.append("enrollment")
        if self._search.is_running:
            wanted.append("search")
        with self._state_lock:
            if self._answers is not None and self._answers.count_subscribers():
                wanted.append("subscribers")
        return wanted

    def check(self) -> None:
        """Receive images while somebody wants answers; show the gallery if it has changed."""
        with self._state_lock:
            if self.is_active:
                now = time.monotonic()
                if self.wanted_by():
                    self._last_wanted = now
                    self._input.open(self.settings.node)
                elif now - self._last_wanted > LINGER_S:
                    self._input.close()
                if self._answers is not None and self._statistics.silence > self.settings.node.image_timeout:
                    self._answers.clear()
        self.publish_gallery()

    def _tidy(self) -> None:
        """Let the gallery do its chores."""
        runtime = self.runtime
        if runtime is None:
            return
        try:
            self._housekeeper.tidy(runtime.gallery)
        except GalleryError as error:  # the gallery warns of it, and says so in diagnostics
            logger.debug("the gallery is tidied next time: %s", error)
        self._twins = self._housekeeper.twins(runtime)

    def _diagnose(self) -> None:
        runtime, worker = self.runtime, self._worker
        is_compressed = self.settings.node.image_transport == "compressed"
        health = NodeHealth(
            state=state_label(self),
            error=self.last_error,
            wanted=self.wanted_by(),
            stream=self._statistics.summarize(worker.counts.dropped) if worker is not None else None,
            image_topic=self.image_topic,
            depth_topic=self.settings.node.depth_topic,
            image_timeout=self.settings.node.image_timeout,
            publishers=self._image_publishers(),
            image_type=f"sensor_msgs/msg/{'CompressedImage' if is_compressed else 'Image'}",
            is_reliable=self.settings.node.qos_reliability == "reliable",
            profile_trouble=find_profile_trouble(os.environ),
            models=runtime.describe_models() if runtime is not None else {},
            gallery=runtime.describe_gallery() if runtime is not None else {},
            gallery_warning="; ".join(map(twin_warning, self._twins[:3])),
        )
        stamp = self.get_clock().now().to_msg()
        message = to_diagnostics(health, self.get_fully_qualified_name(), stamp)
        self._diagnostics.publish(message)
        if not health.error:  # that was logged when it happened
            is_streaming = health.state == "active" and bool(health.wanted)
            for is_trouble, text in self._trouble.news(message, is_streaming, runtime is not None):
                if is_trouble:  # two calls: rclpy refuses another severity from the same line
                    self.get_logger().warning(text)
                else:
                    self.get_logger().info(text)

    def _image_publishers(self) -> list[ImagePublisher]:
        """Return who publishes on the image topic, whatever type of message."""
        return [
            ImagePublisher(
                f"{one.node_namespace.rstrip('/')}/{one.node_name}",
                one.topic_type,
                one.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            )
            for one in self.get_publishers_info_by_topic(self.image_topic)
        ]

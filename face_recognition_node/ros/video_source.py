"""A camera for the rest of us: publishes a webcam, video, gif, folder or the sample as image messages.

Lifecycle-managed like the recognition node. Frames go out at the source's own pace and are stamped when they
do, so that everything downstream sees a live camera.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.common.parameters import Section, fixed_parameter, flatten
from face_recognition_node.media.sources import FrameSource, open_source
from face_recognition_node.ros.lifecycle import LoudNode, forwarded_logs, loud, start_up, state_label
from face_recognition_node.ros.messages import bgr_to_image, bgr_to_jpeg
from face_recognition_node.ros.parameters import declare
from face_recognition_node.vision.faces import Frame


@dataclass(frozen=True, slots=True)
class VideoSourceConfig(Section):
    """What to play and how; all of it is read when the node is configured."""

    source: str = fixed_parameter(
        "sample", "Camera number, video, GIF, picture, folder, bag, URL, or sample (built in)."
    )
    rate: float = fixed_parameter(0.0, "Frames per second; 0: as recorded.", limits=(0.0, 1000.0))
    width: int = fixed_parameter(
        0, "Image width in pixels asked of a camera or the sample; 0: the default.", limits=(0, 8192)
    )
    height: int = fixed_parameter(
        0, "Image height in pixels asked of a camera or the sample; 0: the default.", limits=(0, 8192)
    )
    at_end: str = fixed_parameter(
        "loop",
        "What to do at the end of a recording: loop (start again), stop (deactivate) or exit (end the "
        "process).",
        choices=("loop", "stop", "exit"),
    )
    preload: bool = fixed_parameter(
        False, "Decode all frames in configure and play them from memory (for short recordings)."
    )
    transport: str = fixed_parameter(
        "raw", "raw: Image; compressed: JPEG as CompressedImage.", choices=("raw", "compressed")
    )
    jpeg_quality: int = fixed_parameter(90, "JPEG quality of compressed images.", limits=(1, 100))
    frame_id: str = fixed_parameter("camera", "Coordinate frame in the header.")
    qos_reliability: str = fixed_parameter(
        "best_effort",
        "Reliability of the image publisher; reliable also serves best-effort subscribers.",
        choices=("best_effort", "reliable"),
    )
    wait_for_subscriber: bool = fixed_parameter(
        False, "Start playing when the first subscriber appears, so that it misses nothing."
    )
    autostart: bool = fixed_parameter(False, "Configure and activate at start.")


# behind its schedule by more than this, the source gives the lost time up instead of hurrying after it
LARGEST_LAG_S = 0.5


RETRY_S = 1.0  # between two attempts to open a camera or stream that broke


class VideoSource(LoudNode):
    """Publishes ``image`` (or ``image/compressed``) while active; sets ``stop`` when the recording ends."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__("video_source")
        self._exit = stop
        self._items = list(flatten(VideoSourceConfig()))
        declare(self, self._items, frozenset({"autostart"}))
        self._publisher: Any = None
        self._source: FrameSource | None = None
        self._frames: list[Frame] | None = None
        self._is_judged = False
        self._player: threading.Thread | None = None
        self._pause = threading.Event()
        if self.config.autostart:
            start_up(self)

    @property
    def config(self) -> VideoSourceConfig:
        """The parameters as they stand now; ConfigurationError if one of them is outside its bounds."""
        values = {name: self.get_parameter(name).value for name, _, _ in self._items}
        return VideoSourceConfig(**values)

    @loud
    def on_configure(self) -> None:
        """Open the source."""
        config = self._running = self.config
        self._source = self._open()
        self._is_judged = False
        self._frames = list(self._source) if config.preload and not self._source.is_live else None
        reliability = (
            ReliabilityPolicy.RELIABLE
            if config.qos_reliability == "reliable"
            else ReliabilityPolicy.BEST_EFFORT
        )
        is_raw = config.transport == "raw"
        topic = "image" if is_raw else f"{self.resolve_topic_name('image')}/compressed"
        self._publisher = self.create_lifecycle_publisher(
            Image if is_raw else CompressedImage, topic, QoSProfile(depth=5, reliability=reliability)
        )
        n_frames = "live" if self._source.n_frames is None else f"{self._source.n_frames} frames"
        self.get_logger().info(f"opened {self._source.name}: {n_frames} at {self._source.rate_hz:g} Hz")

    @loud
    def on_activate(self) -> None:
        """Start to play, from the beginning."""
        self._publisher.on_activate(None)
        self._pause.clear()
        self._player = threading.Thread(target=self._play, name="player", daemon=True)
        self._player.start()

    @loud
    def on_deactivate(self) -> None:
        """Stop playing."""
        self._stop_playing()
        self._publisher.on_deactivate(None)

    @loud
    def on_cleanup(self) -> None:
        """Close the source."""
        self._close()

    @loud
    def on_shutdown(self) -> None:
        """Stop and close, from any state."""
        self._stop_playing()
        self._close()

    def _open(self) -> FrameSource:
        config = self._running
        size = (config.width, config.height) if config.width and config.height else None
        with forwarded_logs(self.get_logger()):
            return open_source(config.source, rate=config.rate or None, size=size).from_zero()

    def _stop_playing(self) -> None:
        player, self._player = self._player, None
        self._pause.set()
        if player is not None and player is not threading.current_thread():
            player.join()

    def _close(self) -> None:
        publisher, self._publisher, self._source, self._frames = self._publisher, None, None, None
        if publisher is not None:
            self.destroy_lifecycle_publisher(publisher)

    def _play(self) -> None:
        """Run on the player's thread: publish every frame at its time until the end or the pause."""
        while self._running.wait_for_subscriber and self._publisher.get_subscription_count() == 0:
            if self._pause.wait(0.02):
                return
        self._publish_frames()
        while self._is_back():
            self._publish_frames()
        if self._pause.is_set():
            return
        self.get_logger().info("the source has ended")
        if self._running.at_end == "exit":
            self._exit.set()
        else:
            # a source that fails at once does so before the activation is through, which would refuse this
            while state_label(self) == "activating" and not self._pause.wait(0.01):
                pass
            self.trigger_deactivate()

    def _publish_frames(self) -> None:
        try:
            for frame in self._paced():
                header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._running.frame_id)
                if self._running.transport == "raw":
                    self._publisher.publish(bgr_to_image(frame.image_bgr, header))
                else:
                    self._publisher.publish(bgr_to_jpeg(frame.image_bgr, header, self._running.jpeg_quality))
        except FaceRecognitionError as error:
            self.get_logger().error(f"stopped: {error}")

    def _is_back(self) -> bool:
        """Wait until a camera that broke is there again; False at a pause, and for recordings."""
        source = self._source
        if source is None or not source.is_live or self._pause.is_set():
            return False
        self.get_logger().warning(f"{source.name} is lost; trying again every {RETRY_S:g} s")
        while not self._pause.wait(RETRY_S):
            try:
                self._source = self._open()
            except FaceRecognitionError:
                continue
            self.get_logger().info(f"{source.name} is back")
            return True
        return False

    def _paced(self) -> Iterator[Frame]:
        """Yield frames when they are due, over and over if they loop."""
        source = self._source
        if source is None:
            return
        start = time.monotonic()
        while True:
            due = start
            for frame in self._frames if self._frames is not None else source:
                if not source.is_live:
                    due = start + frame.stamp
                    lag = time.monotonic() - due
                    if lag > LARGEST_LAG_S:
                        start, due = start + lag, due + lag
                    elif lag < 0 and self._pause.wait(-lag):
                        return
                if self._pause.is_set():
                    return
                yield frame
            if not self._is_judged:  # the first time; a loop would say it for ever
                for problem in source.problems:
                    self.get_logger().warning(problem)
                self._is_judged = True
            if self._running.at_end != "loop" or source.is_live:
                self._pause.wait(1 / source.rate_hz)  # the last frame lasts as long as the others
                return
            start = due + 1 / source.rate_hz

"""Images, depth and the camera's model as they come in; subscribed only while somebody wants an answer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from face_recognition_node.common.errors import ConfigurationError, FrameError
from face_recognition_node.media.pixels import camera_intrinsics, depth_to_metres
from face_recognition_node.ros.lifecycle import spin
from face_recognition_node.ros.messages import stamp_to_seconds
from face_recognition_node.ros.parameters import NodeConfig
from face_recognition_node.vision.faces import FloatArray, Intrinsics

RELIABILITIES = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


_OVERRIDES = "qos_overrides."
# what can be overridden, and the values; rclpy refuses any other only when the subscription is made
_POLICIES: dict[str, tuple[str, ...] | range] = {
    "history": ("keep_last", "keep_all", "system_default"),
    "reliability": ("best_effort", "reliable", "system_default"),
    "depth": range(100_001),
}


def check_qos_overrides(given: Mapping[str, object], topics: Sequence[str]) -> list[str]:
    """Return a sentence for each override without effect; ConfigurationError if a value cannot be used."""
    names = {f"{_OVERRIDES}{topic}.subscription.{policy}": policy for topic in topics for policy in _POLICIES}
    useless = []
    for name, value in given.items():
        if name in names:
            allowed = _POLICIES[names[name]]
            if (value.lower() if isinstance(value, str) else value) not in allowed:
                choices = "0 to 100000" if isinstance(allowed, range) else ", ".join(map(str, allowed))
                raise ConfigurationError(f"parameter {name}: expected {choices}, got {value!r}")
        elif name.startswith(_OVERRIDES):
            useless.append(f"{name} has no effect; there are {', '.join(names)}")
    return useless


class ImageInput:
    """Subscribes and unsubscribes; the callbacks are called with every message and must return at once.

    The subscriptions belong to a companion node, ``NAME_images``, with an executor and a thread of its own.
    rclpy looks at every entity of a node whenever one of them is ready: among the services and the action of
    the main node a stream of 30 Hz costs a third of a core for that alone, here next to nothing.
    """

    def __init__(
        self,
        node: Node,
        config: NodeConfig,
        on_image: Callable[[Image | CompressedImage], None],
        on_depth: Callable[[Image], None],
        on_camera_info: Callable[[CameraInfo], None],
    ) -> None:
        self._node = node
        self._on_image = on_image
        self._on_depth, self._on_camera_info = on_depth, on_camera_info
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._companion = Node(
            f"{node.get_name()}_images",
            context=node.context,
            namespace=node.get_namespace(),
            use_global_arguments=False,  # a remapped node name would hit both
            enable_rosout=False,
            start_parameter_services=False,
            parameter_overrides=[
                Parameter("start_type_description_service", value=False),
                *(given for name, given in node._parameter_overrides.items() if name.startswith(_OVERRIDES)),
            ],
        )
        given = {name: one.value for name, one in node._parameter_overrides.items()}
        for text in check_qos_overrides(given, [topic for topic, *_ in self._wanted(config)]):
            node.get_logger().warning(text)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._companion)
        self._thread = threading.Thread(target=spin, args=[self._executor], name="images", daemon=True)
        self._thread.start()

    def topic(self, config: NodeConfig) -> str:
        """Return the full name of the image topic, remapping included.

        The transport's suffix comes after the remapping, as with image_transport, so that
        ``image:=/camera/image_raw`` serves both.
        """
        base = str(self._node.resolve_topic_name(config.image_topic))
        if config.image_transport == "raw":
            return base
        return f"{base.removesuffix('/compressed')}/compressed"  # given twice, it is meant once

    def _wanted(self, config: NodeConfig) -> list[tuple[str, Any, Callable[[Any], None]]]:
        """Return full name, type and receiver of each topic; depth and camera infos only where wanted."""
        image_type = CompressedImage if config.image_transport == "compressed" else Image
        return [
            (self.topic(config), image_type, self._on_image),
            *(
                (str(self._node.resolve_topic_name(name)), type_, callback)
                for name, type_, callback in (
                    (config.depth_topic, Image, self._on_depth),
                    (config.camera_info_topic, CameraInfo, self._on_camera_info),
                )
                if name
            ),
        ]

    @property
    def is_open(self) -> bool:
        """Whether images are received."""
        return bool(self._subscriptions)

    def open(self, config: NodeConfig) -> None:
        """Subscribe, if that is not done yet."""
        with self._lock:
            if self._subscriptions:
                return
            qos = QoSProfile(depth=config.qos_depth, reliability=RELIABILITIES[config.qos_reliability])
            try:
                for topic, type_, callback in self._wanted(config):
                    self._subscribe(type_, topic, callback, qos)
            except BaseException:  # all or none: without depth a poster would pass
                self._unsubscribe()
                raise

    def _subscribe(self, type_: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        given = f"{_OVERRIDES}{topic}.subscription."
        is_overridden = any(name.startswith(given) for name in self._companion._parameter_overrides)
        self._subscriptions.append(
            self._companion.create_subscription(
                type_,
                topic,
                callback,
                qos,
                qos_overriding_options=QoSOverridingOptions.with_default_policies()
                if is_overridden
                else None,
            )
        )

    def close(self) -> None:
        """Unsubscribe; harmless when not subscribed."""
        with self._lock:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        while self._subscriptions:
            self._companion.destroy_subscription(self._subscriptions.pop())

    def destroy(self) -> None:
        """Unsubscribe and take the companion node off the network."""
        self.close()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self._companion.destroy_node()


class DepthBuffer:
    """Keeps the latest depth messages until the colour image of their stamp comes, and the camera's model.

    ``now`` is the clock of the stamps, for drivers that do not stamp.
    """

    def __init__(self, length: int = 10, now: Callable[[], float] = time.time) -> None:
        self.camera_info: CameraInfo | None = None
        self._now = now
        self._lock = threading.Lock()
        self._messages: deque[tuple[float, Image]] = deque(maxlen=length)

    def add(self, message: Image) -> None:
        """Keep a message; it is decoded only if it is used."""
        with self._lock:
            self._messages.append((stamp_to_seconds(message.header.stamp) or self._now(), message))

    def clear(self) -> None:
        """Forget all messages; the camera's model stays, which some drivers send once."""
        with self._lock:
            self._messages.clear()

    def add_camera_info(self, message: CameraInfo) -> None:
        """Keep the camera's model."""
        self.camera_info = message

    def intrinsics(self, size: tuple[int, int]) -> Intrinsics | None:
        """Return the camera's model for an image of (height, width), or None where none has come.

        An image smaller or larger than the one that was calibrated gets the model scaled.

        Raises:
            FrameError: If what came is no calibration of such an image.
        """
        message = self.camera_info
        return None if message is None else camera_intrinsics(message, size)

    def find(self, stamp: float, tolerance: float, size: tuple[int, int]) -> FloatArray | None:
        """Return the depth closest to ``stamp`` in metres, (H, W) float32, or None if none is close enough.

        Stamp and tolerance are seconds; ``size`` is that of the colour image, (height, width), which the
        depth image must share.

        Raises:
            FrameError: If that depth image cannot be used.
        """
        with self._lock:
            messages = list(self._messages)
        if not messages:
            return None
        nearest, message = min(messages, key=lambda item: abs(item[0] - stamp))
        if abs(nearest - stamp) > tolerance:
            return None
        depth = depth_to_metres(message)
        if depth.shape != size:
            raise FrameError(
                "depth_size",
                f"depth image: expected {size[1]}x{size[0]} like the colour image, got "
                f"{depth.shape[1]}x{depth.shape[0]}; subscribe to depth registered to colour",
            )
        return depth

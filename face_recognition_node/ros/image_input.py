"""The subscriptions to camera and depth, which exist only while somebody wants an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from face_recognition_node.ros.settings import NodeConfig

RELIABILITIES = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


class ImageInput:
    """Subscribes and unsubscribes.

    Args:
        node: Makes the subscriptions.
        on_image: Called with every image message; must return at once.
        on_depth: Called with every depth message; must return at once.
    """

    def __init__(
        self,
        node: Node,
        on_image: Callable[[Image | CompressedImage], None],
        on_depth: Callable[[Image], None],
    ) -> None:
        self._node = node
        self._on_image = on_image
        self._on_depth = on_depth
        self._group = MutuallyExclusiveCallbackGroup()
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []

    def topic(self, config: NodeConfig) -> str:
        """Return the full name of the image topic, remapping included.

        The transport's suffix comes after the remapping, as with image_transport, so that
        ``image:=/camera/image_raw`` serves both.
        """
        base = str(self._node.resolve_topic_name(config.image_topic))
        return f"{base}/compressed" if config.image_transport == "compressed" else base

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
            image_type = CompressedImage if config.image_transport == "compressed" else Image
            self._subscribe(image_type, self.topic(config), self._on_image, qos)
            if config.depth_topic:
                self._subscribe(Image, config.depth_topic, self._on_depth, qos)

    def _subscribe(self, type_: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        made = self._node.create_subscription(type_, topic, callback, qos, callback_group=self._group)
        self._subscriptions.append(made)

    def close(self) -> None:
        """Unsubscribe; harmless when not subscribed."""
        with self._lock:
            while self._subscriptions:
                self._node.destroy_subscription(self._subscriptions.pop())

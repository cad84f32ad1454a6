"""The depth image that belongs to a colour image."""

from __future__ import annotations

import threading
from collections import deque

from sensor_msgs.msg import Image

from face_recognition_node.core.errors import FrameError
from face_recognition_node.core.faces import FloatArray
from face_recognition_node.ros.conversions import depth_to_metres, stamp_to_seconds


class DepthBuffer:
    """Keeps the latest depth messages until the colour image of their stamp comes.

    Args:
        length: How many messages are kept.
    """

    def __init__(self, length: int = 10) -> None:
        self._lock = threading.Lock()
        self._messages: deque[tuple[float, Image]] = deque(maxlen=length)

    def add(self, message: Image) -> None:
        """Keep a message; it is decoded only if it is used."""
        with self._lock:
            self._messages.append((stamp_to_seconds(message.header.stamp), message))

    def clear(self) -> None:
        """Forget all messages."""
        with self._lock:
            self._messages.clear()

    def find(self, stamp: float, tolerance: float, size: tuple[int, int]) -> FloatArray | None:
        """Return the depth closest to ``stamp`` in metres, (H, W) float32, or None if none is close enough.

        Args:
            stamp: Of the colour image, seconds.
            tolerance: Largest difference of stamps, seconds.
            size: (height, width) of the colour image, which the depth image must share.

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

"""The depth image that belongs to a colour image, and the camera's model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, Image

from face_recognition_node.common.errors import FrameError, InputError
from face_recognition_node.ros.conversions import depth_to_metres, stamp_to_seconds
from face_recognition_node.vision.faces import FloatArray, Intrinsics


class CameraModel:
    """Keeps the latest CameraInfo."""

    def __init__(self) -> None:
        self._message: CameraInfo | None = None

    def add(self, message: CameraInfo) -> None:
        """Take a message over."""
        self._message = message

    def clear(self) -> None:
        """Forget it."""
        self._message = None

    def intrinsics(self, size: tuple[int, int]) -> Intrinsics | None:
        """Return the model for an image of (height, width), or None where none has come.

        An image smaller or larger than the one that was calibrated gets the model scaled.

        Raises:
            FrameError: If what came is no calibration of such an image.
        """
        message = self._message
        if message is None:
            return None
        height, width = int(message.height), int(message.width)
        if 0 in (height, width) or height * size[1] != width * size[0]:
            raise FrameError(
                "camera_info",
                f"camera info: expected one for an image of the proportions {size[1]}x{size[0]}, got "
                f"{width}x{height}; is camera_info_topic that of the same camera?",
            )
        scale = size[1] / width
        # positions are computed for the rectified image, whose matrix is p; k is the raw one's, if p is unset
        fx, cx, fy, cy = (
            (message.p[i] for i in (0, 2, 5, 6)) if message.p[0] > 0 else (message.k[i] for i in (0, 2, 4, 5))
        )
        try:
            return Intrinsics(*(float(value) * scale for value in (fx, fy, cx, cy)))
        except InputError as error:
            raise FrameError("camera_info", f"camera info: {error}; calibrate the camera") from error


class DepthBuffer:
    """Keeps the latest depth messages until the colour image of their stamp comes.

    Args:
        length: How many messages are kept.
        now: The clock of the stamps, for drivers that do not stamp.

    Attributes:
        camera: The model of the camera.
    """

    def __init__(self, length: int = 10, now: Callable[[], float] = time.time) -> None:
        self.camera = CameraModel()
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

"""From arrays and seconds to messages; the way back for images is media/pixels.py."""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from face_recognition_node.common.errors import FrameError
from face_recognition_node.vision.faces import ImageArray, require_image


def bgr_to_image(image_bgr: ImageArray, header: Header) -> Image:
    """Return a (H, W, 3) BGR uint8 picture as a bgr8 message with this header."""
    pixels = np.ascontiguousarray(require_image(image_bgr))
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    message.data = _bytes_field(pixels)
    return message


def bgr_to_jpeg(image_bgr: ImageArray, header: Header, quality: int = 90) -> CompressedImage:
    """Return a (H, W, 3) BGR uint8 picture as a JPEG message with this header; ``quality`` in 1..100."""
    is_encoded, data = cv2.imencode(".jpg", require_image(image_bgr), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise FrameError(
            "size", f"image of shape {image_bgr.shape}: cannot be written as JPEG (at most 65500 px)"
        )
    message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    message.data = _bytes_field(data)
    return message


_LAST_SECOND = 2**31 - 1
"""The message's field holds no more."""


def stamp_to_seconds(stamp: Time) -> float:
    """Return a message stamp in seconds (a float keeps microseconds of today's clock)."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def seconds_to_stamp(seconds: float) -> Time:
    """Return seconds since the epoch as a message stamp: 0 if negative or unknown, 2038 at the latest."""
    if not seconds > 0:
        return Time()
    if seconds >= _LAST_SECOND + 1:
        return Time(sec=_LAST_SECOND)
    whole = int(seconds)
    return Time(sec=whole, nanosec=min(round((seconds - whole) * 1e9), 999_999_999))


def _bytes_field(pixels: Any) -> array.array[int]:
    """Return uint8 pixels as the type a message field takes without looking at every element."""
    data = array.array("B")
    data.frombytes(memoryview(pixels).cast("B"))
    return data

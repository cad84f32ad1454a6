"""Between image messages and arrays.

Our own converter is the primary path: the cv_bridge of some distributions breaks with newer numpy or OpenCV,
and the one on PyPI corrupts depth images and padded rows (see bridge.py, which serves as a cross-check).
"""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from face_recognition_node.common.errors import FrameError
from face_recognition_node.ros.encodings import LAYOUTS, pixels_to_bgr, read_rows
from face_recognition_node.vision.faces import FloatArray, ImageArray, require_image

_JPEG = (b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9")
_PNG = (b"\x89PNG\r\n\x1a\n", b"IDAT", b"IEND")


def image_to_bgr(message: Image | CompressedImage) -> ImageArray:
    """Return the picture of an image message as (H, W, 3) BGR uint8.

    The array may share the message's memory: do not write to it.

    Raises:
        FrameError: With ``kind`` ``encoding``, ``size``, ``step``, ``nan``, ``range``, ``empty``, ``format``
            or ``truncated``.
    """
    if isinstance(message, CompressedImage):
        return compressed_to_bgr(message)
    return pixels_to_bgr(
        message.data,
        message.height,
        message.width,
        message.step,
        message.encoding,
        bool(message.is_bigendian),
    )


def compressed_to_bgr(message: CompressedImage) -> ImageArray:
    """Return a JPEG or PNG message as (H, W, 3) BGR uint8.

    The bytes tell the format, not the message's ``format`` field, which drivers fill in many ways. OpenCV
    decodes a torn JPEG to a half-grey picture without complaint, so its end is looked for first.
    """
    data = bytes(message.data)
    if not data:
        raise FrameError("empty", "compressed image: expected a JPEG or PNG, got no data")
    start, body, end = next((marks for marks in (_JPEG, _PNG) if data.startswith(marks[0])), (b"", b"", b""))
    if not start:
        raise FrameError(
            "format",
            f"compressed image of format {message.format!r}: expected a JPEG or PNG, got {data[:4].hex(' ')}",
        )
    if data.rfind(end) <= data.rfind(body):
        raise FrameError("truncated", f"compressed image: its {len(data)} bytes end before the picture does")
    try:
        # A JPEG's orientation tag is ignored: the boxes must be those of the pixels that were sent.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise FrameError("format", f"compressed image: cannot be decoded ({error.err})") from error
    if image is None:
        raise FrameError("format", f"compressed image: {len(data)} bytes that cannot be decoded")
    return require_image(image, "compressed image")  # type: ignore[arg-type]  # imdecode made 8-bit BGR


def depth_to_metres(message: Image) -> FloatArray:
    """Return a depth image as (H, W) float32 metres, NaN where it knows nothing.

    16UC1 and mono16 hold millimetres with 0 for unknown, 32FC1 metres (REP 118).

    Raises:
        FrameError: With ``kind`` ``depth_encoding``, ``size`` or ``step``.
    """
    if message.encoding not in ("16UC1", "mono16", "32FC1"):
        raise FrameError(
            "depth_encoding", f"depth image: expected 16UC1, mono16 or 32FC1, got {message.encoding!r}"
        )
    samples = read_rows(
        message.data,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        LAYOUTS[message.encoding],
        message.encoding,
    )
    metres = samples.astype(np.float32)
    if samples.dtype == np.uint16:
        metres *= np.float32(0.001)
    with np.errstate(invalid="ignore"):
        metres[~(metres > 0) | np.isinf(metres)] = np.nan
    return metres


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

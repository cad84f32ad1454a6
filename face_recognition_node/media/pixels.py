"""Pixels as sensor_msgs stores them to arrays; messages are known by their fields, so that bags need no ROS.

Our own converter is the primary path: the cv_bridge of some distributions breaks with newer numpy or OpenCV,
and the one on PyPI corrupts depth images and padded rows. A test compares them where cv_bridge is sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import FrameError, InputError
from face_recognition_node.media.images import (
    MAXIMUM_MEGAPIXELS,
    decode_picture,
    is_whole,
    picture_kind,
    picture_size,
)
from face_recognition_node.vision.faces import FloatArray, ImageArray, Intrinsics, require_image

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels of one encoding lie in memory and how they become BGR."""

    dtype: type[np.generic]  # type of one sample in the machine's own byte order
    channels: int  # samples per pixel in a row
    # takes (H, W, channels), or (H, W) if that is 1, of dtype; returns (H, W, 3) BGR uint8
    to_bgr: Callable[[Pixels], Pixels]
    # (height, width) must each be even where True, because colour is stored once for two pixels
    even: tuple[bool, bool] = (False, False)
    smallest: int = 1  # least height and width that can be converted


def _convert(code: int) -> Callable[[Pixels], Pixels]:
    def convert(pixels: Pixels) -> Pixels:
        if pixels.shape[:2] == (1, 1):  # a single pixel is refused by the bindings of OpenCV 4.5.4
            return cv2.cvtColor(pixels.repeat(2, axis=1), code)[:, :1]
        return cv2.cvtColor(pixels, code)

    return convert


def _keep(pixels: Pixels) -> Pixels:
    return pixels


def _eight_bits(pixels: Pixels) -> Pixels:
    """Scale uint16 to uint8: round(v * 255 / 65535) = round(v / 257)."""
    return cv2.convertScaleAbs(pixels, alpha=1 / 257)


def _grey16(pixels: Pixels) -> Pixels:
    return cv2.cvtColor(_eight_bits(pixels), cv2.COLOR_GRAY2BGR)


def _grey_float(pixels: Pixels) -> Pixels:
    if not np.isfinite(pixels).all():
        raise FrameError("nan", "image of encoding 32FC1: expected finite numbers, got NaN or infinity")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0.0 or high > 1.0:
        raise FrameError(
            "range",
            f"image of encoding 32FC1: expected brightness in [0, 1], got {low:g} to {high:g}; a depth image "
            "belongs on the topic of the parameter depth_topic",
        )
    return cv2.cvtColor(np.rint(pixels * 255.0).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def _mosaic(code: int) -> dict[int, Layout]:
    """Return the 8 and 16 bit layouts of one Bayer pattern (OpenCV names it by its second row, mirrored)."""

    def from_16_bits(pixels: Pixels) -> Pixels:
        return _eight_bits(cv2.cvtColor(pixels, code))

    return {
        8: Layout(np.uint8, 1, _convert(code), smallest=3),
        16: Layout(np.uint16, 1, from_16_bits, smallest=3),
    }


_GREY = Layout(np.uint8, 1, _convert(cv2.COLOR_GRAY2BGR))
_BGR = Layout(np.uint8, 3, _keep)
_BGRA = Layout(np.uint8, 4, _convert(cv2.COLOR_BGRA2BGR))
_GREY16 = Layout(np.uint16, 1, _grey16)
_UYVY = Layout(np.uint8, 2, _convert(cv2.COLOR_YUV2BGR_UYVY), even=(False, True))
_YUYV = Layout(np.uint8, 2, _convert(cv2.COLOR_YUV2BGR_YUY2), even=(False, True))

# every encoding that can be read
LAYOUTS: dict[str, Layout] = {
    "bgr8": _BGR,
    "8UC3": _BGR,
    "rgb8": Layout(np.uint8, 3, _convert(cv2.COLOR_RGB2BGR)),
    "bgra8": _BGRA,
    "8UC4": _BGRA,
    "rgba8": Layout(np.uint8, 4, _convert(cv2.COLOR_RGBA2BGR)),
    "mono8": _GREY,
    "8UC1": _GREY,
    "mono16": _GREY16,
    "16UC1": _GREY16,
    "32FC1": Layout(np.float32, 1, _grey_float),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    # One plane of brightness, then half as many rows of interleaved colour: the rows are counted below.
    "nv12": Layout(np.uint8, 1, _convert(cv2.COLOR_YUV2BGR_NV12), even=(True, True)),
    "nv21": Layout(np.uint8, 1, _convert(cv2.COLOR_YUV2BGR_NV21), even=(True, True)),
    **{
        f"bayer_{pattern}{bits}": layout
        for pattern, code in (
            ("rggb", cv2.COLOR_BayerBG2BGR),
            ("bggr", cv2.COLOR_BayerRG2BGR),
            ("gbrg", cv2.COLOR_BayerGR2BGR),
            ("grbg", cv2.COLOR_BayerGB2BGR),
        )
        for bits, layout in _mosaic(code).items()
    },
}

TWO_PLANES = frozenset({"nv12", "nv21"})


def read_rows(message: Any, layout: Layout) -> Pixels:
    """Return an Image's samples as (rows, W, channels), or (rows, W) for one channel, in native byte order.

    Nothing is copied unless rows are padded or bytes swapped.

    Raises:
        FrameError: Of kind ``size`` or ``step``.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if height < layout.smallest or width < layout.smallest:
        raise FrameError(
            "size",
            f"image {width}x{height} ({encoding}): expected at least {layout.smallest}x{layout.smallest}",
        )
    if (layout.even[0] and height % 2) or (layout.even[1] and width % 2):
        raise FrameError("size", f"image {width}x{height}: encoding {encoding} needs an even size")
    used = width * layout.channels * np.dtype(layout.dtype).itemsize
    if step < used:
        raise FrameError("step", f"image {width}x{height} ({encoding}): expected step >= {used}, got {step}")
    rows = height * 3 // 2 if encoding in TWO_PLANES else height
    flat = np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    if flat.size != rows * step:
        raise FrameError(
            "size",
            f"image {width}x{height} ({encoding}, {step=}): expected {rows * step} bytes, not {flat.size}",
        )
    samples = np.ascontiguousarray(flat.reshape(rows, step)[:, :used]).view(layout.dtype)
    if message.is_bigendian and samples.dtype.itemsize > 1:
        samples = samples.byteswap()
    return samples if layout.channels == 1 else samples.reshape(rows, width, layout.channels)


def image_to_bgr(message: Any, maximum_megapixels: float = MAXIMUM_MEGAPIXELS) -> ImageArray:
    """Return the picture of an Image or CompressedImage as (H, W, 3) BGR uint8.

    The array may share the message's memory: do not write to it. 16UC1 is read like mono16, 32FC1 as
    brightness in [0, 1].

    Raises:
        FrameError: With ``kind`` ``encoding``, ``size``, ``step``, ``nan``, ``range``, ``empty``, ``format``
            or ``truncated``.
    """
    if hasattr(message, "format"):
        return compressed_to_bgr(message, maximum_megapixels)
    _check_size(message.width, message.height, maximum_megapixels)
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        known = ", ".join(sorted(LAYOUTS))
        raise FrameError("encoding", f"image encoding {message.encoding[:200]!r}: expected one of {known}")
    return layout.to_bgr(read_rows(message, layout))


def _check_size(width: int, height: int, maximum_megapixels: float) -> None:
    if width * height > maximum_megapixels * 1e6:
        raise FrameError(
            "too_large",
            f"image {width}x{height}: expected at most {maximum_megapixels:g} megapixels "
            "(parameter maximum_megapixels)",
        )


def compressed_to_bgr(message: Any, maximum_megapixels: float = MAXIMUM_MEGAPIXELS) -> ImageArray:
    """Return a JPEG or PNG message as (H, W, 3) BGR uint8.

    The bytes tell the format, not the message's ``format`` field, which drivers fill in many ways. OpenCV
    decodes a torn JPEG to a half-grey picture without complaint, so its end is looked for first.
    """
    data = bytes(message.data)
    if not data:
        raise FrameError("empty", "compressed image: expected a JPEG or PNG, got no data")
    kind = picture_kind(data[:256])
    if kind not in ("jpeg", "png"):
        raise FrameError(
            "format",
            f"compressed image of format {message.format[:200]!r}: expected a JPEG or PNG, "
            f"got {data[:4].hex(' ')}",
        )
    if not is_whole(data, kind):
        raise FrameError("truncated", f"compressed image: its {len(data)} bytes end before the picture does")
    size = picture_size(data)
    if size is not None:
        _check_size(*size, maximum_megapixels)
    # A JPEG's orientation tag is ignored: the boxes must be those of the pixels that were sent.
    image, reason = decode_picture(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        detail = f" ({reason})" if reason else ""
        raise FrameError("format", f"compressed image: {len(data)} bytes that cannot be decoded{detail}")
    return require_image(image, "compressed image")


def depth_to_metres(message: Any) -> FloatArray:
    """Return a depth image as (H, W) float32 metres, NaN where it knows nothing.

    16UC1 and mono16 hold millimetres with 0 for unknown, 32FC1 metres (REP 118).

    Raises:
        FrameError: With ``kind`` ``depth_encoding``, ``size`` or ``step``.
    """
    if message.encoding not in ("16UC1", "mono16", "32FC1"):
        raise FrameError(
            "depth_encoding", f"depth image: expected 16UC1, mono16 or 32FC1, got {message.encoding[:200]!r}"
        )
    samples = read_rows(message, LAYOUTS[message.encoding])
    metres = samples.astype(np.float32)
    if samples.dtype == np.uint16:
        metres *= np.float32(0.001)
    with np.errstate(invalid="ignore"):
        metres[~(metres > 0) | np.isinf(metres)] = np.nan
    return metres


# sides of the image that a focal length may have: more than of any lens, and positions can be computed
_MOST_SIDES = 1000


def camera_intrinsics(message: Any, size: tuple[int, int]) -> Intrinsics:
    """Return a CameraInfo as the model of an image of (height, width).

    An image smaller or larger than the one that was calibrated gets the model scaled.

    Raises:
        FrameError: If it is no calibration of such an image.
    """
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
        intrinsics = Intrinsics(*(float(value) * scale for value in (fx, fy, cx, cy)))
    except InputError as error:
        raise FrameError("camera_info", f"camera info: {error}; calibrate the camera") from error
    least, most = max(size) / _MOST_SIDES, max(size) * _MOST_SIDES
    focal = (intrinsics.fx, intrinsics.fy)
    if min(focal) < least or max(*focal, abs(intrinsics.cx), abs(intrinsics.cy)) > most:
        raise FrameError(
            "camera_info",
            f"camera info: expected focal lengths from {least:g} to {most:g} pixels, got {intrinsics}; "
            "calibrate the camera",
        )
    return intrinsics

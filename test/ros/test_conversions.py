"""Image messages to BGR, each encoding against a slow computation that knows nothing of OpenCV."""

from __future__ import annotations

import importlib
import struct
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("built_interfaces")

from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from face_recognition_node.common.errors import FrameError
from face_recognition_node.media.images import picture_size
from face_recognition_node.media.pixels import LAYOUTS, depth_to_metres, image_to_bgr
from face_recognition_node.ros.messages import (
    bgr_to_image,
    bgr_to_jpeg,
    seconds_to_stamp,
    stamp_to_seconds,
)

PACKED = {
    "bgr8": (0, 1, 2),
    "8UC3": (0, 1, 2),
    "rgb8": (2, 1, 0),
    "bgra8": (0, 1, 2, None),
    "8UC4": (0, 1, 2, None),
    "rgba8": (2, 1, 0, None),
    "mono8": ((0, 1, 2),),
    "8UC1": ((0, 1, 2),),
}
"""Encoding -> for each stored byte of a pixel, where it goes in BGR (None: nowhere)."""

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


def make(encoding: str, height: int, width: int, rows: list[bytes], pad: int = 0, big: bool = False) -> Image:
    """Return a message whose rows are padded with ``pad`` bytes that must never be seen."""
    data = b"".join(row + b"\xa5" * pad for row in rows)
    step = len(rows[0]) + pad
    return Image(height=height, width=width, encoding=encoding, step=step, is_bigendian=int(big), data=data)


@pytest.mark.parametrize("encoding", PACKED)
@given(height=sizes, width=sizes, pad=st.integers(0, 7), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_packed_bytes_go_where_they_belong(
    encoding: str, height: int, width: int, pad: int, seed: int
) -> None:
    places = PACKED[encoding]
    stored = np.random.default_rng(seed).integers(0, 256, (height, width, len(places)), np.uint8)
    expected = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for sample, place in enumerate(places):
                for channel in place if isinstance(place, tuple) else [place]:
                    if channel is not None:
                        expected[y, x, channel] = stored[y, x, sample]
    image = image_to_bgr(make(encoding, height, width, [row.tobytes() for row in stored], pad))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@given(height=sizes, width=sizes, pad=st.integers(0, 3), big=st.booleans(), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_sixteen_bit_grey(encoding: str, height: int, width: int, pad: int, big: bool, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 65536, (height, width)).tolist()
    rows = [struct.pack(f"{'>' if big else '<'}{width}H", *row) for row in values]
    image = image_to_bgr(make(encoding, height, width, rows, 2 * pad, big))
    expected = np.array([[[round(v * 255 / 65535)] * 3 for v in row] for row in values], np.uint8)
    np.testing.assert_array_equal(image, expected)


@given(height=sizes, width=sizes, pad=st.integers(0, 3), big=st.booleans(), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_float_brightness(height: int, width: int, pad: int, big: bool, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 1, (height, width)).astype(np.float32)
    rows = [struct.pack(f"{'>' if big else '<'}{width}f", *row) for row in values.tolist()]
    image = image_to_bgr(make("32FC1", height, width, rows, 4 * pad, big))
    assert np.abs(image.astype(float) - values[:, :, None] * 255).max() <= 0.5 + 1e-4


def yuv_to_bgr(y: int, u: int, v: int) -> list[float]:
    """ITU-R BT.601, limited range: black is 16 (what lies below is no colour)."""
    luma, blue, red = 1.164 * (y - 16), u - 128, v - 128
    bgr = (luma + 2.018 * blue, luma - 0.813 * red - 0.391 * blue, luma + 1.596 * red)
    return [min(max(value, 0.0), 255.0) for value in bgr]


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
@given(height=sizes, pairs=st.integers(1, 5), pad=st.integers(0, 7), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_yuv_with_colour_for_two_pixels(encoding: str, height: int, pairs: int, pad: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    luma = random.integers(16, 256, (height, 2 * pairs)).tolist()
    chroma = random.integers(0, 256, (height, pairs, 2)).tolist()
    rows, expected = [], []
    for y in range(height):
        row, colours = [], []
        for pair, (u, v) in enumerate(chroma[y]):
            first, second = luma[y][2 * pair : 2 * pair + 2]
            row += [u, first, v, second] if encoding in ("yuv422", "uyvy") else [first, u, second, v]
            colours += [yuv_to_bgr(first, u, v), yuv_to_bgr(second, u, v)]
        rows.append(bytes(row))
        expected.append(colours)
    image = image_to_bgr(make(encoding, height, 2 * pairs, rows, pad))
    assert np.abs(image - np.array(expected)).max() <= 2


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@given(half_height=st.integers(1, 4), half_width=st.integers(1, 4), pad=st.integers(0, 5), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_yuv_in_two_planes(encoding: str, half_height: int, half_width: int, pad: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    luma = random.integers(16, 256, (2 * half_height, 2 * half_width), np.uint8)
    chroma = random.integers(0, 256, (half_height, half_width, 2), np.uint8)
    u, v = (0, 1) if encoding == "nv12" else (1, 0)
    expected = [
        [
            yuv_to_bgr(int(luma[y, x]), *(int(chroma[y // 2, x // 2, part]) for part in (u, v)))
            for x in range(len(row))
        ]
        for y, row in enumerate(luma)
    ]
    rows = [row.tobytes() for row in luma] + [row.tobytes() for row in chroma]
    image = image_to_bgr(make(encoding, 2 * half_height, 2 * half_width, rows, pad))
    assert np.abs(image - np.array(expected)).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@given(
    height=st.integers(5, 9), width=st.integers(5, 9), pad=st.integers(0, 3), big=st.booleans(), seed=seeds
)
@settings(max_examples=10, deadline=None)
def test_bayer_inside_the_border(
    pattern: str, bits: int, height: int, width: int, pad: int, big: bool, seed: int
) -> None:
    """Bilinear: a sample stays where it is, the other colours are the mean of their nearest samples."""
    scale = 1 if bits == 8 else 257
    mosaic = np.random.default_rng(seed).integers(0, 256, (height, width)) * scale
    order = ">" if big else "<"
    rows = [struct.pack(f"{order}{width}{'B' if bits == 8 else 'H'}", *row) for row in mosaic.tolist()]
    image = image_to_bgr(make(f"bayer_{pattern}{bits}", height, width, rows, 2 * pad, big))
    assert image.shape == (height, width, 3)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            for channel, colour in enumerate("bgr"):
                here = pattern[2 * (y % 2) + x % 2]
                samples = [(0, 0)] if here == colour else []
                for reach in (((0, 1), (0, -1), (1, 0), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1))):
                    samples = samples or [
                        (dy, dx) for dy, dx in reach if pattern[2 * ((y + dy) % 2) + (x + dx) % 2] == colour
                    ]
                mean = np.mean([mosaic[y + dy, x + dx] for dy, dx in samples]) / scale
                assert abs(image[y, x, channel] - mean) <= 1, (y, x, colour)


@given(height=sizes, width=sizes, pad=st.integers(0, 3), big=st.booleans(), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_depth_in_millimetres(height: int, width: int, pad: int, big: bool, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 5, (height, width)) * 1234
    rows = [struct.pack(f"{'>' if big else '<'}{width}H", *row) for row in values.tolist()]
    depth = depth_to_metres(make("16UC1", height, width, rows, 2 * pad, big))
    assert depth.dtype == np.float32
    for metres, millimetres in zip(depth.ravel(), values.ravel(), strict=True):
        assert np.isnan(metres) if millimetres == 0 else abs(metres - millimetres / 1000) < 1e-6


def test_depth_in_metres_keeps_only_what_was_measured() -> None:
    values = np.array([[1.5, 0.0, -1.0], [np.nan, np.inf, 0.25]], np.float32)
    depth = depth_to_metres(make("32FC1", 2, 3, [row.tobytes() for row in values]))
    np.testing.assert_array_equal(
        depth, np.array([[1.5, np.nan, np.nan], [np.nan, np.nan, 0.25]], np.float32)
    )


def test_depth_of_a_colour_image_is_refused() -> None:
    with pytest.raises(FrameError) as caught:
        depth_to_metres(make("bgr8", 1, 1, [b"abc"]))
    assert caught.value.kind == "depth_encoding"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("encoding", make("bgr7", 1, 1, [b"abc"])),
        ("encoding", make("", 1, 1, [b"abc"])),
        ("size", make("bgr8", 0, 1, [b"abc"])),
        ("size", make("bgr8", 1, 0, [b"abc"])),
        ("size", Image(encoding="bgr8")),
        ("size", make("bgr8", 2, 1, [b"abc"])),
        ("size", make("bgr8", 1, 1, [b"abc"] * 2)),
        ("size", Image(height=2, width=2, encoding="bgr8", step=6)),
        ("step", Image(height=2, width=2, encoding="bgr8", step=5, data=b"0123456789")),
        ("step", Image(height=2, width=2, encoding="bgr8", step=0)),
        ("step", make("mono16", 1, 2, [b"abc"])),
        ("size", make("yuv422", 1, 3, [b"abcdef"])),
        ("size", make("nv12", 3, 2, [b"ab"] * 4)),
        ("size", make("bayer_rggb8", 2, 4, [b"abcd"] * 2)),
        ("nan", make("32FC1", 1, 2, [struct.pack("<2f", 0.5, float("nan"))])),
        ("range", make("32FC1", 1, 2, [struct.pack("<2f", 0.5, 3.0)])),
        ("empty", CompressedImage(format="jpeg")),
        ("format", CompressedImage(format="jpeg", data=b"\0\0\0\x18ftypavif")),
        ("format", CompressedImage(format="jpeg", data=b"\xff\xd8\xff nothing \xff\xda of it \xff\xd9")),
    ],
)
def test_bad_frames_are_refused_with_their_kind(kind: str, message: Image | CompressedImage) -> None:
    with pytest.raises(FrameError) as caught:
        image_to_bgr(message)
    assert caught.value.kind == kind


def smooth(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, y * 6, 255 - x * 4], axis=-1).astype(np.uint8)


def test_png_comes_back_exactly_and_jpeg_nearly() -> None:
    image = smooth()
    png = CompressedImage(format="bgr8; png compressed bgr8", data=cv2.imencode(".png", image)[1].tobytes())
    np.testing.assert_array_equal(image_to_bgr(png), image)
    jpeg = bgr_to_jpeg(image, Header(frame_id="camera"), 95)
    assert jpeg.header.frame_id == "camera"
    assert np.abs(image_to_bgr(jpeg).astype(int) - image).mean() < 3


def test_grey_jpeg_becomes_three_channels() -> None:
    data = cv2.imencode(".jpg", np.full((8, 8), 100, np.uint8))[1].tobytes()
    assert (
        np.abs(
            image_to_bgr(CompressedImage(format="mono8; jpeg compressed", data=data)).astype(int) - 100
        ).max()
        <= 2
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_torn_files_are_refused(suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    with pytest.raises(FrameError) as caught:
        image_to_bgr(CompressedImage(format="jpeg", data=data[: int(len(data) * share)]))
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_that_is_too_large_is_refused_by_its_header(suffix: str, monkeypatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)  # it must not come to that
    data = cv2.imencode(suffix, np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    assert picture_size(data) == (60, 40)
    for message in (CompressedImage(format="x", data=data), make("bgr8", 40, 60, [bytes(180)] * 40)):
        with pytest.raises(FrameError, match=r"60x40: expected at most 0\.002 megapixels") as caught:
            image_to_bgr(message, 0.002)
        assert caught.value.kind == "too_large"


def test_a_refusal_quotes_little_of_what_came() -> None:
    with pytest.raises(FrameError) as caught:
        image_to_bgr(make("x" * 100_000, 1, 1, [b"abc"]))
    assert len(str(caught.value)) < 1000


def test_padding_after_a_jpeg_is_harmless() -> None:
    data = cv2.imencode(".jpg", smooth())[1].tobytes()
    assert image_to_bgr(CompressedImage(format="jpeg", data=data + bytes(64))).shape == (40, 60, 3)


@given(height=sizes, width=sizes, seed=seeds)
@settings(max_examples=25, deadline=None)
def test_to_message_and_back(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    header = Header(frame_id="camera")
    message = bgr_to_image(image[:, ::-1], header)
    assert (message.header, message.step, message.encoding) == (header, 3 * width, "bgr8")
    np.testing.assert_array_equal(image_to_bgr(message), image[:, ::-1])


@given(st.integers(0, 2**31 - 1), st.integers(0, 999_999_999))
def test_stamps_survive_to_the_microsecond(sec: int, nanosec: int) -> None:
    stamp = seconds_to_stamp(sec + nanosec * 1e-9)
    assert abs(stamp_to_seconds(stamp) - (sec + nanosec * 1e-9)) < 1e-6


@pytest.mark.parametrize("unknown", [0.0, -1.0, float("nan")])
def test_unknown_time_is_zero(unknown: float) -> None:
    assert stamp_to_seconds(seconds_to_stamp(unknown)) == 0


@pytest.mark.parametrize("late", [2.0**31, 1e12, float("inf")])
def test_time_beyond_what_a_message_holds_is_its_last_second(late: float) -> None:
    assert seconds_to_stamp(late).sec == 2**31 - 1


def load_trusted_bridge() -> tuple[Any | None, str]:
    """Return (a CvBridge that passed the self-test, "") or (None, the reason why there is none).

    The port of cv_bridge on PyPI silently corrupts 16UC1 images and padded rows, and the builds of
    the distributions break with newer numpy.
    """
    try:
        bridge = importlib.import_module("cv_bridge").CvBridge()
    except (ImportError, AttributeError) as error:  # built for another numpy: AttributeError at import
        return None, f"cv_bridge cannot be imported: {error}"
    try:
        return (bridge, "") if bridge_passes(bridge) else (None, "cv_bridge corrupts 16UC1 or padded images")
    except Exception as error:  # foreign code under test; the reason is handed on
        return None, f"cv_bridge fails its self-test: {error}"


def bridge_passes(bridge: Any) -> bool:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    rows = np.zeros((3, 10), np.uint8)
    rows[:, :8] = depth.view(np.uint8)
    padded = Image(height=3, width=4, encoding="16UC1", step=10, data=rows.tobytes())
    plain = Image(height=3, width=4, encoding="16UC1", step=8, data=depth.tobytes())
    return all(np.array_equal(bridge.imgmsg_to_cv2(message), depth) for message in (padded, plain))


def test_agrees_with_cv_bridge_where_that_is_sound() -> None:
    bridge, reason = load_trusted_bridge()
    if bridge is None:
        pytest.skip(reason)
    random = np.random.default_rng(0)
    for encoding, layout in LAYOUTS.items():
        if encoding.endswith(("8", "16")) and not encoding.startswith("nv"):
            samples = random.integers(0, 256, (6, 8, layout.channels)).astype(layout.dtype)
            message = make(encoding, 6, 8, [row.tobytes() for row in samples])
            theirs = bridge.imgmsg_to_cv2(message, "bgr8")
            assert np.abs(image_to_bgr(message).astype(int) - theirs).max() <= 1, encoding

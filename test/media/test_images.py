"""Pictures that cannot be decoded, or not quite: what the libraries say of them stays out of the log."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.common.errors import FrameError, SourceError
from face_recognition_node.media import images
from face_recognition_node.media.images import decode_picture, read_image
from face_recognition_node.media.pixels import compressed_to_bgr


class Message:
    format = "jpeg"

    def __init__(self, data: bytes) -> None:
        self.data = data


def encoded(extension: str) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return cv2.imencode(extension, picture)[1].tobytes()


def jpeg_with_extra_bytes() -> bytes:
    data = encoded(".jpg")
    return data[:-2] + bytes(92) + data[-2:]


def png_with_a_wrong_checksum() -> bytes:
    data = bytearray(encoded(".png"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def test_a_jpeg_with_extra_bytes_is_decoded_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    data = jpeg_with_extra_bytes()
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert "extraneous bytes" in capfd.readouterr().err, "libjpeg says something of such a picture"
    assert compressed_to_bgr(Message(data)).shape == (60, 80, 3)
    assert capfd.readouterr().err == ""


def test_what_libpng_says_is_in_the_error_and_not_in_the_log(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = png_with_a_wrong_checksum()
    with pytest.raises(FrameError, match="cannot be decoded"):
        compressed_to_bgr(Message(data))
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="cannot decode"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_what_others_write_meanwhile_is_passed_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = images._imdecode

    def slow(data: bytes, flags: int) -> object:
        other = threading.Thread(target=os.write, args=(2, b"[INFO] [1.0] [node]: active\n"))
        other.start()
        other.join()
        return decode(data, flags)

    monkeypatch.setattr(images, "_imdecode", slow)
    for _ in range(3):
        decode_picture(jpeg_with_extra_bytes(), cv2.IMREAD_COLOR)
    assert capfd.readouterr().err == "[INFO] [1.0] [node]: active\n" * 3


def test_avif_is_read_whole(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif", reason="needs ./run setup heif")
    pillow = pytest.importorskip("PIL.Image")
    if not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    picture = np.zeros((600, 800, 3), np.uint8)
    picture[:, 400:] = (255, 0, 0)  # RGB; larger than one tile of a phone's HEIC
    pillow.fromarray(picture).save(tmp_path / "two.avif")
    read = read_image(tmp_path / "two.avif")
    assert read.shape == (600, 800, 3)
    assert read[300, 790, 2] > 240
    assert read[300, 10].max() < 15

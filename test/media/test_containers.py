"""Containers with several video streams: the best one is read and named, and a cover is no video."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.common.errors import SourceError
from face_recognition_node.media.containers import best_stream, video_streams
from face_recognition_node.media.sources import open_source

SMALL, LARGE = (64, 48), (320, 240)


def write_streams(path: Path, *streams: tuple[tuple[int, int], int], sound: str = "") -> None:
    """Write a recording of 10 Hz with video streams of a (width, height) and a number of pictures each.

    The pictures of stream n are plain and of the level 40 + 60 n.
    """
    av = pytest.importorskip("av", reason="needs PyAV to write several streams: requirements/test.txt")
    with av.open(str(path), "w") as container:
        opened = []
        for size, _ in streams:
            stream = container.add_stream("mjpeg" if sound else "mpeg4", rate=10)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if sound else "yuv420p"
            opened.append(stream)
        music = container.add_stream(sound, rate=44100) if sound else None
        for number, (stream, ((width, height), count)) in enumerate(zip(opened, streams, strict=True)):
            if sound:
                stream.disposition = av.stream.Disposition.attached_pic
            image = np.full((height, width, 3), 40 + 60 * number, np.uint8)
            for _ in range(count):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        if music is not None:
            for index in range(100):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), "s16", "stereo")
                block.sample_rate, block.pts = 44100, 1152 * index
                container.mux(music.encode(block))
            container.mux(music.encode())
        for stream in opened:
            container.mux(stream.encode())


def level(image: np.ndarray) -> int:
    return round(float(image.mean()), -1)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("sizes", "best"), [((SMALL, LARGE), 1), ((LARGE, SMALL), 0), ((SMALL, LARGE, SMALL, LARGE), 1)]
)
def test_the_largest_stream_is_read_and_named(
    tmp_path: Path,
    suffix: str,
    sizes: tuple[tuple[int, int], ...],
    best: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / f"a, b:c;'ü %20.{suffix}"
    write_streams(path, *((size, 10) for size in sizes))
    assert [(found.width, found.height) for found in video_streams(path)] == list(sizes)
    source = open_source(str(path))
    (message,) = caplog.messages
    assert f"{len(sizes)} video streams (" in message
    assert f"number {best + 1} is read" in message
    for _ in range(2):
        frames = list(source)
        assert {frame.image_bgr.shape for frame in frames} == {(240, 320, 3)}
        assert {level(frame.image_bgr) for frame in frames} == {40 + 60 * best}
        assert [frame.stamp for frame in frames] == pytest.approx(np.arange(10) / 10, abs=2e-3)
    assert source.name == str(path)


def test_one_stream_is_opened_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_streams(tmp_path / "one.mp4", (SMALL, 10))
    assert best_stream(tmp_path / "one.mp4") == str(tmp_path / "one.mp4")
    assert not caplog.messages


def test_a_thumbnail_is_not_preferred_for_its_size(tmp_path: Path) -> None:
    write_streams(tmp_path / "thumbnail.mp4", (LARGE, 1), (SMALL, 10))
    assert [frame.image_bgr.shape for frame in open_source(str(tmp_path / "thumbnail.mp4"))] == [
        (48, 64, 3)
    ] * 10


@pytest.mark.parametrize(("name", "codec"), [("song.flac", "flac"), ("thumbnail.mkv", "")])
def test_a_cover_is_not_taken_for_a_video(tmp_path: Path, name: str, codec: str) -> None:
    streams = [(LARGE, 1)] if codec else [(LARGE, 1), (SMALL, 30)]
    write_streams(tmp_path / name, *streams, sound=codec)
    with pytest.raises(SourceError, match=r"one picture where \d+ are stated.*-map 0:v:1"):
        open_source(str(tmp_path / name))


def test_a_video_of_one_picture_is_one(tmp_path: Path) -> None:
    write_streams(tmp_path / "one.mp4", (SMALL, 1))
    assert len(list(open_source(str(tmp_path / "one.mp4")))) == 1


def test_a_path_that_cannot_be_part_of_a_url_is_refused(tmp_path: Path) -> None:
    write_streams(tmp_path / "a|b.mkv", (SMALL, 10), (LARGE, 10))
    with pytest.raises(SourceError, match=r"without '\|'.*rename"):
        open_source(str(tmp_path / "a|b.mkv"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_damaged_headers_raise_nothing(tmp_path: Path, suffix: str) -> None:
    whole, damaged = tmp_path / f"whole.{suffix}", tmp_path / f"damaged.{suffix}"
    write_streams(whole, (SMALL, 3), (LARGE, 3))
    data = whole.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(500):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 20):
            changed[place] = random.choice([0, 1, 8, 0x7F, 0x81, 0xFF])
        damaged.write_bytes(bytes(changed[: random.integers(1, len(data))]))
        video_streams(damaged)


def test_a_pipe_is_not_looked_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert video_streams(tmp_path / "pipe.mp4") == []  # and does not wait for its writer


def test_other_files_have_no_streams_to_choose_from(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, SMALL)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert video_streams(path) == []
    assert video_streams(tmp_path / "missing.mp4") == []

"""Sources: order, timing, colours, and errors that tell the cure."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.common.errors import SourceError
from face_recognition_node.media.images import picture_size, read_image
from face_recognition_node.media.sources import FOLDER_RATE_HZ, _Clock, natural_key, open_source
from face_recognition_node.media.writer import VideoWriter


def plain(level: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def test_folder_is_played_in_natural_order_and_other_files_are_left_out(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"view{number}.png"), plain(number))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "older").mkdir()
    (tmp_path / ".hidden.png").write_text("no picture, and nobody's business")
    source = open_source(str(tmp_path))
    frames = list(source)
    assert [int(frame.image_bgr[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert source.n_frames == 3
    assert [Path(text.split(":")[0]).name for text in source.problems] == ["notes.txt", "older"]
    assert [frame.stamp for frame in frames] == pytest.approx([0, 1 / FOLDER_RATE_HZ, 2 / FOLDER_RATE_HZ])
    assert [frame.stamp for frame in open_source(str(tmp_path), rate=2)] == [0, 0.5, 1.0]


def test_natural_key_orders_numbers_by_value() -> None:
    names = ["b1", "a10", "a2", "A1", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "A1", "a2", "a10", "b1"]


def test_image_is_one_frame_in_bgr(tmp_path: Path) -> None:
    blue = np.zeros((20, 30, 3), np.uint8)
    blue[..., 0] = 255
    cv2.imwrite(str(tmp_path / "blau ü.png"), blue)
    source = open_source(str(tmp_path / "blau ü.png"))
    (frame,) = source
    assert np.array_equal(frame.image_bgr, blue)
    assert (source.n_frames, frame.stamp, source.is_live) == (1, 0.0, False)


def test_video_keeps_its_timing_and_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "ramp.avi"
    with VideoWriter(path, rate=12.5) as writer:
        for level in range(0, 200, 20):
            writer.write(plain(level))
    source = open_source(str(path))
    assert source.rate_hz == pytest.approx(12.5)
    for _ in range(2):
        frames = list(source)
        assert len(frames) == 10
        assert [frame.stamp for frame in frames] == pytest.approx(np.arange(10) / 12.5, abs=2e-3)
        levels = [float(frame.image_bgr.mean()) for frame in frames]
        assert levels == pytest.approx(list(range(0, 200, 20)), abs=4)
    assert [frame.stamp for frame in open_source(str(path), rate=50)] == pytest.approx(np.arange(10) / 50)


@pytest.mark.parametrize("name", ["2026-01-17T20:15.avi", "file:a.avi", "concat:a|b.avi", "%03d.avi"])
def test_a_relative_name_with_a_colon_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter(name, rate=10) as writer:
        writer.write(plain(100))
        writer.write(plain(100))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    source = open_source(name)
    assert (source.name, len(list(source))) == (name, 2)


def test_a_recording_behind_a_url_is_a_recording(clips: Path) -> None:
    by_path, by_url = open_source(str(clips / "eat.mkv")), open_source((clips / "eat.mkv").as_uri())
    assert (by_url.is_live, by_url.n_frames) == (False, by_path.n_frames)
    assert [frame.stamp for frame in by_url] == [frame.stamp for frame in by_path]


def test_between_cuts_by_time_and_keeps_stamps(tmp_path: Path) -> None:
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"{number}.png"), plain(number))
    part = open_source(str(tmp_path)).between(0.5, 1.2)
    assert [int(frame.image_bgr[0, 0, 0]) for frame in part] == list(range(5, 12))
    assert next(iter(part)).stamp == pytest.approx(0.5)
    assert part.n_frames == 7
    assert open_source(str(tmp_path)).between(5.0).n_frames == 0
    assert list(open_source(str(tmp_path)).between(5.0)) == []
    for start, end in ((-1, None), (2, 1), (1, 1)):
        with pytest.raises(SourceError, match="start"):
            open_source(str(tmp_path)).between(start, end)


def test_gif_frames_agree_with_pillow_in_number_colour_and_time(clips: Path) -> None:
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is the independent reader here")
    path = clips / "head-pose-face-detection-female.gif"
    frames = list(open_source(str(path)))
    reference = image_module.open(path)
    assert len(frames) == reference.n_frames == 23
    elapsed = 0.0
    for index, frame in enumerate(frames):
        reference.seek(index)
        rgb = np.asarray(reference.convert("RGB")).astype(int)
        assert np.abs(frame.image_bgr[..., ::-1] - rgb).mean() < 0.5
        assert frame.stamp == pytest.approx(elapsed / 1000, abs=0.011)
        elapsed += reference.info["duration"]


def test_mkv_clips_have_rising_stamps_that_start_at_zero(clips: Path) -> None:
    stamps = [frame.stamp for frame in open_source(str(clips / "eat.mkv"))]
    assert len(stamps) == 47
    assert stamps[0] == 0
    assert np.diff(stamps).min() > 0
    assert stamps[-1] == pytest.approx(46 / 30, abs=0.05)


def test_clock_fills_in_times_that_a_container_does_not_tell() -> None:
    clock = _Clock(10.0, None)
    assert [clock.stamp(0.0) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])
    clock = _Clock(10.0, None)
    assert [clock.stamp(time) for time in (5.0, 5.04, 5.04, 5.5)] == pytest.approx([0, 0.04, 0.14, 0.5])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.mp4", None, "no such file or folder"),
        ("empty.png", b"", "expected an image"),
        ("broken.jpg", b"\xff\xd8 not a jpeg", "expected an image"),
        ("broken.mp4", b"not a video at all", "FFmpeg"),
    ],
)
def test_unreadable_sources_say_what_was_expected(
    tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=expected) as caught:
        open_source(str(tmp_path / name))
    assert name in str(caught.value)


def test_other_errors_of_sources(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images in this folder"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match="rate"):
        open_source(str(tmp_path), rate=0)
    with pytest.raises(SourceError, match="plugged in"):
        open_source("97")
    with pytest.raises(SourceError, match="cannot be read"):
        read_image(tmp_path / "nothing.png")


def test_a_folder_named_by_digits_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    cv2.imwrite(str(tmp_path / "7" / "a.png"), plain(1))
    monkeypatch.chdir(tmp_path)
    assert open_source("7").n_frames == 1


@pytest.fixture
def inputs() -> Path:
    """Return the folder of broken and unusual files (never part of the project), or skip."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("FACE_RECOGNITION_INPUTS") or root.parent / "shared" / "inputs")
    if not folder.is_dir():
        pytest.skip(f"no inputs at {folder}: set FACE_RECOGNITION_INPUTS")
    return folder


def test_one_picture_that_cannot_be_decoded_is_not_the_end(inputs: Path) -> None:
    source = open_source(str(inputs / "one_bad_frame.ts"))
    n_read = len(list(source))
    assert n_read >= 59, "FFmpeg drops up to two more pictures that refer to the bad one; 23 come before it"
    assert len(source.problems) == 1
    assert "1 picture(s) before 2.00 s" in source.problems[0]
    assert len(list(source)) == n_read
    assert len(source.problems) == 1, "counted anew each time"


def test_a_recording_that_was_not_copied_whole_says_so(clips: Path, tmp_path: Path) -> None:
    whole = (clips / "eat.mkv").read_bytes()
    (tmp_path / "part.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    source = open_source(str(tmp_path / "part.mkv"))
    for _ in range(2):
        assert 10 < len(list(source)) < 40
        (problem,) = source.problems
        assert "s of 1.57 s; was it copied whole?" in problem
    source = open_source(str(clips / "eat.mkv"))
    assert len(list(source)) == 47
    assert source.problems == []


@pytest.mark.parametrize("name", ["gigapixel.png", "bomb_1bit_32000.png", "bomb_sof_16000.jpg"])
def test_a_decompression_bomb_is_refused_by_its_header(
    inputs: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(SourceError, match="megapixels"):
        open_source(str(inputs / name))


@pytest.mark.slow
def test_heic_is_read_whole_under_any_name(inputs: Path) -> None:
    pytest.importorskip("pillow_heif", reason="HEIC is read by pillow-heif: requirements/heif.txt")
    (whole,) = open_source(str(inputs / "phone_two_grid.heic"))
    jpeg = read_image(inputs / "phone_two.jpg")
    assert whole.image_bgr.shape == jpeg.shape == (2048, 1536, 3), "not one tile of 512x512"
    assert np.abs(whole.image_bgr.astype(int) - jpeg).mean() < 1
    assert len(list(open_source(str(inputs / "heic_named.jpg")))) == 1


def test_heic_that_cannot_be_read_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x1cftypheic" + bytes(20))
    with pytest.raises(SourceError, match=r"none of 1 images.*HEIC.*pillow-heif"):
        list(open_source(str(tmp_path)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(SourceError, match=r"IMG_1.*HEIC.*pip install pillow-heif"):
        open_source(str(tmp_path / "IMG_1.HEIC"))


def test_a_turned_video_comes_upright(inputs: Path) -> None:
    frame = next(iter(open_source(str(inputs / "rot90meta.mp4"))))
    assert frame.image_bgr.shape == (270, 480, 3)
    skin = frame.image_bgr[90:110, 225:275].mean(axis=(0, 1))  # the face is in the upper half
    shirt = frame.image_bgr[230:260, 225:275].mean(axis=(0, 1))
    assert skin[2] > skin[0] + 20
    assert shirt[0] > shirt[2] + 20


@pytest.mark.slow
def test_a_network_that_hangs_can_be_interrupted() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()  # takes the connection, and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/live"
        script = (
            f"from face_recognition_node.cli import main; import sys; sys.exit(main(['recognize', '{url}']))"
        )
        with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as child:
            server.settimeout(60)
            connection, _ = server.accept()
            child.send_signal(signal.SIGINT)
            try:
                assert child.wait(20) == 130  # OpenCV itself gives up after 30 s
            finally:
                child.kill()
                connection.close()


def test_half_a_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 255, (80, 80, 3), np.uint8))
    assert read_image(path).shape == (80, 80, 3)
    whole = path.read_bytes()
    path.write_bytes(whole + b"padding that some cameras add")
    assert read_image(path).shape == (80, 80, 3)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="breaks off"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"])
def test_size_and_kind_are_read_from_the_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    cv2.imwrite(str(path), plain(90, (33, 47)))
    assert picture_size(path.read_bytes()) == (47, 33)
    path = path.rename(tmp_path / "without an ending")
    assert [frame.image_bgr.shape for frame in open_source(str(path))] == [(33, 47, 3)]


def write_two_streams(path: Path, levels: tuple[int, int], n_frames: int = 5) -> None:
    """Write an AVI (RIFF) with two video streams of plain pictures, their frames by turns."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    def stream(number: int) -> bytes:
        header = struct.pack("<4s4sIIIIIIII", b"vids", b"MJPG", 0, 0, 0, 1, 10, 0, n_frames, 1 << 16)
        shape = struct.pack("<IiiHH4sIiiII", 40, 48, 32, 1, 24, b"MJPG", 48 * 32 * 3, 0, 0, 0, 0)
        parts = chunk(b"strh", header + bytes(16)) + chunk(b"strf", shape)
        return chunk(b"LIST", b"strl" + parts)

    pictures = [cv2.imencode(".jpg", plain(level))[1].tobytes() for level in levels]
    frames = n_frames * b"".join(chunk(b"%02ddc" % number, data) for number, data in enumerate(pictures))
    main = struct.pack("<IIIIIIIIII", 100_000, 0, 0, 0, n_frames, 0, 2, 1 << 16, 48, 32) + bytes(16)
    head = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + stream(0) + stream(1))
    path.write_bytes(chunk(b"RIFF", b"AVI " + head + chunk(b"LIST", b"movi" + frames)))


@pytest.mark.parametrize("levels", [(60, 200), (200, 60)])
def test_of_several_video_streams_the_first_is_read(tmp_path: Path, levels: tuple[int, int]) -> None:
    write_two_streams(tmp_path / "two.avi", levels)
    frames = list(open_source(str(tmp_path / "two.avi")))
    assert [round(float(frame.image_bgr.mean()), -1) for frame in frames] == [levels[0]] * 5


def test_pixels_that_are_not_square_are_widened(inputs: Path) -> None:
    frame = next(iter(open_source(str(inputs / "sar_pal64_45.mkv"))))
    assert frame.image_bgr.shape == (270, round(336 * 64 / 45), 3)


def test_a_folder_goes_on_after_a_bad_file_and_names_it(tmp_path: Path) -> None:
    for number in (1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), plain(number))
    (tmp_path / "2.jpg").write_bytes(b"no picture")
    (tmp_path / "._1.png").write_bytes(b"what macOS leaves on a stick")
    source = open_source(str(tmp_path))
    assert [int(frame.image_bgr[0, 0, 0]) for frame in source] == [1, 3]
    assert len(source.problems) == 1
    assert "2.jpg" in source.problems[0]
    for number in (1, 3):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(SourceError, match="none of 1 images can be read"):
        list(open_source(str(tmp_path)))


@pytest.mark.parametrize(
    "text", ["", " ", "a\0b", "\udcff.mp4", "rtsp://h/\udcff", "~nobody-here/a.mp4", "/dev/null", "\u00b2"]
)
def test_what_cannot_be_a_source_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("start", "end"), [(float("nan"), None), (0.0, float("nan")), (float("inf"), None)])
def test_a_part_between_times_that_are_no_numbers_is_refused(start: float, end: float | None) -> None:
    with pytest.raises(SourceError):
        open_source("sample").between(start, end)


@pytest.mark.parametrize("name", ["~nobody-here/a.mp4", "a\0.mp4", "\udcff.mp4", "folder.mp4"])
def test_what_cannot_be_written_to_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(SourceError):
        VideoWriter(name if name.startswith("~") else f"{tmp_path}/{name}", 10)

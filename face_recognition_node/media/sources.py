"""Open whatever has pictures in it as a stream of frames: camera, video, gif, image, folder, bag, the sample.

Stamps are seconds. Recorded material starts at 0 and follows the timing of its container, so that a gif of
12 Hz and a video of 30 Hz both replay in real time; bags keep the stamps of their messages, and cameras stamp
with the wall clock. Of several video streams the best is read in MP4 and Matroska, elsewhere the first.
"""

from __future__ import annotations

import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face_recognition_node.common.errors import SourceError
from face_recognition_node.common.files import require_plain_text, user_path
from face_recognition_node.media.bags import is_bag, open_bag
from face_recognition_node.media.containers import best_stream
from face_recognition_node.media.images import picture_kind, read_image
from face_recognition_node.media.sample import DURATION_S, RATE_HZ, SIZE, render
from face_recognition_node.vision.faces import Frame, ImageArray

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own lines would bury the one that matters

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FOLDER_RATE_HZ = 10.0  # rate at which a folder of pictures is played when nobody states one
_FALLBACK_RATE_HZ = 30.0
_MOST_MISSES = 30  # pictures in a row that a recording fails to give before that is taken for its end
_EXPECTED = (
    "expected a camera number (0), a video, a gif, an image, a folder of images, a ROS 2 bag, or 'sample'"
)


@dataclass(frozen=True)
class FrameSource:
    """Frames of one source; iterate over it, for recorded material as often as wanted."""

    name: str  # what it is, for people
    rate_hz: float
    # how many will come, as far as the container tells (it may be off by a few), or None
    n_frames: int | None
    is_live: bool  # true for cameras and network streams, which end only when they break
    frames: Callable[[], Iterator[Frame]]
    # A sentence for each part that could not be read; complete when the frames have ended
    problems: list[str] = field(default_factory=list)
    # stamp at which it begins, seconds; None for live sources, which say it with their first frame
    origin: float | None = 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the first one on."""
        return self.frames()

    def between(self, start: float = 0.0, end: float | None = None) -> FrameSource:
        """Return the part from ``start`` to before ``end``, seconds after the first frame; stamps stay."""
        if not 0 <= start < math.inf or (end is not None and not end > start):  # NaN is neither
            raise SourceError(f"expected 0 <= start < end in seconds, got start {start} and end {end}")
        if start == 0 and end is None:
            return self

        def part() -> Iterator[Frame]:
            first: float | None = None
            for frame in self.frames():
                first = frame.stamp if first is None else first
                elapsed = round(frame.stamp - first, 6)  # a float of today's clock knows no more
                if end is not None and elapsed >= end:
                    return
                if elapsed >= start:
                    yield frame

        length = None if self.n_frames is None else self.n_frames - round(start * self.rate_hz)
        if end is not None:
            wanted = round((end - start) * self.rate_hz)
            length = wanted if length is None else min(length, wanted)
        n_frames = None if length is None else max(length, 0)
        return replace(self, n_frames=n_frames, frames=part)

    def from_zero(self) -> FrameSource:
        """Return the same frames with stamps that begin at 0 where it is known when they begin."""
        origin = self.origin
        if not origin:
            return self

        def shifted() -> Iterator[Frame]:
            return (replace(frame, stamp=frame.stamp - origin) for frame in self.frames())

        return replace(self, frames=shifted, origin=0.0)


def open_source(
    text: str, *, rate: float | None = None, size: tuple[int, int] | None = None, topic: str = ""
) -> FrameSource:
    """Open a source by what a person would type.

    That is ``"0"`` or ``"/dev/video0"`` (camera), a URL, a path to a video, gif, image, folder of images or
    ROS 2 bag (``.mcap``, ``.db3``, folder; ``topic`` names the images where there are several), or
    ``"sample"``. The rate, in frames per second, replaces the container's timing; it and the (width, height)
    are asked of a camera.

    Raises:
        SourceError: If there is no such thing or it cannot be read.
    """
    if rate is not None and not 0 < rate < 1000:
        raise SourceError(f"rate: expected frames per second between 0 and 1000, got {rate}")
    require_plain_text(text, name="source", error=SourceError)
    if topic and not is_bag(user_path(text, name="source", error=SourceError)):
        raise SourceError(
            f"{text}: expected a ROS 2 bag, as a topic ({topic}) is named; mend the path, or leave it out"
        )
    if text == "sample":
        return sample_source(rate=rate, size=size)
    if is_url(text):
        return _open_capture(text, text, rate, is_live=None)
    if number := re.fullmatch(r"/dev/video([0-9]{1,4})", text):
        return _open_camera(int(number[1]), rate, size)
    path = user_path(text, name="source", error=SourceError)
    if re.fullmatch("[0-9]{1,4}", text) and not path.exists():
        return _open_camera(int(text), rate, size)
    if not path.exists():
        raise SourceError(f"{text!r}: no such file or folder; {_EXPECTED}")
    if is_bag(path):
        return _open_bag(path, rate, topic)
    if path.is_dir():
        return _open_folder(path, rate)
    if _is_picture(path):
        read_image(path)
        return FrameSource(
            str(path), rate or FOLDER_RATE_HZ, 1, False, lambda: iter([Frame(read_image(path), 0.0)])
        )
    return _open_capture(best_stream(path), str(path), rate, is_live=False)


def sample_source(*, rate: float | None = None, size: tuple[int, int] | None = None) -> FrameSource:
    """Return the sample as a source; ``rate`` samples the same twelve seconds more or less densely."""
    rate_hz = rate or RATE_HZ
    n_frames = math.ceil(DURATION_S * rate_hz)

    def frames() -> Iterator[Frame]:
        for index in range(n_frames):
            yield Frame(render(index / rate_hz, size or SIZE), index / rate_hz)

    return FrameSource("sample", rate_hz, n_frames, False, frames)


def is_url(text: str) -> bool:
    """Say whether a source is named by a URL, and not by a path."""
    return re.match(r"[a-z]+://", text) is not None


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``view2`` before ``view10``."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _is_picture(path: Path) -> bool:
    """Return whether a file is a picture, by its name or by its first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(256)
    except OSError:
        return False  # reading it will say so
    return picture_kind(head) != "" and path.suffix.lower() not in (".mjpg", ".mjpeg")


def _open_folder(folder: Path, rate: float | None) -> FrameSource:
    """Open the pictures of a folder; hidden files are left out, all else that is no picture is named."""
    visible = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")),
        key=lambda entry: natural_key(entry.name),
    )
    paths = [entry for entry in visible if entry.is_file() and _is_picture(entry)]
    skipped = [f"{entry}: skipped, no picture" for entry in visible if entry not in set(paths)]
    if not paths:
        raise SourceError(
            f"{folder}: no images in this folder and no ROS 2 bag (metadata.yaml, .mcap, .db3); expected "
            f"files ending in {sorted(IMAGE_SUFFIXES)}"
        )
    rate_hz = rate or FOLDER_RATE_HZ
    problems: list[str] = []

    def frames() -> Iterator[Frame]:
        problems[:] = skipped
        for index, path in enumerate(paths):
            try:
                image = read_image(path)
            except SourceError as error:
                problems.append(str(error))
                continue
            yield Frame(image, index / rate_hz)
        unreadable = problems[len(skipped) :]
        if len(unreadable) == len(paths):
            raise SourceError(
                f"{folder}: none of {len(paths)} images can be read; the first: {unreadable[0]}"
            )

    return FrameSource(str(folder), rate_hz, len(paths), False, frames, problems)


def _open_bag(path: Path, rate: float | None, topic: str) -> FrameSource:
    bag = open_bag(path, topic)
    problems: list[str] = []

    def frames() -> Iterator[Frame]:
        problems.clear()
        for index, frame in enumerate(bag.frames(problems)):
            yield frame if rate is None else replace(frame, stamp=bag.begin + index / rate)

    name = f"{path} {bag.topic}"
    return FrameSource(name, rate or bag.rate_hz, bag.n_images, False, frames, problems, bag.begin)


def _open_camera(number: int, rate: float | None, size: tuple[int, int] | None) -> FrameSource:
    wishes = {} if size is None else {cv2.CAP_PROP_FRAME_WIDTH: size[0], cv2.CAP_PROP_FRAME_HEIGHT: size[1]}
    if rate is not None:
        wishes[cv2.CAP_PROP_FPS] = int(rate)
    return _open_capture(number, f"camera {number}", rate, is_live=True, wishes=wishes)


def _open_capture(
    target: str | int,
    name: str,
    rate: float | None,
    *,
    is_live: bool | None,
    wishes: dict[int, int] | None = None,
) -> FrameSource:
    """Open a video file, a stream or a camera with OpenCV and look whether anything comes out.

    What lies behind a URL (``is_live`` None) is a recording if it has a length, and live if it has none.
    """
    patiently = _on_a_thread if is_live is None else _at_once

    def connect() -> cv2.VideoCapture:
        capture: cv2.VideoCapture = patiently(lambda: cv2.VideoCapture(target))
        for key, value in (wishes or {}).items():
            capture.set(key, value)
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # some versions turn the wrong way, or not at all
        if not capture.isOpened():
            raise SourceError(f"{name}: cannot be opened; {_cure(target)}")
        return capture

    first = connect()
    stated = first.get(cv2.CAP_PROP_FPS)
    count = int(first.get(cv2.CAP_PROP_FRAME_COUNT))
    is_live = count <= 0 if is_live is None else is_live
    if not is_live and not patiently(lambda: any(first.grab() for _ in range(_MOST_MISSES))):
        raise SourceError(f"{name}: holds no readable picture; {_cure(target)}")
    if not is_live and count > 1 and not patiently(lambda: any(first.grab() for _ in range(_MOST_MISSES))):
        raise SourceError(
            f"{name}: one picture where {count} are stated: a video that breaks off, or a sound file with a "
            "cover; of another stream in it, make a file: ffmpeg -i IN -map 0:v:1 -c copy OUT.mkv"
        )
    stretch = 1.0 if is_live else _pixel_aspect(first)
    turn = _clockwise_turn(first)
    first.release()
    problems: list[str] = []
    rate_hz = rate or (stated if 0.1 < stated < 1000 else _FALLBACK_RATE_HZ)
    length_s = count / stated if stated > 0 else 0.0

    def frames() -> Iterator[Frame]:
        capture = connect()
        clock = _Clock(rate_hz, None if rate is None else rate_hz)
        problems.clear()
        n_read = n_missed = 0
        begin_s = end_s = 0.0  # of the pictures, by the container's time
        is_reading = False
        try:
            while True:
                is_reading = True
                is_read, image = patiently(capture.read)
                is_reading = False
                if not is_read:
                    if is_live:
                        raise SourceError(
                            f"{name}: stopped delivering pictures; check the cable or the network"
                        )
                    n_missed += 1
                    if n_missed >= _MOST_MISSES:
                        shown_s = end_s - begin_s + 1 / rate_hz
                        if n_read < 0.9 * count and shown_s < 0.9 * length_s:
                            ends = f"the pictures end at {shown_s:.2f} s of {length_s:.2f} s"
                            problems.append(f"{name}: {ends}; was it copied whole?")
                        return
                    continue
                at_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                begin_s, end_s = (at_s, at_s) if n_read == 0 else (begin_s, max(end_s, at_s))
                n_read += 1
                stamp = time.time() if is_live else clock.stamp(at_s)
                if n_missed:
                    problems.append(f"{name}: {n_missed} picture(s) before {stamp:.2f} s cannot be decoded")
                    n_missed = 0
                upright = _with_square_pixels(_as_bgr(image), stretch)
                yield Frame(upright if turn is None else np.asarray(cv2.rotate(upright, turn)), stamp)
        finally:
            if not is_reading:  # interrupted: the thread that waits for the network has it
                capture.release()

    n_frames = count if count > 0 and not is_live else None
    return FrameSource(name, rate_hz, n_frames, is_live, frames, problems, None if is_live else 0.0)


def _at_once(call: Callable[[], Any]) -> Any:
    return call()


def _on_a_thread(call: Callable[[], Any]) -> Any:
    """Run a call that may wait for the network for long; the caller can be interrupted meanwhile."""
    outcomes: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((call(), None))
        except Exception as error:  # raised on the caller's thread
            outcomes.put((None, error))

    threading.Thread(target=run, name="network", daemon=True).start()
    outcome, error = outcomes.get()
    if error is not None:
        raise error
    return outcome


def _cure(target: str | int) -> str:
    if isinstance(target, int):
        return "is it plugged in, free, and may this user read /dev/video*? (Linux: group 'video')"
    return "is it a video that FFmpeg can decode? Convert it with: ffmpeg -i IN -c:v libx264 OUT.mp4"


def _pixel_aspect(capture: cv2.VideoCapture) -> float:
    """Return the width of a pixel over its height, as the container states it."""
    wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    aspect = wide / high if wide > 0 and high > 0 else 1.0
    return aspect if 0.25 <= aspect <= 4.0 else 1.0


def _clockwise_turn(capture: cv2.VideoCapture) -> int | None:
    """Return OpenCV's code of the turn that brings the pictures upright, or None."""
    if capture.get(cv2.CAP_PROP_ORIENTATION_AUTO) != 0:  # a backend that turns by itself
        return None
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    degrees = int(capture.get(cv2.CAP_PROP_ORIENTATION_META))
    if cv2.__version__.startswith("4.6."):  # states it counterclockwise, as no other version does
        degrees = -degrees
    return turns.get(degrees % 360)


def _with_square_pixels(image: ImageArray, aspect: float) -> ImageArray:
    """Return an image enlarged along one side so that its pixels are square."""
    if aspect == 1.0:
        return image
    wider, higher = max(aspect, 1.0), max(1.0 / aspect, 1.0)
    enlarged = cv2.resize(image, None, fx=wider, fy=higher, interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, np.uint8)


def _as_bgr(image: np.ndarray) -> ImageArray:
    """Return a captured image as BGR; some cameras deliver grey or BGRA."""
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    elif image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    return image.astype(np.uint8, copy=False)


class _Clock:
    """Turns a container's times into stamps that start at 0 and always rise.

    Some containers and older OpenCV versions report 0 or repeat a time; then the frame takes its nominal
    place after the one before.
    """

    def __init__(self, rate_hz: float, forced_rate_hz: float | None) -> None:
        self._step = 1 / rate_hz
        self._forced = forced_rate_hz
        self._origin: float | None = None
        self._last = -self._step
        self._index = -1

    def stamp(self, container_seconds: float) -> float:
        """Return the stamp of the next frame, whose container time is given."""
        self._index += 1
        if self._forced is not None:
            return self._index / self._forced
        if self._origin is None:
            self._origin = container_seconds
        place = container_seconds - self._origin
        self._last = place if place > self._last + 1e-4 else self._last + self._step
        return self._last

"""Open whatever has pictures in it as a stream of frames: camera, video, gif, image, folder, the sample.

Stamps are seconds. Recorded material starts at 0 and follows the timing of its container, so that a gif of
12 Hz and a video of 30 Hz both replay at the speed of life; cameras stamp with the wall clock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import SourceError
from face_recognition_node.vision.faces import Frame, ImageArray

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FOLDER_RATE_HZ = 10.0
"""Rate at which a folder of pictures is played when nobody states one."""
_FALLBACK_RATE_HZ = 30.0
_EXPECTED = "expected a camera number (0), a video, a gif, an image, a folder of images, or 'sample'"


@dataclass(frozen=True)
class FrameSource:
    """Frames of one source; iterate over it, for recorded material as often as wanted.

    Attributes:
        name: What it is, for people.
        rate_hz: Nominal frames per second.
        n_frames: How many will come, as far as the container tells (it may be off by a few), or None.
        is_live: True for cameras and network streams, which end only when they break.
        frames: Opens the source and yields its frames.
    """

    name: str
    rate_hz: float
    n_frames: int | None
    is_live: bool
    frames: Callable[[], Iterator[Frame]]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the first one on."""
        return self.frames()

    def between(self, start: float = 0.0, end: float | None = None) -> FrameSource:
        """Return the part from ``start`` to before ``end``, seconds after the first frame; stamps stay."""
        if start < 0 or (end is not None and end <= start):
            raise SourceError(f"expected 0 <= start < end in seconds, got start {start} and end {end}")
        if start == 0 and end is None:
            return self

        def part() -> Iterator[Frame]:
            first: float | None = None
            for frame in self.frames():
                first = frame.stamp if first is None else first
                if end is not None and frame.stamp - first >= end:
                    return
                if frame.stamp - first >= start:
                    yield frame

        length = None if self.n_frames is None else self.n_frames - round(start * self.rate_hz)
        if end is not None:
            wanted = round((end - start) * self.rate_hz)
            length = wanted if length is None else min(length, wanted)
        n_frames = None if length is None else max(length, 0)
        return FrameSource(self.name, self.rate_hz, n_frames, self.is_live, part)


def open_source(text: str, *, rate: float | None = None, size: tuple[int, int] | None = None) -> FrameSource:
    """Open a source by what a person would type.

    Args:
        text: ``"0"`` or ``"/dev/video0"`` (camera), a URL, a path to a video, gif, image or folder of
            images, or ``"sample"``.
        rate: Frames per second that replace the container's timing; asked of a camera.
        size: (width, height) in pixels asked of a camera or of the sample; recorded material keeps its own.

    Raises:
        SourceError: If there is no such thing or it cannot be read.
    """
    if rate is not None and not 0 < rate < 1000:
        raise SourceError(f"rate: expected frames per second between 0 and 1000, got {rate}")
    if text == "sample":
        from face_recognition_node.media.sample import sample_source

        return sample_source(rate=rate, size=size)
    if is_url(text):
        return _open_capture(text, text, rate, is_live=None)
    path = Path(text).expanduser()
    if text.isdigit() and not path.exists():
        return _open_camera(int(text), rate, size)
    if re.fullmatch(r"/dev/video\d+", text):
        return _open_camera(int(text.removeprefix("/dev/video")), rate, size)
    if path.is_dir():
        return _open_folder(path, rate)
    if not path.is_file():
        raise SourceError(f"{text!r}: no such file or folder; {_EXPECTED}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        read_image(path)
        return FrameSource(
            str(path), rate or FOLDER_RATE_HZ, 1, False, lambda: iter([Frame(read_image(path), 0.0)])
        )
    return _open_capture(str(path), str(path), rate, is_live=False)


def is_url(text: str) -> bool:
    """Say whether a source is named by a URL, and not by a path."""
    return re.match(r"[a-z]+://", text) is not None


def read_image(path: Path) -> ImageArray:
    """Return an image file as (H, W, 3) BGR uint8, turned upright as its EXIF says.

    Raises:
        SourceError: If the file cannot be read or is no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise SourceError(f"{path}: expected an image, got {data.size} bytes that OpenCV cannot decode")
    return image.astype(np.uint8, copy=False)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``view2`` before ``view10``."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _open_folder(folder: Path, rate: float | None) -> FrameSource:
    found = (
        entry for entry in folder.iterdir() if entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES
    )
    paths = sorted(found, key=lambda entry: natural_key(entry.name))
    if not paths:
        raise SourceError(
            f"{folder}: no images in this folder; expected files ending in {sorted(IMAGE_SUFFIXES)}"
        )
    rate_hz = rate or FOLDER_RATE_HZ

    def frames() -> Iterator[Frame]:
        for index, path in enumerate(paths):
            yield Frame(read_image(path), index / rate_hz)

    return FrameSource(str(folder), rate_hz, len(paths), False, frames)


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

    def connect() -> cv2.VideoCapture:
        capture = cv2.VideoCapture(target)
        for key, value in (wishes or {}).items():
            capture.set(key, value)
        if not capture.isOpened():
            raise SourceError(f"{name}: cannot be opened; {_cure(target)}")
        return capture

    first = connect()
    stated = first.get(cv2.CAP_PROP_FPS)
    count = int(first.get(cv2.CAP_PROP_FRAME_COUNT))
    is_live = count <= 0 if is_live is None else is_live
    if not is_live and not first.grab():
        raise SourceError(f"{name}: holds no readable picture; {_cure(target)}")
    first.release()
    rate_hz = rate or (stated if 0.1 < stated < 1000 else _FALLBACK_RATE_HZ)

    def frames() -> Iterator[Frame]:
        capture = connect()
        clock = _Clock(rate_hz, None if rate is None else rate_hz)
        try:
            while True:
                is_read, image = capture.read()
                if not is_read:
                    if is_live:
                        raise SourceError(
                            f"{name}: stopped delivering pictures; check the cable or the network"
                        )
                    return
                stamp = time.time() if is_live else clock.stamp(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                yield Frame(_as_bgr(image), stamp)
        finally:
            capture.release()

    return FrameSource(name, rate_hz, count if count > 0 and not is_live else None, is_live, frames)


def _cure(target: str | int) -> str:
    if isinstance(target, int):
        return "is it plugged in, free, and may this user read /dev/video*? (Linux: group 'video')"
    return "is it a video that FFmpeg can decode? Convert it with: ffmpeg -i IN -c:v libx264 OUT.mp4"


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

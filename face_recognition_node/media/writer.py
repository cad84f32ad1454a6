"""Write annotated frames to a video (or the latest one to an image), whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import cv2

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.common.files import user_path
from face_recognition_node.media.sources import IMAGE_SUFFIXES
from face_recognition_node.vision.faces import ImageArray, require_image

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""Codecs that every build of OpenCV with FFmpeg can write; players beside browsers read them all."""


class VideoWriter:
    """A video file that appears under its name when the ``with`` block ends, also after an interrupt.

    Args:
        path: ``.mp4``, ``.mkv`` or ``.avi``; a ``.png``, ``.jpg`` … keeps the latest frame alone.
        rate: Frames per second.

    Raises:
        SourceError: For another ending, a folder that is not there, or a codec that is missing.
        InputError: When a frame has another size than the first one.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        self.path = user_path(path, "file", name="video to write", error=SourceError)
        suffix = self.path.suffix.lower()
        if suffix not in CODECS and suffix not in IMAGE_SUFFIXES:
            endings = sorted(CODECS) + sorted(IMAGE_SUFFIXES)
            raise SourceError(f"{self.path}: expected a name ending in one of {endings}, got {suffix!r}")
        if not self.path.parent.is_dir():
            raise SourceError(f"{self.path}: the folder {self.path.parent} does not exist; create it first")
        if not 0 < rate < 1000:
            raise InputError(f"rate: expected frames per second between 0 and 1000, got {rate}")
        # MPEG-4 counts time in at most 65535 parts of a second, and OpenCV takes thousandths above 65 Hz
        self._rate = rate if rate < 65 else round(rate, 2 if rate < 655 else 0)
        self._partial = self.path.with_name(f".{self.path.stem}.partial{suffix}")
        self._partial.unlink(missing_ok=True)  # of a run that was killed
        self._video: cv2.VideoWriter | None = None
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels that frames must have, or None where any will do."""
        return None if self.path.suffix.lower() in IMAGE_SUFFIXES else self._size

    def write(self, image_bgr: ImageArray) -> None:
        """Append one (H, W, 3) BGR uint8 frame; all have the size of the first."""
        height, width = require_image(image_bgr).shape[:2]
        if self._size is None:
            self._size = (width, height)
        elif self._size != (width, height):
            raise InputError(
                f"{self.path}: expected frames of {self._size} pixels like the first, got {(width, height)}"
            )
        if self.path.suffix.lower() in IMAGE_SUFFIXES:
            if not cv2.imwrite(str(self._partial), image_bgr):
                raise SourceError(f"{self.path}: cannot be written; is the folder writable?")
            return
        if self._video is None:
            codec = CODECS[self.path.suffix.lower()]
            video = cv2.VideoWriter(
                str(self._partial),
                int.from_bytes(codec.encode(), "little"),
                self._rate,
                self._size,
            )
            if not video.isOpened():
                raise SourceError(
                    f"{self.path}: cannot be written; is the folder writable and OpenCV built with FFmpeg?"
                )
            self._video = video
        self._video.write(image_bgr)

    def close(self) -> None:
        """Finish the file and give it its name; without a frame there is no file."""
        if self._video is not None:
            self._video.release()
            self._video = None
            check = cv2.VideoCapture(str(self._partial))
            is_playable = check.grab()
            check.release()
            if not is_playable:
                self._partial.unlink(missing_ok=True)
                raise SourceError(
                    f"{self.path}: what was written cannot be played; is the disk full? Nothing was replaced"
                )
        if self._partial.exists():
            os.replace(self._partial, self.path)

    def __enter__(self) -> VideoWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, also after an interrupt; after an error leave an older one in its place."""
        if isinstance(error, Exception):
            if self._video is not None:
                self._video.release()
                self._video = None
            self._partial.unlink(missing_ok=True)
        self.close()

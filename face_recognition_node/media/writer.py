"""Write annotated frames to a video (or the latest one to an image), whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2

from face_recognition_node.common.closing import Closing
from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.common.files import PRIVATE, user_path
from face_recognition_node.media.sources import IMAGE_SUFFIXES
from face_recognition_node.vision.faces import ImageArray, require_image

# codecs that every build of OpenCV with FFmpeg can write; players beside browsers read them all
CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


def place_to_write(path: str | Path, endings: Sequence[str], name: str) -> Path:
    """Return where a recording goes; raise SourceError for another ending, or a folder that is not there."""
    place = user_path(path, "file", name=name, error=SourceError)
    if place.suffix.lower() not in endings:
        raise SourceError(f"{place}: expected a name ending in {', '.join(endings)}, got {place.suffix!r}")
    if not place.parent.is_dir():
        raise SourceError(f"{place}: the folder {place.parent} does not exist; create it first")
    return place


class VideoWriter(Closing):
    """A video file that appears under its name when the ``with`` block ends, also after an interrupt.

    A ``.png``, ``.jpg`` … keeps the latest frame alone.

    Raises:
        SourceError: For another ending, a folder that is not there, or a codec that is missing.
        InputError: When a frame has another size than the first one.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        self.path = place_to_write(path, [*sorted(CODECS), *sorted(IMAGE_SUFFIXES)], "video to write")
        suffix = self.path.suffix.lower()
        if not 0 < rate < 1000:
            raise InputError(f"rate: expected frames per second between 0 and 1000, got {rate}")
        # MPEG-4 counts time in at most 65535 parts of a second, and OpenCV takes thousandths above 65 Hz
        self._rate = rate if rate < 65 else round(rate, 2 if rate < 655 else 0)
        # absolute, or FFmpeg would take what is before a colon for a protocol: 2026-01-17T20:15.mp4
        self._partial = self.path.absolute().with_name(f".{self.path.stem}.partial{suffix}")
        self._partial.unlink(missing_ok=True)  # of a run that was killed
        self._video: cv2.VideoWriter | None = None
        self._size: tuple[int, int] | None = None
        self._n_written = 0

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
        if self._n_written == 0:
            os.close(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE))
        if self.path.suffix.lower() in IMAGE_SUFFIXES:
            if not cv2.imwrite(str(self._partial), image_bgr):
                raise SourceError(
                    f"{self.path}: cannot be written; is the folder writable, or the disk full?"
                )
        else:
            if self._video is None:
                self._video = self._open_video(self._size)
            self._video.write(image_bgr)
        self._n_written += 1

    def _open_video(self, size: tuple[int, int]) -> cv2.VideoWriter:
        codec = CODECS[self.path.suffix.lower()]
        video = cv2.VideoWriter(
            str(self._partial), int.from_bytes(codec.encode(), "little"), self._rate, size
        )
        if not video.isOpened():
            raise SourceError(
                f"{self.path}: cannot be written; is the folder writable and OpenCV built with FFmpeg?"
            )
        return video

    def close(self) -> None:
        """Finish the file, look whether it is whole, and give it its name; without a frame there is none."""
        try:
            if self._video is not None:
                self._video.release()
                self._video = None
            if self._n_written:
                self._require_whole()
                os.replace(self._partial, self.path)
        finally:
            self._discard()

    def _require_whole(self) -> None:
        """Raise SourceError unless all that was written can be read again: OpenCV reports no full disk."""
        if self.path.suffix.lower() in IMAGE_SUFFIXES:
            wanted, found = 1, int(cv2.imread(str(self._partial)) is not None)
        else:
            wanted, found = self._n_written, _count_pictures(self._partial)
        if found < wanted:
            free_mb = shutil.disk_usage(self._partial.parent).free / 1e6
            cause = "the disk is full" if free_mb < 1 else "is the disk full, or the quota?"
            raise SourceError(
                f"{self.path}: {found} of {wanted} pictures were written: {cause}; nothing was replaced"
            )

    def _discard(self) -> None:
        if self._video is not None:
            self._video.release()
            self._video = None
        self._partial.unlink(missing_ok=True)
        self._n_written = 0


def _count_pictures(path: Path) -> int:
    """Return how many pictures a video holds; they are not decoded."""
    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_FORMAT, -1)
        count = 0
        while capture.grab():
            count += 1
        return count
    finally:
        capture.release()

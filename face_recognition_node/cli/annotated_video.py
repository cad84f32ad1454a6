"""Records a topic of annotated images as a video that keeps the images' time."""

from __future__ import annotations

import queue
import threading
from types import TracebackType

from sensor_msgs.msg import Image

from face_recognition_node.media.pixels import image_to_bgr
from face_recognition_node.media.writer import VideoWriter
from face_recognition_node.ros.conversions import stamp_to_seconds

WAITING_IMAGES = 60
"""Images that may wait to be written; one more is left out, as one that never came."""


class AnnotatedVideo:
    """Writes image messages on a thread of its own, so that a slow disk delays nobody.

    Use it as a context manager; :meth:`take` may be called from any thread, also after its end.

    Args:
        path: As for VideoWriter.
        rate: Frames per second of the video.

    Raises:
        SourceError: The file cannot be written; told at the beginning, or at the end of the block.
        InputError: The images change their size; told at the end of the block.
    """

    def __init__(self, path: str, rate: float) -> None:
        self._writer = VideoWriter(path, rate)
        self._rate = rate
        self._waiting: queue.Queue[Image | None] = queue.Queue(WAITING_IMAGES)
        self._error: Exception | None = None
        self._first_stamp: float | None = None
        self._n_written = 0
        self._thread = threading.Thread(target=self._run, name="annotated video", daemon=True)

    def __enter__(self) -> AnnotatedVideo:
        """Start to write."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits and finish the file; raise what went wrong unless the block did already."""
        self._waiting.put(None)
        self._thread.join()
        self._writer.close()
        if self._error is not None and error is None:
            raise self._error

    def take(self, message: Image) -> None:
        """Take an image to be written; returns at once."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            return

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._write(message)
                except Exception as error:  # raised where the block ends, on the caller's thread
                    self._error = error

    def _write(self, message: Image) -> None:
        """Write an image as often as it takes to reach its time: it makes up for those that did not come."""
        stamp = stamp_to_seconds(message.header.stamp)
        if self._first_stamp is None:
            self._first_stamp = stamp
        image = image_to_bgr(message)
        wanted = round((stamp - self._first_stamp) * self._rate) + 1
        while self._n_written < wanted:
            self._writer.write(image)
            self._n_written += 1

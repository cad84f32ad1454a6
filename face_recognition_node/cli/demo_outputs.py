"""What ``demo`` shows of the node: identities and rate on the screen, annotated images as a video."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import Counter, deque
from typing import Any, TextIO

import numpy as np
from sensor_msgs.msg import Image

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.common.closing import Closing
from face_recognition_node.media.pixels import image_to_bgr
from face_recognition_node.media.writer import VideoWriter
from face_recognition_node.ros.messages import stamp_to_seconds

WAITING_IMAGES = 60  # images that may wait to be written; one more is left out, as one that never came
WINDOW_S = 3.0
QUIET_PERIOD_S = 3.0  # without a terminal the status line is printed this often
LIVE_PERIOD_S = 0.2


class Screen:
    """Prints lines, and below them a status line that is rewritten in place where there is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._lock = threading.Lock()
        self._status = ""
        self._next_status = 0.0

    def line(self, text: str) -> None:
        """Print a line above the status line."""
        with self._lock:
            self._stream.write(f"\r\x1b[K{text}\n{self._status}" if self._is_terminal else f"{text}\n")
            self._stream.flush()

    def status(self, text: str) -> None:
        """Show where things stand, if it is time for that."""
        now = time.monotonic()
        with self._lock:
            if now < self._next_status:
                return
            self._next_status = now + (LIVE_PERIOD_S if self._is_terminal else QUIET_PERIOD_S)
            if self._is_terminal:
                self._status = text
                self._stream.write(f"\r\x1b[K{text}")
            else:
                self._stream.write(f"{text}\n")
            self._stream.flush()

    def end(self) -> None:
        """Leave the status line standing."""
        with self._lock:
            if self._is_terminal and self._status:
                self._stream.write("\n")
            self._status = ""


class IdentityWatch:
    """Follows FaceArray messages; safe to feed from one thread and read from another."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._claims: dict[int, tuple[int, str, str]] = {}
        self._lock = threading.Lock()
        self._arrivals: deque[tuple[float, float]] = deque()
        self._first_stamp: float | None = None
        self._frames_of: Counter[str] = Counter()
        self.n_messages = 0
        self.latest: Any = None
        self.identified: dict[str, str] = {}  # person_id: name, or the id of a stranger

    def take(self, message: FaceArray) -> None:
        """Take one message."""
        stamp = stamp_to_seconds(message.header.stamp)
        now = time.monotonic()
        with self._lock:
            self.n_messages += 1
            self.latest = message
            self._first_stamp = stamp if self._first_stamp is None else self._first_stamp
            self._arrivals.append((now, time.time() - stamp))
            while self._arrivals[0][0] < now - WINDOW_S:
                self._arrivals.popleft()
        for face in message.faces:
            label = label_of(face)
            self._frames_of[label] += 1
            if face.person_id and face.identity_state != Face.UNDECIDED:
                self.identified[face.person_id] = label
            claim = (face.identity_state, face.person_id, face.name)
            if self._claims.get(face.track_id) != claim:
                before = self._claims.get(face.track_id)
                self._claims[face.track_id] = claim
                self._tell(face, before is None, stamp - self._first_stamp)

    def _tell(self, face: Any, is_new: bool, moment: float) -> None:
        what = f"{label_of(face)}" + (
            "" if face.identity_state == Face.UNDECIDED else f"  ({min(int(100 * face.probability), 99)} %)"
        )
        prefix = "new face" if is_new else "now"
        self._screen.line(f"{moment:7.2f} s  track {face.track_id:<3d} {prefix:>8}: {what}")

    def status(self) -> str:
        """Return the line of rate and latency."""
        with self._lock:
            arrivals, latest = list(self._arrivals), self.latest
        if len(arrivals) < 2 or latest is None:
            return "waiting for images …"
        length = max(arrivals[-1][0] - arrivals[0][0], 1e-3)
        p50, p95 = np.percentile([latency for _, latency in arrivals], [50, 95]) * 1000
        people = ", ".join(label_of(face) for face in latest.faces) or "nobody"
        return (
            f"   {(len(arrivals) - 1) / length:5.1f} images/s   latency {p50:.0f} ms (95 %: {p95:.0f} ms)   "
            f"in view: {people}"
        )

    def summary(self) -> str:
        """Return who was in view for how many images."""
        parts = [f"{label} in {count}" for label, count in self._frames_of.most_common()]
        return f"{self.n_messages} images answered; {', '.join(parts) or 'no face in any'}"


def label_of(face: Any) -> str:
    """Return a name, a stranger's id, or "undecided"."""
    is_decided = face.identity_state != Face.UNDECIDED
    return str(face.name or face.person_id or "stranger") if is_decided else "undecided"


class AnnotatedVideo(Closing):
    """Writes image messages on a thread of its own, so that a slow disk delays nobody.

    Use it as a context manager; :meth:`take` may be called from any thread, also after its end. The rate is
    the video's, in frames per second.

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
        self._thread.start()

    def close(self) -> None:
        """Write what waits and finish the file; raise what went wrong."""
        self._discard()
        if self._error is not None:
            raise self._error

    def _discard(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._writer.close()

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

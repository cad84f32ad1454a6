"""Threads beside the frames': one that writes to the disk, in order, and those that look now and then."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from face_recognition_node.common.closing import Closing

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class BackgroundWriter(Closing):
    """Runs pieces of work one after the other: those of strangers, adaptation and enrollments share it.

    If it is immediate, each piece runs at once on the caller's thread, so that the outcome does not depend on
    timing (a recording, a test); without it a frame never waits for the disk.
    """

    def __init__(self, *, is_immediate: bool = False) -> None:
        self._thread = None if is_immediate else ThreadPoolExecutor(1, thread_name_prefix="writer")

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run ``work`` when what was submitted before is done; the future holds its result or exception.

        An exception that nobody asks the future for is not lost: it is logged at debug level.

        Raises:
            RuntimeError: After :meth:`close`.
        """
        if self._thread is not None:
            future = self._thread.submit(work)
        else:
            future = Future()
            try:
                future.set_result(work())
            except Exception as error:  # as an executor does: the future carries it to its caller
                future.set_exception(error)
        future.add_done_callback(_log_failure)
        return future

    def close(self) -> None:
        """Wait for what was submitted; may be called again."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)


def _log_failure(future: Future[Result]) -> None:
    error = future.exception()
    if error is not None:
        _log.debug("background work failed", exc_info=error)


def repeat(
    method: Callable[[], None], interval_s: float, stop: threading.Event, name: str
) -> threading.Thread:
    """Call an object's method now and then on a thread of its own, until ``stop`` or the object is gone."""
    reference = weakref.WeakMethod(method)

    def run() -> None:
        while not stop.wait(interval_s):
            call = reference()
            if call is None:
                return
            try:
                call()
            except Exception:  # the thread must outlive a full disk, a lock, a file that was exchanged
                _log.exception("%s failed; it goes on", name)
            del call

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread

"""A thread that always takes the newest item: what comes while it works replaces what waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from face_recognition_node.common.errors import InputError

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """What became of the items offered since the worker was made."""

    offered: int
    handled: int  # taken by the thread and finished, also those that failed
    dropped: int  # replaced by a newer one before the thread came to it, or left over at a stop
    failed: int  # ended in an error that the handler did not expect


class NewestItemWorker(Generic[ItemT]):
    """Runs ``handle`` on its own thread for the newest item offered; ``on_error`` gets what it raises."""

    def __init__(
        self, handle: Callable[[ItemT], None], on_error: Callable[[Exception], None], name: str = "worker"
    ) -> None:
        self._handle = handle
        self._on_error = on_error
        self._name = name
        self._condition = threading.Condition()
        self._waiting: ItemT | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._offered = self._handled = self._dropped = self._failed = 0

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None

    @property
    def counts(self) -> WorkerCounts:
        """What became of the items so far."""
        with self._condition:
            return WorkerCounts(self._offered, self._handled, self._dropped, self._failed)

    def start(self) -> None:
        """Start the thread; nothing offered before is kept."""
        if self._thread is not None:
            raise InputError(f"worker {self._name}: expected it to be stopped, it is running")
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the item in work end, drop the waiting one and join the thread; harmless when stopped."""
        thread, self._thread = self._thread, None
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if thread is not None:
            thread.join()
        with self._condition:
            if self._waiting is not None:
                self._waiting = None
                self._dropped += 1

    def offer(self, item: ItemT) -> None:
        """Hand over an item; returns at once. A stopped worker drops it."""
        with self._condition:
            self._offered += 1
            if self._thread is None or self._is_stopping:
                self._dropped += 1
                return
            if self._waiting is not None:
                self._dropped += 1
            self._waiting = item
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._waiting is None and not self._is_stopping:
                    self._condition.wait()
                if self._is_stopping:
                    return
                item, self._waiting = self._waiting, None
            failed = False
            try:
                self._handle(item)  # type: ignore[arg-type]  # the loop above waited until it was not None
            except Exception as error:
                # One bad item must not end the stream; the owner logs it and counts it.
                failed = True
                logger.debug("worker %s: item failed", self._name, exc_info=True)
                self._on_error(error)
            finally:
                # Let go of the item now, not when the next one comes: a frame is megabytes.
                del item
            with self._condition:
                self._handled += 1
                self._failed += failed

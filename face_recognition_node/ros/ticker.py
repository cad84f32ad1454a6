"""Regular small jobs on one plain thread: a ROS timer would wake the executor, which costs far more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)


class Ticker:
    """Calls each job again and again, every so many seconds of the monotonic clock.

    Args:
        jobs: (period in seconds, job) pairs. A job that raises is logged and called again next time.
    """

    def __init__(self, jobs: Sequence[tuple[float, Callable[[], None]]]) -> None:
        self._jobs = jobs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the job in work end, and call none any more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = [time.monotonic() + period for period, _ in self._jobs]
        while not self._stop.wait(max(min(due) - time.monotonic(), 0.0)):
            now = time.monotonic()
            for index, (period, job) in enumerate(self._jobs):
                if due[index] > now:
                    continue
                due[index] = now + period
                try:
                    job()
                except Exception:
                    # One failure must not end diagnostics and all the others for good.
                    logger.exception("a regular job failed; it is called again in %g s", period)

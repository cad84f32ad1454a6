"""End in order on SIGINT and SIGTERM, from the first moment of the process on.

Nothing but the standard library is imported here: a signal may come while the slow imports are under way.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """Catch SIGINT and SIGTERM from now on; return the event that they set.

    A parent that wants no signal lost before this point starts the process with them blocked.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return stop

"""Memory that a process has freed and the C library still holds."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Let the C library give freed memory back to the system; where it cannot (no glibc), nothing happens.

    Compiling a network takes and frees tens of megabytes in many pieces, which glibc keeps for later use.
    Takes some milliseconds; for moments when something large has been let go.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; no way to ask for it by None
        return
    trim(0)

"""Freed memory goes back to the system, and another C library does no harm."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from face_recognition_node.backends import openvino_runner


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and needs glibc")
def test_freed_pieces_are_returned() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library is not glibc")
    pieces = [bytes(60_000) for _ in range(1000)]  # too small to be mapped one by one
    last = bytes(60_000)  # in the way of those below it, which glibc would otherwise give back by itself
    del pieces
    held = resident_bytes()
    openvino_runner.return_freed_memory()
    assert resident_bytes() < held - 40_000_000
    assert len(last) == 60_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    openvino_runner.return_freed_memory()

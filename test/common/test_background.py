"""One background writer: in order, off the caller's thread, or at once where that is asked for."""

from __future__ import annotations

import threading

import pytest

from face_recognition_node.common.background import BackgroundWriter


def test_work_is_done_in_order_on_another_thread():
    done, gate = [], threading.Event()
    with BackgroundWriter() as writer:
        writer.submit(gate.wait)
        futures = [writer.submit(lambda n=n: done.append((n, threading.get_ident()))) for n in range(5)]
        assert not futures[0].done()
        gate.set()
    assert [n for n, _ in done] == list(range(5))
    assert {thread for _, thread in done}.isdisjoint({threading.get_ident()})
    assert len({thread for _, thread in done}) == 1


def test_immediate_work_is_done_when_submit_returns():
    writer = BackgroundWriter(is_immediate=True)
    assert writer.submit(threading.get_ident).result() == threading.get_ident()


@pytest.mark.parametrize("is_immediate", [True, False])
def test_a_failure_is_in_the_future_and_does_not_stop_what_follows(is_immediate):
    def fail() -> None:
        raise ValueError("full disk")

    with BackgroundWriter(is_immediate=is_immediate) as writer:
        failed, after = writer.submit(fail), writer.submit(lambda: 7)
    with pytest.raises(ValueError, match="full disk"):
        failed.result()
    assert after.result() == 7
    writer.close()

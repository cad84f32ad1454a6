"""The newest-item worker: order, drops, errors, stop."""

from __future__ import annotations

import threading

import pytest

from face_recognition_node.common.errors import InputError
from face_recognition_node.common.newest import NewestItemWorker

PATIENCE = 10.0


class Gate:
    """A handler that says when it took an item and waits until it is let go."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.errors: list[Exception] = []

    def handle(self, item: int) -> None:
        self.taken.append(item)
        self.entered.release()
        assert self.leave.acquire(timeout=PATIENCE)
        if item < 0:
            raise RuntimeError(f"item {item}")


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = NewestItemWorker(gate.handle, gate.errors.append, "test")
    worker.start()
    yield worker
    for _ in range(10):
        gate.leave.release()
    worker.stop()


def wait_taken(gate: Gate) -> None:
    assert gate.entered.acquire(timeout=PATIENCE)


def test_only_the_newest_waits(gate, worker) -> None:
    worker.offer(1)
    wait_taken(gate)
    for item in (2, 3, 4):
        worker.offer(item)
    gate.leave.release()
    wait_taken(gate)
    gate.leave.release()
    worker.stop()
    assert gate.taken == [1, 4]
    counts = worker.counts
    assert (counts.offered, counts.handled, counts.dropped, counts.failed) == (4, 2, 2, 0)


def test_an_error_is_told_and_the_next_item_is_handled(gate, worker) -> None:
    worker.offer(-1)
    wait_taken(gate)
    gate.leave.release()
    worker.offer(2)
    wait_taken(gate)
    gate.leave.release()
    worker.stop()
    assert [str(error) for error in gate.errors] == ["item -1"]
    assert gate.taken == [-1, 2]
    assert worker.counts.failed == 1


def test_stop_ends_the_item_in_work_and_drops_the_waiting_one(gate, worker) -> None:
    worker.offer(1)
    wait_taken(gate)
    worker.offer(2)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    gate.leave.release()
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    assert gate.taken == [1]
    assert (worker.counts.handled, worker.counts.dropped) == (1, 1)


def test_a_stopped_worker_drops_and_starts_again(gate, worker) -> None:
    worker.stop()
    worker.stop()
    worker.offer(1)
    assert worker.counts.dropped == 1
    worker.start()
    assert worker.is_running
    worker.offer(2)
    wait_taken(gate)
    gate.leave.release()
    worker.stop()
    assert gate.taken == [2]


def test_two_threads_are_refused(worker) -> None:
    with pytest.raises(InputError, match="running"):
        worker.start()


def test_the_item_is_let_go_when_it_is_handled() -> None:
    import weakref

    class Item:
        pass

    handled = threading.Event()
    worker: NewestItemWorker[Item] = NewestItemWorker(lambda item: handled.set(), print, "test")
    worker.start()
    item = Item()
    reference = weakref.ref(item)
    worker.offer(item)
    del item
    assert handled.wait(PATIENCE)
    # Nothing new is offered: the thread sits in its wait, and must not hold the old item there.
    for _ in range(1000):
        if reference() is None:
            break
        threading.Event().wait(0.005)
    assert reference() is None
    worker.stop()

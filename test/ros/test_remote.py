"""The client of nodes in other processes."""

from __future__ import annotations

import pytest
import ros_world  # a network of the test's own
from std_msgs.msg import String

from face_recognition_node.ros.remote import Remote, RemoteError

pytestmark = pytest.mark.ros


def test_a_callback_that_fails_is_told_to_whoever_waits() -> None:
    with Remote("test_remote") as remote:
        remote.node.create_timer(0.01, lambda: 1 / 0)
        with pytest.raises(RemoteError, match="a callback failed: ZeroDivisionError"):
            remote.wait_until(lambda: False, ros_world.PATIENCE, "what never happens")


def test_what_is_destroyed_while_the_executor_collects_does_not_end_it() -> None:
    with Remote("test_remote") as remote:
        publisher = remote.node.create_publisher(String, "short_lived", 1)
        event = publisher.event_handlers[0]

        def add_too_late(wait_set: object) -> None:
            remote.node.destroy_publisher(publisher)
            type(event).add_to_wait_set(event, wait_set)

        event.add_to_wait_set = add_too_late
        ticks: list[bool] = []
        remote.node.create_timer(0.01, lambda: ticks.append(publisher in remote.node.publishers))
        remote.wait_until(lambda: ticks.count(False) > 2, ros_world.PATIENCE, "the timer")

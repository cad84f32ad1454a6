"""The client of nodes in other processes."""

from __future__ import annotations

import pytest
import ros_world  # a network of the test's own

from face_recognition_node.ros.remote import Remote, RemoteError

pytestmark = pytest.mark.ros


def test_a_callback_that_fails_is_told_to_whoever_waits() -> None:
    with Remote("test_remote") as remote:
        remote.node.create_timer(0.01, lambda: 1 / 0)
        with pytest.raises(RemoteError, match="a callback failed: ZeroDivisionError"):
            remote.wait_until(lambda: False, ros_world.PATIENCE, "what never happens")

"""Talk to nodes of other processes from plain sequential code: services, lifecycle, waiting for a peer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action.client import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.ros.lifecycle import spin

POLL_S = 0.01
ASK_AGAIN_S = 5.0  # seconds after which a question that changes nothing is taken for lost


class RemoteError(FaceRecognitionError):
    """Another node did not answer, or refused what it was asked."""


def why_ros_cannot_start(error: Exception) -> str:
    """Return why ``rclpy.init`` failed in one line: ROS's own words, and the cure where we know it."""
    reason = " ".join(str(error).split())[:400]
    cure = "; cure: set ROS_LOG_DIR to a folder that can be written" if "initialize logging" in reason else ""
    return f"cannot start: {type(error).__name__}: {reason}{cure}"


class Remote:
    """A ROS node of our own, spun on a thread, whose calls wait for their answers.

    Use it as a context manager. It leaves the signals of the process alone. ``is_alive`` is called while
    waiting and raises if it makes no sense to wait any longer.
    """

    def __init__(self, name: str, is_alive: Callable[[], None] = lambda: None, **options: Any) -> None:
        self._name, self._options = name, options
        self._is_alive = is_alive
        self._clients: dict[str, Any] = {}
        self._failure: Exception | None = None

    def __enter__(self) -> Remote:
        """Create the node and start to spin; RemoteError if ROS cannot start with these arguments."""
        self._context = rclpy.Context()
        try:
            rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        except Exception as error:
            raise RemoteError(why_ros_cannot_start(error)) from error
        self.node: Node = rclpy.create_node(self._name, context=self._context, **self._options)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=f"{self._name} executor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and take the node off the network."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        try:
            spin(self._executor)
        except Exception as error:  # of a callback; raised where somebody waits
            self._failure = error

    def action_client(self, type_: Any, name: str) -> Any:
        """Return a client of an action.

        It is made on the executor's thread: rclpy shows an action client to the executor before it is
        complete, and the executor of another thread may trip over that.
        """
        made: Any = self._executor.create_task(lambda: ActionClient(self.node, type_, name))
        return self.wait_for_future(made, 10.0, f"a client of {name}")

    def wait_until(self, condition: Callable[[], Any], timeout: float, what: str) -> Any:
        """Return the first true value of ``condition``; raise RemoteError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            self._is_alive()
            if self._failure is not None:
                raise RemoteError(f"a callback failed: {self._failure!r}") from self._failure
            if time.monotonic() > deadline:
                raise RemoteError(f"waited {timeout:g} s for {what}, in vain")
            time.sleep(POLL_S)

    def wait_for_future(self, future: Any, timeout: float, what: str) -> Any:
        """Return a future's result; raise RemoteError after ``timeout`` seconds."""
        self.wait_until(future.done, timeout, what)
        return future.result()

    def call(self, type_: Any, name: str, request: Any, timeout: float = 10.0) -> Any:
        """Call a service, waiting for it to appear, and return its response."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(type_, name)
        self.wait_until(client.service_is_ready, timeout, f"the service {name}")
        return self.wait_for_future(client.call_async(request), timeout, f"an answer of {name}")

    def state_of(self, node: str, timeout: float = 10.0) -> str:
        """Return the lifecycle state of a node ("active" …).

        An answer is lost if the server has not discovered this client's side when the request comes. A
        question that changes nothing can be asked again.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                patience = min(ASK_AGAIN_S, max(deadline - time.monotonic(), 0.0))
                answer = self.call(GetState, f"{node}/get_state", GetState.Request(), patience)
                return str(answer.current_state.label)
            except RemoteError:
                self._is_alive()
                if time.monotonic() >= deadline:
                    raise

    def transition(self, node: str, transition_id: int, timeout: float = 30.0) -> bool:
        """Ask a node for a lifecycle transition; returns whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition_id))
        return bool(self.call(ChangeState, f"{node}/change_state", request, timeout).success)

    def bring_to(self, node: str, state_id: int, timeout: float = 30.0) -> None:
        """Configure and activate a node until it is "inactive" or "active"; RemoteError if it refuses."""
        steps = [
            ("unconfigured", Transition.TRANSITION_CONFIGURE),
            ("inactive", Transition.TRANSITION_ACTIVATE),
        ]
        for before, transition_id in steps[: 1 if state_id == State.PRIMARY_STATE_INACTIVE else 2]:
            if self.state_of(node, timeout) == before and not self.transition(node, transition_id, timeout):
                raise RemoteError(f"{node} cannot leave the state {before!r}; its log says why")

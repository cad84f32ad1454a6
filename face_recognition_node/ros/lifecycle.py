"""What every node needs: transitions that say why they fail, the core's log in ROS's own, and to spin on."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from face_recognition_node.common.errors import FaceRecognitionError


class LoudNode(LifecycleNode):
    """A lifecycle node that remembers why its last transition failed."""

    last_error: str = ""  # one line; empty if the last transition succeeded


NodeT = TypeVar("NodeT", bound=LoudNode)
Transition = Callable[[NodeT, Any], TransitionCallbackReturn]


def loud(transition: Callable[[NodeT], None]) -> Transition[NodeT]:
    """Turn a method that does a transition, and raises where it cannot, into a lifecycle callback.

    Expected errors (missing model, gallery not writable …) are logged in one line, anything else with its
    traceback. Either way the callback returns FAILURE, the node stays in the state it was in, and its
    attribute ``last_error`` says why.
    """

    def callback(self: NodeT, previous_state: Any) -> TransitionCallbackReturn:
        name = transition.__name__.removeprefix("on_")
        try:
            transition(self)
        except FaceRecognitionError as error:
            self.last_error = f"{name} failed: {error}"
            self.get_logger().error(self.last_error)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # logged whole; rclpy would swallow it
            self.last_error = f"{name} failed: {type(error).__name__}: {error}"
            self.get_logger().error(f"{self.last_error}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.FAILURE
        self.last_error = ""
        return TransitionCallbackReturn.SUCCESS

    callback.__name__ = transition.__name__
    callback.__doc__ = transition.__doc__
    return callback


def state_label(node: LifecycleNode) -> str:
    """Return the lifecycle state of a node in this process ("unconfigured", "inactive", "active" …)."""
    return str(node._state_machine.current_state[1])  # rclpy offers it over the wire only


def start_up(node: LifecycleNode) -> bool:
    """Configure and activate a node; returns whether it is active now (if not, the log says why)."""
    return (
        node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        and node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    )


def shut_down(node: LifecycleNode) -> None:
    """Bring a node to "finalized" from wherever it is, undoing what it set up."""
    if state_label(node) in ("unconfigured", "inactive", "active"):
        node.trigger_shutdown()


_ROOT = "face_recognition_node"


class RosLogHandler(logging.Handler):
    """Hands log records of the package to a ROS logger, each with its severity."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record under the last part of its module's name."""
        text = f"{record.name.rpartition('.')[2]}: {self.format(record)}"
        # rclpy remembers the severity of each calling line and refuses another one: four lines it is.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


@contextlib.contextmanager
def forwarded_logs(logger: Any) -> Iterator[None]:
    """Send the package's log records to ``logger`` while the block runs."""
    handler = RosLogHandler(logger)
    package = logging.getLogger(_ROOT)
    package.addHandler(handler)
    package.propagate = False
    package.setLevel(logging.DEBUG if logger.get_effective_level() <= logging.DEBUG else logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.propagate = True


def spin(executor: Executor) -> None:
    """Execute callbacks until the end.

    A publisher or subscription that another thread destroys just when rclpy collects what to wait for makes
    the executor raise InvalidHandle (github.com/ros2/rclpy/issues/1284); the next round leaves it out.
    """
    while True:
        try:
            executor.spin()
        except InvalidHandle:
            continue
        except ExternalShutdownException:
            pass
        return

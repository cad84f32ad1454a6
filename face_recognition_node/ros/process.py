"""Run one node as a process: executor, orderly end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.signals import SignalHandlerOptions

from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.common.libraries import missing_library
from face_recognition_node.ros.lifecycle import shut_down


def run_node(
    make: Callable[[threading.Event], LifecycleNode],
    stop: threading.Event,
    args: Sequence[str] | None = None,
    threads: int = 4,
) -> int:
    """Spin a lifecycle node until the event is set (see signals.py); return the exit code.

    The executor spins on a thread of its own and the main thread waits for signals: Python runs signal
    handlers only there, and not while it sits in the middleware's wait. rclpy's own handlers would invalidate
    the context before the node could close its gallery.

    Args:
        make: Makes the node, which may set the event, too.
        stop: Set when the process should end.
        args: Command line with ROS arguments; None: that of the process.
        threads: Of the executor.

    Returns:
        0 after an orderly end, 1 after the executor failed, 2 if the node could not be made.
    """
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    failed: list[BaseException] = []
    try:
        try:
            node = make(stop)
        except FaceRecognitionError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        except ModuleNotFoundError as error:
            if (cure := missing_library(error)) is None:
                raise
            sys.stderr.write(f"{cure}\n")
            return 2
        executor = MultiThreadedExecutor(num_threads=threads)
        executor.add_node(node)

        def spin() -> None:
            try:
                executor.spin()
            except ExternalShutdownException:
                pass
            except BaseException as error:  # whatever ended the executor ends the process, told below
                failed.append(error)
                raise
            finally:
                stop.set()

        spinner = threading.Thread(target=spin, name="executor", daemon=True)
        spinner.start()
        stop.wait()
        shut_down(node)
        executor.shutdown(timeout_sec=5.0)
        spinner.join(timeout=5.0)
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 1 if failed else 0

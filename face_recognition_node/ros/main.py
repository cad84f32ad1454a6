"""The executables: one node as a process, with its executor and an orderly end.

Only the standard library is imported at the top: a signal may come while the slow imports are under way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


def main(args: Sequence[str] | None = None) -> int:
    """Run the recognition node as a process; see :func:`run_node` for what it returns."""
    stop = stop_on_signals()
    # no pools of threads beside navigation and speech; this one is read when NumPy is first imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    def make_node(_: threading.Event) -> LifecycleNode:
        import cv2

        cv2.setNumThreads(1)  # tracing sixty points would wake a pool that then spins, waiting for more
        from face_recognition_node.ros.lifecycle import start_up
        from face_recognition_node.ros.node import FaceRecognitionNode

        node = FaceRecognitionNode()
        if node.settings.node.autostart:
            start_up(node)
        return node

    return run_node(make_node, stop, args)


def video_source(args: Sequence[str] | None = None) -> int:
    """Run the video source as a process; see :func:`run_node` for what it returns."""
    stop = stop_on_signals()

    def make_node(stop: threading.Event) -> LifecycleNode:
        from face_recognition_node.ros.video_source import VideoSource

        return VideoSource(stop)

    return run_node(make_node, stop, args)


def web(args: Sequence[str] | None = None) -> int:
    """Run the operator's page as a process; 0 after an orderly end, 2 if it could not be started."""
    stop = stop_on_signals()
    os.nice(10)  # where the processor is short, recognition comes first
    from face_recognition_node.common.errors import FaceRecognitionError

    try:
        from face_recognition_node.ros.web.node import serve

        serve(stop)
    except (FaceRecognitionError, ModuleNotFoundError) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    """Write the one line that says what to do, and return the exit code; raise what nobody can act on."""
    from face_recognition_node.common.libraries import missing_library

    reason = missing_library(error) if isinstance(error, ModuleNotFoundError) else str(error)
    if reason is None:
        raise error
    sys.stderr.write(f"{reason}\n")
    return 2


def stop_on_signals() -> threading.Event:
    """Catch SIGINT, SIGTERM and SIGHUP from now on; return the event that they set.

    A parent that wants no signal lost before this point starts the process with them blocked. Whatever comes
    after the first one is ignored (a launch passes on the Ctrl-C that the terminal has sent already): setting
    the event twice at once can block for ever, and Python puts back the handlers that kill when it ends.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return stop


def run_node(
    make: Callable[[threading.Event], LifecycleNode],
    stop: threading.Event,
    args: Sequence[str] | None = None,
    threads: int = 16,
) -> int:
    """Spin a lifecycle node until ``stop`` is set, by the node or a signal; return the exit code.

    The executor spins on a thread of its own and the main thread waits for signals: Python runs signal
    handlers only there, and not while it sits in the middleware's wait. rclpy's own handlers would invalidate
    the context before the node could close its gallery. ``threads`` are the most that the executor has; a
    running enrollment, search or service keeps one.

    Returns:
        0 after an orderly end, 1 after the executor failed, 2 if the node could not be made.
    """
    import rclpy
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from face_recognition_node.common.errors import FaceRecognitionError
    from face_recognition_node.ros.lifecycle import shut_down, spin
    from face_recognition_node.ros.remote import why_ros_cannot_start

    try:
        rclpy.init(
            args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO
        )
    except Exception as error:  # arguments or a parameter file that ROS cannot read, in its own words
        sys.stderr.write(f"{why_ros_cannot_start(error)}\n")
        return 2
    failed: list[BaseException] = []
    try:
        try:
            node = make(stop)
        except (FaceRecognitionError, ModuleNotFoundError) as error:
            return _refuse(error)
        executor = MultiThreadedExecutor(num_threads=threads)
        executor.add_node(node)

        def spin_to_the_end() -> None:
            try:
                spin(executor)
            except BaseException as error:  # whatever ended the executor ends the process, reported below
                failed.append(error)
                raise
            finally:
                stop.set()

        spinner = threading.Thread(target=spin_to_the_end, name="executor", daemon=True)
        spinner.start()
        stop.wait()
        shut_down(node)
        executor.shutdown(timeout_sec=5.0)
        spinner.join(timeout=5.0)
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

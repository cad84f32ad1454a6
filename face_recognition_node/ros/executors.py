"""Spin, and go on where rclpy's executors give up."""

from __future__ import annotations

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException


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

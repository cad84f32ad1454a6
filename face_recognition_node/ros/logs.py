"""What the core logs with Python's logging, in the node's own log."""

from __future__ import annotations

import logging
from typing import Any

_ROOT = "face_recognition_node"


class RosLogHandler(logging.Handler):
    """Hands log records of the package to a ROS logger, each with its severity.

    Args:
        logger: From ``node.get_logger()``.
    """

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


def forward_logs(logger: Any) -> RosLogHandler:
    """Send the package's log records to ``logger`` from now on; returns what end_forwarding takes."""
    handler = RosLogHandler(logger)
    package = logging.getLogger(_ROOT)
    package.addHandler(handler)
    package.propagate = False
    package.setLevel(logging.DEBUG if logger.get_effective_level() <= logging.DEBUG else logging.INFO)
    return handler


def end_forwarding(handler: RosLogHandler) -> None:
    """Undo forward_logs."""
    package = logging.getLogger(_ROOT)
    package.removeHandler(handler)
    package.propagate = True

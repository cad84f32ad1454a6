"""The executable ``face_recognition_node``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from face_recognition_node.ros.signals import stop_on_signals

if TYPE_CHECKING:
    from face_recognition_node.ros.node import FaceRecognitionNode


def make_node(stop: threading.Event) -> FaceRecognitionNode:
    """Return the node, active already if the parameter autostart says so."""
    from face_recognition_node.ros.lifecycle import start_up
    from face_recognition_node.ros.node import FaceRecognitionNode

    node = FaceRecognitionNode()
    if node.settings.node.autostart:
        start_up(node)
    else:
        node.get_logger().info("waiting to be configured; -p autostart:=true does it at start")
    return node


def main(args: Sequence[str] | None = None) -> int:
    """Run the node as a process; returns 0 after SIGINT or SIGTERM, 2 if a parameter cannot be used."""
    stop = stop_on_signals()
    # read when NumPy is first imported: no pool of threads beside navigation and speech (exact_search.py)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from face_recognition_node.ros.process import run_node

    return run_node(make_node, stop, args)


if __name__ == "__main__":
    sys.exit(main())

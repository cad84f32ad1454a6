"""The executable ``video_source_node``, and its parameters."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from face_recognition_node.common.parameters import check_section, parameter
from face_recognition_node.ros.signals import stop_on_signals

if TYPE_CHECKING:
    from face_recognition_node.ros.video_source_node import VideoSource


@dataclass(frozen=True, slots=True)
class VideoSourceConfig:
    """What to play and how; all of it is read when the node is configured."""

    source: str = parameter(
        "sample", "Camera number, video, gif, image, folder, URL, or the built-in sample.", read_only=True
    )
    rate: float = parameter(
        0.0, "Frames per second; 0: the source's own.", minimum=0.0, maximum=1000.0, read_only=True
    )
    width: int = parameter(
        0, "Pixels asked of a camera or the sample; 0: theirs.", minimum=0, maximum=8192, read_only=True
    )
    height: int = parameter(
        0, "Pixels asked of a camera or the sample; 0: theirs.", minimum=0, maximum=8192, read_only=True
    )
    at_end: str = parameter(
        "loop",
        "When a recording ends: loop (start again), stop (deactivate) or exit (end the process).",
        choices=("loop", "stop", "exit"),
        read_only=True,
    )
    preload: bool = parameter(
        False, "Decode all frames at configure and play them from memory (short recordings).", read_only=True
    )
    transport: str = parameter(
        "raw",
        "raw: Image; compressed: JPEG as CompressedImage.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    jpeg_quality: int = parameter(90, "Of compressed images.", minimum=1, maximum=100, read_only=True)
    frame_id: str = parameter("camera", "Coordinate frame in the header.", read_only=True)
    qos_reliability: str = parameter(
        "best_effort",
        "How images are offered; reliable also serves best-effort receivers.",
        choices=("best_effort", "reliable"),
        read_only=True,
    )
    wait_for_subscriber: bool = parameter(
        False,
        "Play only from the moment somebody subscribes, so that nobody misses the beginning.",
        read_only=True,
    )
    autostart: bool = parameter(False, "Configure and activate at start.", read_only=True)

    def __post_init__(self) -> None:
        check_section(self)


def make_node(stop: threading.Event) -> VideoSource:
    """Return the node; it sets ``stop`` when its recording has ended and the process should, too."""
    from face_recognition_node.ros.video_source_node import VideoSource

    return VideoSource(stop)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node as a process; returns 0 after SIGINT or SIGTERM, 2 if a parameter cannot be used."""
    stop = stop_on_signals()
    from face_recognition_node.ros.process import run_node

    return run_node(make_node, stop, args)


if __name__ == "__main__":
    sys.exit(main())

"""The demo's video: it keeps the time of the images, delays nobody, and tells what failed."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs the ROS message packages")

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from face_recognition_node.cli import demo_outputs
from face_recognition_node.cli.demo_outputs import AnnotatedVideo
from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.ros.messages import bgr_to_image


def image(tenths: int, grey: int = 90, size: tuple[int, int] = (64, 48)):
    pixels = np.full((size[1], size[0], 3), grey, np.uint8)
    return bgr_to_image(pixels, Header(stamp=Time(sec=5, nanosec=tenths * 10**8)))


def greys(path: Path) -> list[int]:
    capture = cv2.VideoCapture(str(path))
    found = []
    while (frame := capture.read()[1]) is not None:
        found.append(round(frame.mean()))
    return found


def test_a_missing_image_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "seen.avi"
    with AnnotatedVideo(str(path), 10.0) as video:
        for tenths, grey in ((0, 40), (1, 80), (4, 200), (4, 120)):
            video.take(image(tenths, grey))
    assert greys(path) == pytest.approx([40, 80, 200, 200, 200], abs=4)


def test_a_slow_disk_delays_nobody_and_the_end_waits_for_it(tmp_path: Path, monkeypatch) -> None:
    go_on = threading.Event()

    class SlowWriter(demo_outputs.VideoWriter):
        def write(self, image_bgr) -> None:
            assert go_on.wait(60)
            super().write(image_bgr)

    monkeypatch.setattr(demo_outputs, "VideoWriter", SlowWriter)
    path = tmp_path / "seen.avi"
    with AnnotatedVideo(str(path), 10.0) as video:
        for tenths in range(9):
            video.take(image(tenths))
        for _ in range(2 * demo_outputs.WAITING_IMAGES):
            video.take(image(9))
        go_on.set()
    assert len(greys(path)) == 10
    video.take(image(9))  # a callback that was under way when the subscription went


def test_what_failed_is_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "seen.avi"

    def record() -> None:
        with AnnotatedVideo(str(path), 10.0) as video:
            video.take(image(0))
            video.take(image(1, size=(32, 32)))
            video.take(image(2))

    with pytest.raises(InputError, match="like the first"):
        record()
    assert len(greys(path)) == 1


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        AnnotatedVideo(str(tmp_path / "nowhere" / "seen.mp4"), 10.0)

"""A camera that breaks and comes back, without a camera: the source is a stand-in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

import rclpy
import ros_world  # a network of the test's own
from rclpy.signals import SignalHandlerOptions

from face_recognition_node.common.errors import SourceError
from face_recognition_node.ros import video_source
from face_recognition_node.vision.faces import Frame

pytestmark = pytest.mark.ros


class Camera:
    """Gives three pictures and breaks."""

    name, rate_hz, n_frames, is_live, problems = "camera 0", 30.0, None, True, ()

    def from_zero(self) -> Camera:
        return self

    def __iter__(self) -> Iterator[Frame]:
        for k in range(3):
            yield Frame(np.zeros((8, 8, 3), np.uint8), float(k))


def test_a_camera_that_broke_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    openings: list[str] = []
    back = threading.Event()

    def open_source(source: str, **wishes: object) -> Camera:
        openings.append(source)
        logging.getLogger("face_recognition_node.media.containers").warning("2 streams")
        if len(openings) in (2, 3):
            raise SourceError("camera 0: cannot be opened")
        if len(openings) > 4:
            back.set()
        return Camera()

    monkeypatch.setattr(video_source, "open_source", open_source)
    monkeypatch.setattr(video_source, "RETRY_S", 0.01)
    rclpy.init(args=["--ros-args", "-p", "source:='0'"], signal_handler_options=SignalHandlerOptions.NO)
    node = video_source.VideoSource(threading.Event())
    sent: list[object] = []
    try:
        node.trigger_configure()
        real, node._publisher = (
            node._publisher,
            SimpleNamespace(
                publish=sent.append, on_activate=lambda state: None, on_deactivate=lambda state: None
            ),
        )
        node.trigger_activate()
        assert back.wait(ros_world.PATIENCE)
        node.trigger_deactivate()
        assert len(sent) >= 6
        written = capfd.readouterr().err.splitlines()
        assert all("[WARN]" in line for line in written if "2 streams" in line), "in the words of ROS"
        assert sum("2 streams" in line for line in written) >= 5
        node._publisher = real
    finally:
        node.destroy_node()
        rclpy.try_shutdown()

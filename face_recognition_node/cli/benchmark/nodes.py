"""The node and a camera in processes of their own, as the benchmarks over DDS need them."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from face_recognition_node.cli.processes import Children, isolated_environment
from face_recognition_node.common.errors import BackendUnavailableError, InputError

if TYPE_CHECKING:
    from face_recognition_node.ros.remote import Remote

NAMESPACE = "/face_recognition_benchmark"
NODE = f"{NAMESPACE}/face_recognition"
N_IMAGES = 30
"""Different images that are sent in turn: the camera sways, and its noise differs."""

_QUIET = ["--log-level", "error", "-r", f"__ns:={NAMESPACE}"]


def enter_own_network() -> None:
    """Put this process and its children into a ROS network that nobody else is in.

    Raises:
        BackendUnavailableError: If ROS 2 is not there.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise BackendUnavailableError("ROS 2 is not there: use ./run exec, or source your ROS installation")
    os.environ.update(isolated_environment(os.environ))


def prepare_images(folder: Path, size: tuple[int, int], faces: int, empty: int = 0) -> None:
    """Write N_IMAGES pictures of a wall with portraits, seen by a swaying camera with a noisy sensor.

    Args:
        folder: Is made.
        size: (width, height) in pixels.
        faces: Portraits on the wall.
        empty: Pictures of the bare wall to add: everybody has left.
    """
    from face_recognition_node.media.sample import sample_frame

    folder.mkdir()
    still, bare = sample_frame(size=size, faces=faces), sample_frame(size=size, faces=0)
    generator = np.random.default_rng(11)
    for index in range(N_IMAGES + empty):
        angle = 2 * math.pi * index / N_IMAGES
        x, y = (0.006 * size[0] * value for value in (math.cos(angle), math.sin(angle)))
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        wall = still if index < N_IMAGES else bare
        swayed = cv2.warpAffine(wall, shift, size, borderMode=cv2.BORDER_REPLICATE)
        noise = np.rint(2.5 * generator.standard_normal((size[1], size[0], 3))).astype(np.int16)
        cv2.imwrite(str(folder / f"{index:03d}.png"), cv2.add(swayed, noise, dtype=cv2.CV_8U))


def start_node(children: Children, gallery: Path, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the recognition node with its gallery in a file and ``NAME:=VALUE`` parameters."""
    given = [part for item in settings for part in ("-p", item)]
    return children.start("recognition node", "face_recognition_node.ros.main:main", [
        *_QUIET, "-p", "autostart:=true", "-p", f"gallery_path:={gallery}", *given,
    ])  # fmt: skip


def start_camera(children: Children, images: Path, rate: float) -> None:
    """Start a camera that plays a folder of images from memory as soon as somebody subscribes."""
    children.start("video source", "face_recognition_node.ros.main:video_source", [
        *_QUIET, "-p", "autostart:=true", "-p", f"source:={images}", "-p", "preload:=true",
        "-p", f"rate:={rate}", "-p", "wait_for_subscriber:=true",
    ])  # fmt: skip


def enroll_first_face(remote: Remote) -> None:
    """Make the guest known, so that the node does what it does in a run: recognise people."""
    from std_msgs.msg import Header

    from face_recognition_interfaces.srv import AddFaceFromImage
    from face_recognition_node.media.sample import portrait
    from face_recognition_node.ros.conversions import bgr_to_image

    request = AddFaceFromImage.Request(image=bgr_to_image(portrait("guest"), Header()), name="Guest")
    answer = remote.call(AddFaceFromImage, f"{NODE}/add_face_from_image", request, 30.0)
    if not answer.success:
        raise InputError(f"the guest could not be enrolled: {answer.message}")

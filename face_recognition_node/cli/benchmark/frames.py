"""What the benchmarks of this folder share: the frames, the options, the runtimes that are installed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from face_recognition_node.cli.options import add_json_option, add_progress
from face_recognition_node.common.errors import BackendUnavailableError, InputError
from face_recognition_node.vision.faces import ImageArray

FRAMES = 30


def add_benchmark_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add what every benchmark takes."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help="runs of each (default %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="CPU threads per network; 0: one fewer than there are cores, at most 4",
    )
    add_json_option(parser)
    add_progress(parser)


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of "640x480"."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"{text}: expected a size like 640x480") from error
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise InputError(f"{text}: expected sides from 32 to 8192")
    return width, height


def swaying_frames(size: tuple[int, int], faces: int) -> list[ImageArray]:
    """Return frames of a wall with portraits, seen by a swaying camera with a noisy sensor."""
    from face_recognition_node.media.sample import sample_frame

    return sway(sample_frame(size=size, faces=faces))


def sway(still: ImageArray) -> list[ImageArray]:
    """Return FRAMES views of a still picture by a camera that sways a little and has a noisy sensor."""
    size = (still.shape[1], still.shape[0])
    generator = np.random.default_rng(11)
    frames = []
    for number in range(FRAMES):
        angle, reach = 2 * math.pi * number / FRAMES, 0.006 * size[0]
        shift = np.array([[1, 0, reach * math.cos(angle)], [0, 1, reach * math.sin(angle)]])
        swayed = cv2.warpAffine(still, shift, size, borderMode=cv2.BORDER_REPLICATE)
        noise = np.asarray(generator.normal(0, 2.5, still.shape), np.int16)
        frames.append(np.asarray(cv2.add(swayed, noise, dtype=cv2.CV_8U), np.uint8))
    return frames


def let_engine_be_built(model: Any, use: Callable[[Any], object]) -> None:
    """Use a model until its engine, built in the background, serves; BackendUnavailableError if refused."""
    from face_recognition_node.backends.tensorrt import NAME, ORDER_AFTER, TorchTensorRtRunner

    if not isinstance(model.runner, TorchTensorRtRunner):
        return
    for _ in range(ORDER_AFTER):
        use(model)
    model.runner.wait()
    use(model)
    if model.runner.report.name != NAME:
        raise BackendUnavailableError(f"there is no engine to be measured: {model.runner.report.reason}")

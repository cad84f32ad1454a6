"""``face-recognition benchmark pipeline`` beside dlib's, on photographs of different people.

    ./run exec python tools/benchmark_pipeline.py [--pictures ARCHIVE] [--no-peers]

What dlib does is the same task: find, embed, name.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import peers
from command import run_tool

from face_recognition_node.cli.benchmark import pipeline
from face_recognition_node.cli.benchmark.frames import FRAMES, sway, swaying_frames
from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.timing import Contestant
from face_recognition_node.vision.faces import ImageArray


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb, and two more."""
    pipeline.configure(parser)
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="ARCHIVE",
        help="zip or folder of photographs of different people to hang on the wall",
    )
    peers.add_peers_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Race the pipelines in each scene."""
    frames_of = partial(photographs_on_a_wall, arguments.pictures) if arguments.pictures else swaying_frames
    return pipeline.run(arguments, frames_of, (lambda frames: []) if arguments.no_peers else _peers)


def _peers(frames: list[ImageArray]) -> list[Contestant]:
    if not peers.is_installed("dlib", "face_recognition_models"):
        return []
    dlib = peers.DlibFaces()
    known = dlib.embed(frames[0], dlib.detect(frames[0]))
    note = f"HOG, 5 points, 128-d; {len(known)} faces found"
    return [Contestant("dlib", lambda number: dlib.recognize(frames[number % FRAMES], known), note)]


def photographs_on_a_wall(source: Path, size: tuple[int, int], count: int) -> list[ImageArray]:
    """Return swaying frames of a grey wall with photographs of ``count`` different people.

    Raises:
        SourceError: If ``source`` is neither zip nor folder.
        InputError: If it has fewer pictures.
    """
    from face_recognition_node.evaluation.picture_archive import IMAGE_ENDINGS, open_files
    from face_recognition_node.media.images import image_from

    names, read = open_files(source)
    pictures = sorted(name for name in names if name.lower().endswith(IMAGE_ENDINGS))
    if len(pictures) < count:
        raise InputError(f"{source}: expected at least {count} pictures, got {len(pictures)}")
    chosen = [pictures[len(pictures) * number // count] for number in range(count)]
    width, height = size
    columns = min(count, 3)
    rows = -(-count // columns)
    side = int(min(width / columns, height / rows) * 0.9)
    wall = np.full((height, width, 3), 150, np.uint8)
    for number, name in enumerate(chosen):
        picture = image_from(read(name), name)
        scale = side / max(picture.shape[:2])
        hung = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        row, column = divmod(number, columns)
        top = int((row + 0.5) * height / rows - hung.shape[0] / 2)
        left = int((column + 0.5) * width / columns - hung.shape[1] / 2)
        wall[top : top + hung.shape[0], left : left + hung.shape[1]] = hung
    return sway(wall)


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

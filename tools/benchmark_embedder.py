"""Time the face embedders side by side, by number of faces.

./run exec python tools/benchmark_embedder.py [--faces N …]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import peers
from command import run_tool
from runtimes import open_runtimes

from face_recognition_node.cli.benchmark.frames import add_benchmark_options
from face_recognition_node.cli.options import report
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.faces import ImageArray


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 2, 5], metavar="N", help="faces at once")
    peers.add_peers_option(parser)
    add_benchmark_options(parser, rounds=60)


def run(arguments: argparse.Namespace) -> int:
    """Race the embedders at each number of faces."""
    from face_recognition_node.backends import load_embedder
    from face_recognition_node.common.errors import InputError
    from face_recognition_node.evaluation.timing import Contestant, Machine, race

    if min(arguments.faces) < 1:
        raise InputError("--faces: expected numbers from 1")
    machine = Machine.here()
    picture, crops = _faces()
    embedders = open_runtimes(
        lambda name: load_embedder(ModelsConfig(backend=name, threads=arguments.threads)),
        lambda ours: ours.embed(crops),
    )
    dlib: Any = None
    if not arguments.no_peers and peers.is_installed("dlib", "face_recognition_models"):
        dlib = peers.DlibFaces()
    tables = []
    for count in arguments.faces:
        batch = np.ascontiguousarray(np.resize(crops, (count, *crops.shape[1:])))
        contestants = [
            Contestant(f"ours, {name}", lambda _, embedder=embedder, batch=batch: embedder.embed(batch))  # type: ignore[misc]
            for name, embedder in embedders.items()
        ]
        if dlib is not None:
            boxes = dlib.detect(picture)[:1] * count
            contestants.append(
                Contestant("dlib", lambda _, boxes=boxes: dlib.embed(picture, boxes), "128-d")  # type: ignore[misc]
            )
        tables.append(
            race(
                f"embed {count} aligned face{'s' if count > 1 else ''}",
                contestants,
                arguments.rounds,
                progress=partial(progress_bar, unit="round", shown=arguments.progress),
            )
        )
    figures = {"machine": dataclasses.asdict(machine), "tables": list(map(dataclasses.asdict, tables))}
    report("\n\n".join([str(machine), *map(str, tables)]), figures, arguments.json)
    return 0


def _faces() -> tuple[ImageArray, ImageArray]:
    """Return a portrait and the aligned faces of both portraits that the package carries."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.config import DetectorConfig
    from face_recognition_node.media.sample import portrait
    from face_recognition_node.vision.alignment import align_faces

    detector = load_detector(ModelsConfig(), DetectorConfig())
    portraits = [portrait(who) for who in ("guest", "stranger")]
    crops = [align_faces(picture, [detector.detect(picture)[0].landmarks_xy]) for picture in portraits]
    return portraits[0], np.concatenate(crops)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit code."""
    return run_tool(__doc__, configure, run, argv)


if __name__ == "__main__":
    sys.exit(main())

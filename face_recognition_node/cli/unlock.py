"""``face-recognition unlock RUN PICTURE``: is this the owner? For the two Face ID systems."""

from __future__ import annotations

import argparse
from pathlib import Path

from face_recognition_node.cli.options import given_path
from face_recognition_node.common.errors import InputError, SourceError

OWNER = "owner.npz"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "folder",
        type=given_path,
        metavar="RUN",
        help="folder written by `train` with a triplet or RGB-D recipe",
    )
    add(
        "pictures",
        type=given_path,
        nargs="+",
        metavar="PICTURE",
        help="photograph; RGB-D: NAME_color.png beside NAME_depth.png",
    )
    add("--register", action="store_true", help="RGB-D: register pictures of the owner, several poses")
    add("--adapt", action="store_true", help="RGB-D: add an accepted picture to the owner's")
    add("--threshold", type=float, help="RGB-D: distance below which a face unlocks (default: the recipe's)")
    add("--alpha", type=float, help="triplet: sensitivity from -1 to 1 (half of that in training)")


def run(arguments: argparse.Namespace) -> int:
    """Print yes or no for each picture; 0 if all of them unlock, 1 if not."""
    from face_recognition_node.systems.triplet import LOCK

    folder: Path = arguments.folder
    if (folder / LOCK).is_file():
        if arguments.register or arguments.adapt:
            raise InputError(
                "--register and --adapt are for RGB-D; a triplet lock is trained anew for another owner"
            )
        return _triplet(folder, arguments.pictures, arguments.alpha)
    if (folder / "rgbd.pt").is_file():
        return _rgbd(folder, arguments)
    raise SourceError(
        f"{folder}: expected a run of a triplet_face_id or rgbd_face_id recipe ({LOCK} or rgbd.pt)"
    )


def _triplet(folder: Path, pictures: list[Path], alpha: float | None) -> int:
    from face_recognition_node.systems.triplet import TripletLock, network_inputs, read_face

    if alpha is not None and not -1 <= alpha <= 1:
        raise InputError(f"--alpha: expected a number from -1 to 1, got {alpha}")
    lock = TripletLock.load(folder)
    limit = lock.settings.production_alpha if alpha is None else alpha
    verdicts = []
    for path in pictures:
        margin = float(lock.margins(network_inputs(lock.settings, read_face(path)[None]))[0])
        verdicts.append(margin >= limit)
        print(f"{_word(verdicts[-1])}  {path}  nearer to the owner by {margin:+.3f}, needed {limit:+.3f}")
    return 0 if all(verdicts) else 1


def _rgbd(folder: Path, arguments: argparse.Namespace) -> int:
    import numpy as np

    from face_recognition_node.systems.rgbd.data import read_rgbd_file
    from face_recognition_node.systems.rgbd.training import Owner, load_rgbd, load_threshold
    from face_recognition_node.systems.runs import answers

    threshold = load_threshold(folder) if arguments.threshold is None else arguments.threshold
    if threshold <= 0:
        raise InputError(f"--threshold: expected a distance above 0, got {threshold}")
    vectors = answers(load_rgbd(folder), np.stack([read_rgbd_file(path) for path in arguments.pictures]))
    if arguments.register:
        Owner(threshold, vectors).save(folder / OWNER)
        print(f"registered {len(vectors)} pictures of the owner in {folder / OWNER}")
        return 0
    owner = Owner.load(folder / OWNER, threshold)
    verdicts = []
    for path, vector in zip(arguments.pictures, vectors, strict=True):
        distance = owner.distance(vector)
        verdicts.append(owner.unlocks(vector, adapt=arguments.adapt))
        print(f"{_word(verdicts[-1])}  {path}  distance {distance:.2f}, needed below {owner.threshold:.2f}")
    if arguments.adapt:
        owner.save(folder / OWNER)
    return 0 if all(verdicts) else 1


def _word(is_owner: bool) -> str:
    return "yes" if is_owner else "no "

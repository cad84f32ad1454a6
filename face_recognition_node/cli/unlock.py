"""``face-recognition unlock RUN PICTURE``: is this the owner? For the two Face ID systems."""

from __future__ import annotations

import argparse
from pathlib import Path

from face_recognition_node.common.errors import FaceRecognitionError, InputError, SourceError

OWNER = "owner.npz"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="folder written by `train` with a triplet or RGB-D recipe"
    )
    parser.add_argument(
        "pictures",
        type=Path,
        nargs="+",
        metavar="PICTURE",
        help="photograph; RGB-D: NAME_color.png beside NAME_depth.png",
    )
    parser.add_argument(
        "--register", action="store_true", help="RGB-D: register pictures of the owner, several poses"
    )
    parser.add_argument("--adapt", action="store_true", help="RGB-D: add an accepted picture to the owner's")
    parser.add_argument(
        "--threshold", type=float, help="RGB-D: distance below which a face unlocks (default: the recipe's)"
    )
    parser.add_argument(
        "--alpha", type=float, help="triplet: sensitivity from -1 to 1 (half of that in training)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print yes or no for each picture; 0 if all of them unlock, 1 if not."""
    try:
        from face_recognition_node.systems.triplet.lock import LOCK
    except ImportError as error:
        raise FaceRecognitionError(
            f"this needs more packages ({error}); pip install -r requirements/train.txt"
        ) from error
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
    from face_recognition_node.systems.pictures import crop_face, embed_crops
    from face_recognition_node.systems.triplet.lock import HEAD, TripletLock
    from face_recognition_node.systems.triplet.runs import read_face

    if alpha is not None and not -1 <= alpha <= 1:
        raise InputError(f"--alpha: expected a number from -1 to 1, got {alpha}")
    lock = TripletLock.load(folder)
    limit = lock.settings.production_alpha if alpha is None else alpha
    answers = []
    for path in pictures:
        crops = read_face(path, crop_face)[None]
        margin = float(lock.margins(embed_crops(crops) if lock.settings.network == HEAD else crops)[0])
        answers.append(margin >= limit)
        print(f"{_word(answers[-1])}  {path}  nearer to the owner by {margin:+.3f}, needed {limit:+.3f}")
    return 0 if all(answers) else 1


def _rgbd(folder: Path, arguments: argparse.Namespace) -> int:
    import numpy as np

    from face_recognition_node.systems.rgbd.data import read_rgbd_file
    from face_recognition_node.systems.rgbd.owner import Owner
    from face_recognition_node.systems.rgbd.training import embed_rgbd, load_rgbd, load_threshold

    threshold = load_threshold(folder) if arguments.threshold is None else arguments.threshold
    if threshold <= 0:
        raise InputError(f"--threshold: expected a distance above 0, got {threshold}")
    vectors = embed_rgbd(load_rgbd(folder), np.stack([read_rgbd_file(path) for path in arguments.pictures]))
    if arguments.register:
        owner = Owner(threshold)
        owner.register(vectors)
        owner.save(folder / OWNER)
        print(f"registered {len(vectors)} pictures of the owner in {folder / OWNER}")
        return 0
    owner = Owner.load(folder / OWNER)
    owner.threshold = threshold
    answers = []
    for path, vector in zip(arguments.pictures, vectors, strict=True):
        distance = owner.distance(vector)
        answers.append(owner.unlocks(vector, adapt=arguments.adapt))
        print(f"{_word(answers[-1])}  {path}  distance {distance:.2f}, needed below {owner.threshold:.2f}")
    if arguments.adapt:
        owner.save(folder / OWNER)
    return 0 if all(answers) else 1


def _word(is_owner: bool) -> str:
    return "yes" if is_owner else "no "

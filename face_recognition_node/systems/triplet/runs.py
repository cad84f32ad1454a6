"""Runs of the triplet lock: one lock for one owner, from folders of pictures or as a demonstration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from face_recognition_node.common.errors import ConfigurationError, InputError, SourceError
from face_recognition_node.common.files import write_json, write_text
from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.picture_archive import IMAGE_ENDINGS, LfwArchive
from face_recognition_node.systems.pictures import crop_face, embed_crops
from face_recognition_node.systems.triplet.lock import HEAD, TripletSettings, train_lock, try_lock
from face_recognition_node.training.recipe import RunOptions, Section, plain_values
from face_recognition_node.vision.faces import FloatArray, ImageArray


def read_folder(folder: Path) -> ImageArray:
    """Return (N, 112, 112, 3) aligned faces of all pictures in ``folder``, in the order of their names.

    Raises:
        SourceError: If there is no such folder or no picture in it.
    """
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (*IMAGE_ENDINGS, ".jpeg", ".bmp"))
    if not paths:
        raise SourceError(f"{folder}: expected a folder of pictures (jpg, png, webp), found none")
    return np.stack([read_face(path) for path in paths])


def read_face(path: Path) -> ImageArray:
    """Return the aligned face of one picture; a picture of 112×112 pixels is taken to be one already."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: expected a picture, cannot read it")
    picture = np.asarray(image, np.uint8)
    return picture if picture.shape == (112, 112, 3) else crop_face(picture)


def demonstration(
    archive: LfwArchive, owner: str, n_me: int, n_not_me: int, seed: int
) -> tuple[ImageArray, ImageArray, ImageArray, ImageArray]:
    """Return aligned faces of an archive: the owner's and others' to train on, and both to try the lock with.

    The owner needs more than ``n_me`` faces; there is one face each of the others.
    """
    random = np.random.default_rng(seed)
    people = np.array(archive.people)
    own = random.permutation(np.flatnonzero(people == owner))
    if len(own) <= n_me:
        raise InputError(f"{owner}: expected over {n_me} faces, the archive has {len(own)}")
    others = random.permutation(np.unique(people[people != owner]))[: n_not_me + 200]
    one_each = [int(random.choice(np.flatnonzero(people == name))) for name in others]
    me, tests = own[:n_me], own[n_me:]

    def read(numbers: Iterable[int]) -> ImageArray:
        return np.stack([archive.read(int(number)) for number in numbers])

    return read(me), read(one_each[:n_not_me]), read(tests), read(one_each[n_not_me:])


class TripletData(Section, frozen=True):
    """Whose faces."""

    me: Path | None = None  # folder of the owner's pictures
    not_me: Path | None = None  # folder of other people's pictures
    me_tests: Path | None = None  # optional folder of new pictures of the owner, only to try the lock
    not_me_tests: Path | None = None  # optional folder of pictures of further people, only to try the lock
    path: Path | None = None  # zip of labelled faces to take a demonstration from where no folders are given
    owner: str = "Tony_Blair"
    n_me: int = 7
    n_not_me: int = 10


class TripletRecipe(Section, frozen=True):
    """How a lock is made."""

    kind: str
    data: TripletData = msgspec.field(default_factory=TripletData)
    lock: TripletSettings = msgspec.field(default_factory=TripletSettings)
    seed: int = 0  # of the choice of faces


def network_inputs(settings: TripletSettings, crops: ImageArray) -> ImageArray | FloatArray:
    """Return what the network of a lock sees of (N, 112, 112, 3) crops: themselves, or their embeddings."""
    return embed_crops(crops) if settings.network == HEAD else crops


def train_triplet(recipe: TripletRecipe, options: RunOptions) -> str:
    """Make the lock; return what came out as text."""
    data = recipe.data
    if data.me is not None and data.not_me is not None:
        nobody = np.empty((0, 112, 112, 3), np.uint8)
        folders = (data.me, data.not_me, data.me_tests, data.not_me_tests)
        parts = [nobody if folder is None else read_folder(folder) for folder in folders]
    elif data.path is not None:
        archive = LfwArchive.open(data.path)
        parts = list(demonstration(archive, data.owner, data.n_me, data.n_not_me, recipe.seed))
    else:
        raise ConfigurationError(
            "expected folders (--set data.me=ME --set data.not_me=NOT_ME) or labelled faces (--data PATH)"
        )
    me, not_me, me_tests, not_me_tests = (network_inputs(recipe.lock, part) for part in parts)
    lock = train_lock(recipe.lock, me, not_me, options)
    lock.save(options.out)
    table = "".join(f"{step},{loss}\n" for step, loss in enumerate(lock.losses))
    write_text(options.out / "metrics.csv", f"step,train/loss\n{table}")
    plots.plot_curves(options.out, {"mean triplet loss": ("train/loss",)}, options.out / "curves.png")
    steps = len(lock.losses)
    report: dict[str, Any] = {"recipe": plain_values(recipe), "steps": steps, "seconds": lock.seconds}
    said = f"trained on {len(me)} of me and {len(not_me)} of others in {lock.seconds:.1f} s, {steps} steps"
    if len(me_tests) and len(not_me_tests):
        trial = try_lock(lock, me_tests, not_me_tests)
        plots.plot_histogram(
            lock.margins(me_tests), lock.margins(not_me_tests), options.out / "margins.png",
            "mean distance to the others minus mean distance to me", recipe.lock.production_alpha,
        )  # fmt: skip
        report["trial"], said = asdict(trial), f"{said}\n{trial}"
    write_json(options.out / "report.json", report)
    return said

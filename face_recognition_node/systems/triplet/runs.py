"""Runs of the triplet lock: one lock for one owner, and the study of how many pictures allow which alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from tqdm import tqdm

from face_recognition_node.common.errors import ConfigurationError, InputError, SourceError
from face_recognition_node.common.files import write_json, write_text
from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.picture_archive import IMAGE_ENDINGS, LfwArchive
from face_recognition_node.systems.runs import mean_or_nan
from face_recognition_node.systems.triplet.lock import HEAD, LockTrial, TripletSettings, train_lock, try_lock
from face_recognition_node.training.recipe import RunOptions, Section, plain_values
from face_recognition_node.vision.faces import FloatArray, ImageArray

Crop = Callable[[ImageArray], ImageArray]
"""Finds the face in a picture and returns it aligned, (112, 112, 3) BGR uint8."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnerFaces:
    """Aligned faces of the owner and of others, to train on and to try.

    Attributes:
        me: (K, 112, 112, 3) the owner's, to train on.
        not_me: (M, 112, 112, 3) other people's.
        me_tests: (T, 112, 112, 3) the owner's, not trained on; may be empty.
        not_me_tests: (S, 112, 112, 3) of people who are not in ``not_me``; may be empty.
    """

    me: ImageArray
    not_me: ImageArray
    me_tests: ImageArray
    not_me_tests: ImageArray


def read_folder(folder: Path, crop: Crop) -> ImageArray:
    """Return (N, 112, 112, 3) aligned faces of all pictures in ``folder``, in the order of their names.

    Raises:
        SourceError: If there is no such folder or no picture in it.
    """
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (*IMAGE_ENDINGS, ".jpeg", ".bmp"))
    if not paths:
        raise SourceError(f"{folder}: expected a folder of pictures (jpg, png, webp), found none")
    return np.stack([read_face(path, crop) for path in paths])


def read_face(path: Path, crop: Crop) -> ImageArray:
    """Return the aligned face of one picture; a picture of 112×112 pixels is taken to be one already."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: expected a picture, cannot read it")
    picture = np.asarray(image, np.uint8)
    return picture if picture.shape == (112, 112, 3) else crop(picture)


def demonstration(archive: LfwArchive, owner: str, n_me: int, n_not_me: int, seed: int) -> OwnerFaces:
    """Take ``owner``'s and other people's faces from an archive.

    Args:
        archive: Labelled aligned faces.
        owner: Name of a person with more than ``n_me`` faces.
        n_me: The owner's faces to train on; the others are tests.
        n_not_me: Other people to train on, one face each.
        seed: Of the choice.
    """
    random = np.random.default_rng(seed)
    people = np.array(archive.people)
    own = random.permutation(np.flatnonzero(people == owner))
    if len(own) <= n_me:
        raise InputError(f"{owner}: expected over {n_me} faces, the archive has {len(own)}")
    others = random.permutation(np.unique(people[people != owner]))[: n_not_me + 200]
    one_each = [int(random.choice(np.flatnonzero(people == name))) for name in others]
    me, tests = own[:n_me], own[n_me:]

    def read(numbers: list[int]) -> ImageArray:
        return np.stack([archive.read(int(number)) for number in numbers])

    return OwnerFaces(read(list(me)), read(one_each[:n_not_me]), read(list(tests)), read(one_each[n_not_me:]))


def people_with_many_faces(archive: LfwArchive, minimum: int) -> list[str]:
    """Return the names with at least ``minimum`` faces, most faces first."""
    names, counts = np.unique(np.array(archive.people), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [str(names[place]) for place in order if counts[place] >= minimum]


Embed = Callable[[ImageArray], FloatArray]


class TripletData(Section, frozen=True):
    """Whose faces.

    Attributes:
        me: Folder of the owner's pictures.
        not_me: Folder of other people's pictures.
        me_tests: Optional folder of new pictures of the owner, only to try the lock.
        not_me_tests: Optional folder of pictures of further people, only to try the lock.
        path: Zip of labelled faces to take a demonstration from where no folders are given, and for the
            study.
        owner: Whose lock the demonstration makes.
        n_me: The owner's pictures in the demonstration.
        n_not_me: Other people's.
    """

    me: Path | None = None
    not_me: Path | None = None
    me_tests: Path | None = None
    not_me_tests: Path | None = None
    path: Path | None = None
    owner: str = "Tony_Blair"
    n_me: int = 7
    n_not_me: int = 10


class StudyRecipe(Section, frozen=True):
    """Which locks the study trains.

    Attributes:
        owners: People, those with the most pictures.
        pictures: Numbers of the owner's pictures.
        alphas: Margins.
        n_not_me: Other people's pictures.
    """

    owners: int = 5
    pictures: tuple[int, ...] = (2, 4, 7)
    alphas: tuple[float, ...] = (-0.5, 0.0, 0.5, 1.0)
    n_not_me: int = 10


class TripletRecipe(Section, frozen=True):
    """How a lock, or a study of locks, is made.

    Attributes:
        kind: ``triplet_face_id``.
        data: Whose faces.
        lock: How it is trained.
        study: Which locks to compare; None for one lock.
        seed: Of the choice of faces.
    """

    kind: str
    data: TripletData = msgspec.field(default_factory=TripletData)
    lock: TripletSettings = msgspec.field(default_factory=TripletSettings)
    study: StudyRecipe | None = None
    seed: int = 0


def train_triplet(recipe: TripletRecipe, options: RunOptions, crop: Crop | None, embed: Embed | None) -> str:
    """Make the lock, or run the study; return what came out as text.

    Args:
        recipe: What.
        options: Where and how.
        crop: Finds and aligns the face of a picture; needed for folders of pictures that are not aligned.
        embed: The robot's embedder; needed for ``lock.network: head``.
    """
    if recipe.lock.network == HEAD and embed is None:
        raise ConfigurationError("lock.network: head needs the robot's embedder in models/; small needs none")
    prepare = embed if recipe.lock.network == HEAD and embed is not None else _as_they_are
    if recipe.study is not None:
        return _study(recipe, recipe.study, options, prepare)
    data = recipe.data
    if data.me is not None and data.not_me is not None:
        if crop is None:
            raise ConfigurationError("folders of pictures need the detector in models/")
        folders = [data.me, data.not_me, data.me_tests, data.not_me_tests]
        parts = [
            np.empty((0, 112, 112, 3), np.uint8) if one is None else read_folder(one, crop) for one in folders
        ]
    else:
        faces = demonstration(_archive(data), data.owner, data.n_me, data.n_not_me, recipe.seed)
        parts = [faces.me, faces.not_me, faces.me_tests, faces.not_me_tests]
    me, not_me, me_tests, not_me_tests = (prepare(part) for part in parts)
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


def _archive(data: TripletData) -> LfwArchive:
    if data.path is None:
        raise ConfigurationError(
            "expected folders (--set data.me=ME --set data.not_me=NOT_ME) or labelled faces (--data PATH)"
        )
    return LfwArchive.open(data.path)


def _as_they_are(crops: ImageArray) -> ImageArray:
    return crops


def _study(
    recipe: TripletRecipe, study: StudyRecipe, options: RunOptions, prepare: Callable[[ImageArray], Any]
) -> str:
    archive = _archive(recipe.data)
    owners = people_with_many_faces(archive, max(study.pictures) + 3)[: 1 if options.fast else study.owners]
    pictures = study.pictures[:1] if options.fast else study.pictures
    alphas = study.alphas[:2] if options.fast else study.alphas
    trials: list[LockTrial] = []
    with tqdm(total=len(owners) * len(pictures) * len(alphas), unit="lock", desc="study") as bar:
        for number, owner in enumerate(owners):
            for n_me in pictures:
                faces = demonstration(archive, owner, n_me, study.n_not_me, recipe.seed + number)
                parts = [prepare(one) for one in (faces.me, faces.not_me, faces.me_tests, faces.not_me_tests)]
                for alpha in alphas:
                    settings = msgspec.structs.replace(recipe.lock, alpha=alpha)
                    lock = train_lock(settings, parts[0], parts[1], options)
                    trials.append(try_lock(lock, parts[2], parts[3]))
                    bar.update()
    rows = [_mean_trial([t for t in trials if (t.n_me, t.alpha) == key]) for key in _keys(pictures, alphas)]
    _plot_study(rows, options.out / "study.png")
    report = {
        "recipe": plain_values(recipe),
        "owners": len(owners),
        "means": rows,
        "trials": [asdict(t) for t in trials],
    }
    write_json(options.out / "report.json", report)
    head = f"mean of {len(owners)} owners\n of me  alpha  steps  time    owner  stranger  equal error"
    lines = [
        f"{r['n_me']:6.0f}  {r['alpha']:+5.1f}  {r['steps']:5.0f}  {r['seconds']:5.1f} s"
        f"  {100 * r['owner_unlocks']:4.0f} %  {100 * r['stranger_unlocks']:6.0f} %"
        f"  {100 * r['equal_error']:8.1f} %"
        for r in rows
    ]
    return "\n".join([head, *lines])


def _keys(pictures: tuple[int, ...], alphas: tuple[float, ...]) -> list[tuple[int, float]]:
    return [(n_me, alpha) for n_me in pictures for alpha in alphas]


def _mean_trial(trials: list[LockTrial]) -> dict[str, float]:
    rows = [asdict(trial) for trial in trials]
    return {name: mean_or_nan([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def _plot_study(rows: list[dict[str, float]], path: Path) -> None:
    pyplot = plots.load_pyplot()
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 3.8))
    panels = (
        ("steps", "steps until no triplet costs anything", 1.0),
        ("equal_error", "equal error on new pictures, %", 100.0),
        ("owner_unlocks", "owner unlocks at half of alpha, %", 100.0),
    )
    for axis, (name, title, factor) in zip(axes, panels, strict=True):
        for n_me in sorted({row["n_me"] for row in rows}):
            own = [row for row in rows if row["n_me"] == n_me]
            axis.plot(
                [r["alpha"] for r in own],
                [factor * r[name] for r in own],
                marker="o",
                label=f"{n_me:.0f} pictures",
            )
        axis.set(title=title, xlabel="alpha while training")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    plots.save_figure(figure, path)

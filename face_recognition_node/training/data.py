"""Faces for training, as batches that can be computed from a step number."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.evaluation.face_archive import (
    UNLABELLED,
    FaceArchive,
    IdentitySplit,
    LabelArray,
    is_held_out,
    read_teacher,
    split_identities,
)
from face_recognition_node.training.augmentation import Augmentation
from face_recognition_node.training.recipe import BatchRecipe, DataRecipe
from face_recognition_node.vision.faces import FloatArray, ImageArray

MANIFEST = "manifest.csv"
Draw = tuple[int, int]  # face number and the seed of its augmentation


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFaces:
    """The folder that ``face-recognition prepare`` writes."""

    folder: Path
    paths: tuple[str, ...]  # (N,) crops relative to the folder
    labels: LabelArray  # (N,) identity numbers in the alphabetical order of names
    names: tuple[str, ...]  # name of each identity
    # (N, D) unit vectors if face-recognition teacher has run on the folder, else None
    teacher: FloatArray | None = None

    @classmethod
    def open(cls, folder: Path, with_teacher: bool = True) -> PreparedFaces:
        """Read the manifest of ``folder``, and the teacher's vectors if there are any."""
        table = folder / MANIFEST
        if not table.is_file():
            raise SourceError(
                f"{table}: no such file; make it with: face-recognition prepare SOURCE {folder}"
            )
        with open(table, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = tuple(sorted({row["identity"] for row in rows}))
        numbers = {name: number for number, name in enumerate(names)}
        labels = np.array([numbers[row["identity"]] for row in rows], np.int64)
        teacher = read_teacher(folder / "train_teacher.npy", len(rows)) if with_teacher else None
        return cls(folder, tuple(row["crop"] for row in rows), labels, names, teacher)

    def crop(self, index: int) -> ImageArray:
        """Return face ``index`` as (112, 112, 3) BGR uint8."""
        image = cv2.imread(str(self.folder / self.paths[index]), cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"{self.folder / self.paths[index]}: cannot be read")
        return np.asarray(image, np.uint8)


# numbered aligned faces with (N,) labels (-1 unlabelled), and the teacher's (N, D) unit vectors or None
FaceSet = FaceArchive | PreparedFaces


def open_faces(folder: Path, with_teacher: bool = True) -> FaceSet:
    """Open an archive or a prepared folder, whichever is there."""
    if (folder / MANIFEST).is_file():
        return PreparedFaces.open(folder, with_teacher)
    if (folder / "train_faces.csv").is_file():
        return FaceArchive.open(folder, with_teacher)
    raise SourceError(
        f"{folder}: expected an archive (train_faces.csv) or prepared faces ({MANIFEST}); "
        "make one with: face-recognition prepare SOURCE OUT"
    )


def class_numbers(labels: LabelArray, training: LabelArray, minimum: int) -> tuple[LabelArray, int]:
    """Number the identities that have at least ``minimum`` faces among the ``training`` indices from 0 on.

    Returns:
        (N,) class numbers, -1 for all other faces, and how many classes there are.
    """
    labelled = training[labels[training] >= 0]
    _, place, counts = np.unique(labels[labelled], return_inverse=True, return_counts=True)
    is_kept = counts >= minimum
    number = np.where(is_kept, np.cumsum(is_kept) - 1, UNLABELLED)
    classes = np.full(len(labels), UNLABELLED, np.int64)
    classes[labelled] = number[place]
    return classes, int(is_kept.sum())


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The faces with everything derived from them."""

    faces: FaceSet  # the crops
    labels: LabelArray  # (N,) identity numbers, clusters included
    split: IdentitySplit  # who is held out
    classes: LabelArray  # (N,) class numbers, -1 none
    n_classes: int  # how many

    @classmethod
    def open(cls, data: DataRecipe) -> TrainingData:
        """Open a recipe's faces and split them.

        Raises:
            SourceError: If a file is missing or belongs to other faces.
        """
        faces = open_faces(data.path, with_teacher=data.teacher is None)
        count = len(faces.labels)
        if data.teacher is not None:
            teacher = read_teacher(data.teacher, count)
            if teacher is None:
                raise SourceError(
                    f"{data.teacher}: no such file; data.teacher: null takes the one beside the faces"
                )
            faces = dataclasses.replace(faces, teacher=teacher)
        labels = faces.labels
        if data.clusters is not None:
            labels = with_clusters(labels, data.clusters)
        split = split_identities(labels, faces.teacher, data.lookalike_similarity)
        if data.exclude is not None:
            excluded = read_rows(data.exclude, 1, count)[:, 0]
            split = dataclasses.replace(split, training=np.setdiff1d(split.training, excluded))
        classes, n_classes = class_numbers(labels, split.training, data.minimum_images)
        if data.labelled_only:
            split = dataclasses.replace(split, training=split.training[classes[split.training] >= 0])
        return cls(faces, labels, split, classes, n_classes)

    def with_discriminants(self, count: int) -> TrainingData:
        """Return the same faces with a teacher of the ``count`` discriminants of its own embedding.

        Raises:
            ConfigurationError: If there is no teacher, or too few identities for so many discriminants.
        """
        teacher = self.faces.teacher
        if teacher is None:
            raise ConfigurationError("distillation.discriminants needs a teacher's embeddings")
        training = self.split.training
        reduced = discriminants(teacher, self.classes, training, count)
        return dataclasses.replace(self, faces=dataclasses.replace(self.faces, teacher=reduced))


def discriminants(teacher: FloatArray, classes: LabelArray, training: LabelArray, count: int) -> FloatArray:
    """Return (N, count) unit vectors: a teacher's (N, D) ones by linear discriminant analysis (Fisher 1936).

    A network of few dimensions cannot follow all of its teacher. The directions in which identities differ
    most, compared with how the faces of one differ, are those worth following; of the ``training`` indices
    and their (N,) classes, -1 none. The scatter within identities is shrunk by 0.6 towards a multiple of the
    unit matrix, for most have few faces. There are fewer discriminants than D and than classes.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    known = training[classes[training] >= 0]
    limit = min(teacher.shape[1], len(np.unique(classes[known])) - 1)
    if not 1 <= count <= limit:
        raise ConfigurationError(f"distillation.discriminants: expected 1 to {limit} here, got {count}")
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.6, n_components=count)
    analysis.fit(teacher[known], classes[known])
    reduced = (teacher - teacher[training].mean(axis=0)) @ analysis.scalings_[:, :count]
    return np.asarray(reduced / np.linalg.norm(reduced, axis=1, keepdims=True), np.float32)


def read_rows(path: Path, columns: int, count: int) -> LabelArray:
    """Return the first ``columns`` of a CSV as (R, columns) integers; the first is a face's row number.

    A first line that is no numbers is a heading.

    Raises:
        SourceError: If there is no such file, or a line is not numbers or names no row of the ``count``.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a CSV of row numbers")
    with open(path, newline="", encoding="utf-8") as stream:
        lines = [line[:columns] for line in csv.reader(stream) if line]
    if lines and not lines[0][0].isdecimal():
        del lines[0]
    try:
        rows = np.array(lines, np.int64).reshape(len(lines), columns)
    except ValueError as error:
        raise SourceError(f"{path}: expected {columns} whole numbers a line: {error}") from error
    if len(rows) and not 0 <= rows[:, 0].min() <= rows[:, 0].max() < count:
        raise SourceError(
            f"{path}: expected row numbers from 0 to {count - 1}, got {rows[:, 0].min()} to "
            f"{rows[:, 0].max()}; it belongs to other faces"
        )
    return rows


def with_clusters(labels: LabelArray, path: Path) -> LabelArray:
    """Return labels in which unlabelled faces have the identities of a CSV ``row,identity``.

    Raises:
        SourceError: If it gives a labelled face another identity, or a face a held-out one.
    """
    rows, identities = read_rows(path, 2, len(labels)).T
    wrong = (labels[rows] != UNLABELLED) & (labels[rows] != identities)
    if wrong.any():
        raise SourceError(f"{path}: row {rows[wrong][0]} has the identity {labels[rows[wrong][0]]} already")
    wrong = (identities < 0) | is_held_out(identities)
    if wrong.any():
        raise SourceError(
            f"{path}: {identities[wrong][0]} is no identity to train on; give it another number"
        )
    labels = labels.copy()
    labels[rows] = identities
    return labels


class BatchStream:
    """The endless sequence of batches; batch ``step`` of process ``rank`` depends on nothing but the seed.

    So a run goes on after a kill where it was, without having saved any position, and the ``world`` processes
    of a distributed run share each epoch without talking to each other. ``indices`` are the faces that may be
    drawn, ``classes`` the (N,) class numbers of all, -1 for none.
    """

    def __init__(
        self,
        indices: LabelArray,
        classes: LabelArray,
        batch: BatchRecipe,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.indices, self.batch, self.seed, self.rank, self.world = indices, batch, seed, rank, world
        self.first = 0
        known = indices[classes[indices] >= 0]
        known = known[np.argsort(classes[known], kind="stable")]
        _, starts = np.unique(classes[known], return_index=True)
        self.members = [group for group in np.split(known, starts[1:]) if len(group) >= 2]
        self.per_epoch = len(indices) // max(1, batch.random * world)
        if batch.random and self.per_epoch == 0:
            raise SourceError(f"{len(indices)} faces are fewer than one batch of {batch.random} x {world}")
        if batch.identities > len(self.members):
            raise SourceError(
                f"batch.identities: expected at most {len(self.members)}, the people with two or more faces, "
                f"got {batch.identities}"
            )

    def __iter__(self) -> Iterator[list[Draw]]:
        step = self.first
        while True:
            yield self.draw(step)
            step += 1

    def draw(self, step: int) -> list[Draw]:
        """Return face numbers and augmentation seeds of batch ``step``."""
        parts: list[LabelArray] = []
        if self.batch.identities:
            random = np.random.default_rng((self.seed, 1, step, self.rank))
            for group in random.choice(len(self.members), self.batch.identities, replace=False):
                members, count = self.members[group], self.batch.images_each
                parts.append(random.choice(members, count, replace=len(members) < count))
        if self.batch.random:
            epoch, place = divmod(step, self.per_epoch)
            start = (place * self.world + self.rank) * self.batch.random
            parts.append(self._order(epoch)[start : start + self.batch.random])
        faces = np.concatenate(parts)
        seeds = np.random.default_rng((self.seed, 2, step, self.rank)).integers(0, 2**62, len(faces))
        return list(zip(faces.tolist(), seeds.tolist(), strict=True))

    def _order(self, epoch: int) -> LabelArray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, 3, epoch)).permutation(self.indices)
        return self._permutation


class AugmentedFaces(Dataset[dict[str, Tensor]]):
    """Turns draws into ``image`` (3, 112, 112) RGB uint8, ``label`` (of (N,) ``classes``) and ``teacher``."""

    def __init__(self, faces: FaceSet, classes: LabelArray, augmentation: Augmentation) -> None:
        self.faces, self.classes, self.augmentation = faces, classes, augmentation

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        index, seed = draw
        view = self.augmentation.apply(self.faces.crop(index), np.random.default_rng(seed))
        item = {
            "image": torch.from_numpy(np.ascontiguousarray(view[:, :, ::-1].transpose(2, 0, 1))),
            "label": torch.tensor(self.classes[index]),
        }
        if self.faces.teacher is not None:
            item["teacher"] = torch.from_numpy(self.faces.teacher[index])
        return item

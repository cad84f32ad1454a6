"""The archive of aligned training faces, and the fixed split of its people.

An archive is a folder with ``train_faces.bin`` (image files one after the other), ``train_faces.csv`` (one
row each: ``bytes,identity,source``; an empty identity is an unlabelled face) and, if there is a teacher,
``train_teacher.npy`` ((N, D) int8, each row a teacher's embedding up to its length).
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import SourceError
from face_recognition_node.vision.faces import FloatArray, ImageArray

LabelArray = NDArray[np.int64]
UNLABELLED = -1

# identities whose number is divisible by this are the test people: never trained on, judged last
TEST_MODULUS = 10
# identities with this remainder are the validation people: never trained on, used to judge curves
VALIDATION_MODULUS, VALIDATION_REMAINDER = 50, 1
# training faces closer than this to a held-out face (the teacher's cosine) are left out too: they may show
# the same person under no label or another one. Of pairs of different test people 0.01 % come that close
LOOKALIKE_SIMILARITY = 0.55
TEACHER_STATE = "teacher_state.json"  # beside a teacher's files: whose they are, and how many faces are done
# identities of two collections whose mean vectors are nearer than this are one person
DOUBLE_SIMILARITY = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class FaceArchive:
    """Aligned faces in one file, decoded on demand."""

    labels: LabelArray  # (N,) identity numbers, `UNLABELLED` where nobody knows
    sources: NDArray[np.str_]  # (N,) names of the collections the faces come from
    ends: LabelArray  # (N,) byte offset behind each image
    data: NDArray[np.uint8]  # all bytes, memory-mapped
    teacher: FloatArray | None  # (N, D) float32 unit vectors, or None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def open(cls, folder: Path, with_teacher: bool = True) -> FaceArchive:
        """Open the archive in ``folder``, with a teacher's vectors beside it, or raise SourceError."""
        table, pixels = folder / "train_faces.csv", folder / "train_faces.bin"
        for path in (table, pixels):
            if not path.is_file():
                raise SourceError(f"{path}: no such file; expected an archive of aligned faces in {folder}")
        with open(table, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        ends = np.cumsum([int(row["bytes"]) for row in rows], dtype=np.int64)
        data: NDArray[np.uint8] = np.memmap(pixels, np.uint8, mode="r")
        if len(ends) == 0 or ends[-1] != len(data):
            raise SourceError(
                f"{table}: its sizes add up to {ends[-1:]} bytes, but {pixels.name} has {len(data)}"
            )
        labels = np.array([int(row["identity"]) if row["identity"] else UNLABELLED for row in rows], np.int64)
        teacher = read_teacher(folder / "train_teacher.npy", len(rows)) if with_teacher else None
        return cls(labels, np.array([row["source"] for row in rows]), ends, data, teacher)

    def crop(self, index: int) -> ImageArray:
        """Return face ``index`` as (112, 112, 3) BGR uint8."""
        start = self.ends[index - 1] if index else 0
        image = cv2.imdecode(self.data[start : self.ends[index]], cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"face {index} of the archive cannot be decoded")
        return np.asarray(image, np.uint8)

    def crops(self, indices: LabelArray) -> ImageArray:
        """Return (len(indices), 112, 112, 3) BGR uint8."""
        if len(indices) == 0:
            return np.empty((0, 112, 112, 3), np.uint8)
        return np.stack([self.crop(int(index)) for index in indices])


def read_teacher(path: Path, rows: int) -> FloatArray | None:
    """Return a teacher's (rows, D) unit vectors, None without a file; SourceError if it is not whole."""
    if not path.is_file():
        return None
    state = path.with_name(TEACHER_STATE)
    if state.is_file():
        done = int(json.loads(state.read_text(encoding="utf-8")).get("done", rows))
        if done < rows:
            raise SourceError(
                f"{path}: {done} of {rows} faces are done; call `face-recognition teacher` again to finish it"
            )
    stored = np.load(path, mmap_mode="r")
    if stored.ndim != 2 or len(stored) != rows:
        raise SourceError(f"{path}: expected {rows} rows, one a face, got shape {stored.shape}")
    vectors = stored.astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return np.asarray(vectors, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class IdentitySplit:
    """Which faces serve what; the three index arrays share no face and no person."""

    training: LabelArray
    validation: LabelArray
    test: LabelArray
    n_lookalikes: int  # left out of training because the teacher takes them for a held-out person

    def __str__(self) -> str:
        return (
            f"{len(self.training)} faces to train on, {len(self.validation)} to validate, "
            f"{len(self.test)} to test; "
            f"{self.n_lookalikes} left out as look-alikes of held-out people"
        )


def is_held_out(identities: LabelArray) -> NDArray[np.bool_]:
    """Return whether each identity number is a test or a validation person's."""
    is_validation = identities % VALIDATION_MODULUS == VALIDATION_REMAINDER
    return np.asarray((identities >= 0) & ((identities % TEST_MODULUS == 0) | is_validation))


def split_identities(
    labels: LabelArray, teacher: FloatArray | None = None, lookalike: float = LOOKALIKE_SIMILARITY
) -> IdentitySplit:
    """Split faces by their (N,) identity numbers; the same numbers always give the same split.

    Unlabelled faces can only be trained on. With a teacher's (N, D) unit vectors, faces that look like a
    held-out one (cosine above ``lookalike``) leave the training part.
    """
    is_test = (labels >= 0) & (labels % TEST_MODULUS == 0)
    is_training = ~is_held_out(labels)
    is_validation = ~is_training & ~is_test
    n_lookalikes = 0
    if teacher is not None and is_training.any() and not is_training.all():
        near = is_training & (nearest_similarity(teacher, teacher[~is_training]) > lookalike)
        n_lookalikes = int(near.sum())
        is_training &= ~near
    training, validation, test = (np.flatnonzero(part) for part in (is_training, is_validation, is_test))
    return IdentitySplit(training, validation, test, n_lookalikes)


def merge_doubles(labels: LabelArray, sources: NDArray[np.str_], teacher: FloatArray) -> LabelArray:
    """Return (N,) labels in which a person whom two collections hold under two numbers has the smaller one.

    A stranger who is in the gallery under another number would count as falsely named. Two identities are one
    person if they come from different collections and their mean vectors, of the teacher's (N, D), are nearer
    than ``DOUBLE_SIMILARITY``.
    """
    people = np.unique(labels[labels >= 0])
    if len(people) == 0:
        return labels.copy()
    centres = np.stack([teacher[labels == person].mean(axis=0) for person in people])
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-6)
    homes = np.array([sources[labels == person][0] for person in people])
    merged = labels.copy()
    for first, second in np.argwhere(np.triu(centres @ centres.T, 1) > DOUBLE_SIMILARITY):
        if homes[first] != homes[second]:
            merged[merged == people[second]] = people[first]
    return merged


def nearest_similarity(vectors: FloatArray, others: FloatArray, chunk: int = 4096) -> FloatArray:
    """Return (N,) the largest cosine of each (N, D) unit vector with any of the (M, D) ``others``."""
    if len(others) == 0:
        return np.full(len(vectors), -1, np.float32)
    parts = [(vectors[at : at + chunk] @ others.T).max(axis=1) for at in range(0, len(vectors), chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)

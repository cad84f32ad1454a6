"""The faces that ``evaluate identification`` judges: of people nobody was trained on."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.config import ModelsConfig
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.identification import BoolArray
from face_recognition_node.evaluation.picture_archive import embed_in_batches
from face_recognition_node.vision.detector import Embedder
from face_recognition_node.vision.faces import FloatArray, ImageArray

YAW_EDGES = (0, 15, 30, 45, 90)

Change = Callable[[ImageArray], ImageArray]
NameArray = np.ndarray[tuple[int, ...], np.dtype[np.str_]]


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFaces:
    """Faces of people nobody was trained on.

    Attributes:
        labels: (N,) who each one is.
        names: (N,) the same as a name: LFW's, the folder's, the archive's number.
        collections: (N,) where each one comes from.
        read: Returns face n as (112, 112, 3) BGR uint8.
        said: Where they come from, for people.
    """

    labels: LabelArray
    names: NameArray
    collections: NameArray
    read: Callable[[int], ImageArray]
    said: str


def open_judged_faces(path: Path) -> JudgedFaces:
    """Return the held-out people of an archive or a prepared folder, or everybody of an LFW archive."""
    from face_recognition_node.evaluation.face_archive import FaceArchive, merge_doubles, split_identities
    from face_recognition_node.evaluation.picture_archive import LfwArchive

    if (path / "manifest.csv").is_file():
        from face_recognition_node.training.data import PreparedFaces

        prepared = PreparedFaces.open(path)
        chosen = split_identities(prepared.labels).test
        labels = prepared.labels[chosen]
        return JudgedFaces(
            labels,
            np.array(prepared.names)[labels],
            np.full(len(labels), path.name),
            lambda number: prepared.crop(int(chosen[number])),
            _said(path, labels),
        )
    if not (path / "train_faces.csv").is_file():
        lfw = LfwArchive.open(path)
        names, labels = np.unique(lfw.people, return_inverse=True)
        said = f"{path.name}: {len(labels)} faces of {len(names)} people"
        return JudgedFaces(
            labels.astype(np.int64), names[labels], np.full(len(labels), "lfw"), lfw.read, said
        )
    archive = FaceArchive.open(path)
    chosen = split_identities(archive.labels).test
    labels, collections = archive.labels[chosen], archive.sources[chosen]
    if archive.teacher is not None:
        labels = merge_doubles(labels, collections, archive.teacher[chosen])
    return JudgedFaces(
        labels,
        labels.astype(np.str_),
        collections,
        lambda number: archive.crop(int(chosen[number])),
        _said(path, labels),
    )


def _said(path: Path, labels: LabelArray) -> str:
    return f"test people of {path.name}: {len(labels)} faces of {len(np.unique(labels))} people"


def read_groups(path: Path, faces: JudgedFaces) -> dict[str, BoolArray]:
    """Return which faces belong to which group, by name, from a table of people.

    Args:
        path: CSV with the columns ``identity`` and ``group``; identities are named as in the faces. People
            who are not in it belong to no group.
        faces: The faces.

    Raises:
        SourceError: If the file is missing or lacks a column.
        InputError: If it names none of the people.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a CSV with the columns identity and group")
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"identity", "group"} <= set(rows[0]):
        raise SourceError(f"{path}: expected rows with the columns identity and group")
    members: dict[str, list[str]] = {}
    for row in rows:
        members.setdefault(row["group"], []).append(row["identity"])
    groups = {group: np.isin(faces.names, people) for group, people in sorted(members.items())}
    if not any(chosen.any() for chosen in groups.values()):
        raise InputError(f"{path}: names nobody of {faces.said}; a name there is like {faces.names[0]!r}")
    return groups


def embed_faces(embedder: Embedder, faces: JudgedFaces, change: Change | None, name: str) -> FloatArray:
    """Return (N, D) embeddings of all faces, each changed first, with a progress bar."""

    def read(number: int) -> ImageArray:
        crop = faces.read(number)
        return crop if change is None else change(crop)

    return embed_in_batches(embedder, read, len(faces.labels), name, shown=True)


def estimate_yaws(faces: JudgedFaces, models: ModelsConfig) -> FloatArray:
    """Return (N,) head yaws in degrees from landmarks found again in the crops; nan where none was found."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.config import DetectorConfig
    from face_recognition_node.vision.pose import estimate_pose

    detector = load_detector(models, DetectorConfig())
    yaws = np.full(len(faces.labels), np.nan, np.float32)
    for number in range(len(yaws)):
        padded = cv2.copyMakeBorder(faces.read(number), 56, 56, 56, 56, cv2.BORDER_CONSTANT)
        found = detector.detect(np.asarray(padded, np.uint8))
        if found:
            face = max(found, key=lambda one: one.size_px)
            yaws[number] = estimate_pose(face.landmarks_xy).yaw
    return yaws


def yaw_bins(yaws: FloatArray) -> dict[str, BoolArray]:
    """Return which faces are turned how far, by name; faces without an estimate are in none."""
    turn = np.abs(yaws)
    edges = itertools.pairwise(YAW_EDGES)
    return {f"yaw {low} to {high}": (turn >= low) & (turn < high) for low, high in edges}

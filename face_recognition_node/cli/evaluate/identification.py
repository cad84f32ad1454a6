"""``face-recognition evaluate identification FACES``: is it somebody of the gallery, who, or a stranger?"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.cli.options import (
    add_json_option,
    add_model_options,
    file_to_write,
    given_path,
    models_config,
    report,
)
from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.common.tables import aligned
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.identification import BoolArray
from face_recognition_node.evaluation.picture_archive import embed_in_batches
from face_recognition_node.vision.alignment import CROP_SIZE
from face_recognition_node.vision.detector import Embedder
from face_recognition_node.vision.faces import FloatArray, ImageArray

Change = Callable[[ImageArray], ImageArray]
NameArray = np.ndarray[tuple[int, ...], np.dtype[np.str_]]
CURVE_FPIR = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MINIMUM_COUNTED = 100  # faces that a group of people needs before it is reported


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "faces",
        type=given_path,
        help="folder of a training archive or of prepared faces (their held-out test people), or LFW",
    )
    add("--gallery-sizes", type=int, nargs="+", default=[10, 50, 200], metavar="N", help="people enrolled")
    add("--shots", type=int, nargs="+", default=[1, 3], metavar="N", help="faces enrolled of each")
    add("--fpir", type=float, nargs="+", default=[0.1, 0.01], help="rates at which to report DIR")
    add("--repetitions", type=int, default=10, help="random galleries")
    add("--face-pixels", type=int, metavar="N", help="reduce the probes to N pixels (not the gallery)")
    add(
        "--groups",
        type=given_path,
        metavar="CSV",
        help="also report each group of people; a CSV with the columns identity and group",
    )
    add("--report", type=file_to_write, metavar="HTML", help="write a page with curves and pictures")
    add("--seed", type=int, default=0, help="seed of the random galleries")
    add_json_option(parser)
    add_model_options(parser, only=("models_dir", "embedder", "backend", "device", "precision", "threads"))


def run(arguments: argparse.Namespace) -> int:
    """Embed, enroll random people again and again, report."""
    from face_recognition_node.backends import load_embedder
    from face_recognition_node.evaluation.degradation import reduce_face
    from face_recognition_node.evaluation.identification import IdentificationResult, open_set_identification

    pixels = arguments.face_pixels
    if pixels is not None and not 4 <= pixels <= CROP_SIZE:
        raise InputError(f"--face-pixels: expected 4 to {CROP_SIZE}, got {pixels}")
    faces = open_judged_faces(arguments.faces)
    embedder = load_embedder(models_config(arguments))
    plain = embed_faces(embedder, faces, None, "embedding")
    probes = plain
    if pixels is not None:
        probes = embed_faces(embedder, faces, partial(reduce_face, side=pixels), f"{pixels} px")

    def measure(
        size: int,
        shots: int,
        shown: FloatArray,
        keep: Any = slice(None),
        counted: BoolArray | None = None,
        rates: Sequence[float] = tuple(arguments.fpir),
    ) -> IdentificationResult:
        return open_set_identification(
            plain[keep], faces.labels[keep], size, shots, rates,
            repetitions=arguments.repetitions, seed=arguments.seed, probes=shown[keep], counted=counted,
        )  # fmt: skip

    sizes, most = sorted(arguments.gallery_sizes), max(arguments.shots)
    middle = sizes[len(sizes) // 2]
    blocks = {
        "by gallery": {f"{size} x {n}": measure(size, n, probes) for size in sizes for n in arguments.shots},
        "by collection": {
            f"{word} {one}": measure(middle, most, probes, kept)
            for one in np.unique(faces.collections)
            for word, kept in (("without", faces.collections != one), ("only", faces.collections == one))
            if not kept.all() and _is_enough(faces.labels[kept], middle, most)
        },
    }
    few: list[str] = []
    if arguments.groups is not None:
        groups = read_groups(arguments.groups, faces)
        few = [f"{name}: {who.sum()}" for name, who in groups.items() if who.sum() < MINIMUM_COUNTED]
        blocks["by group"] = {
            name: measure(middle, most, probes, counted=who)
            for name, who in groups.items()
            if who.sum() >= MINIMUM_COUNTED
        }
    head = f"{embedder.card.name} on {embedder.backend.name}; {faces.description}"
    text = head
    for name, block in blocks.items():
        if block:
            text += f"\n{name}:\n{aligned([(key, str(one)) for key, one in block.items()], indent='  ')}"
    if few:
        text += f"\nleft out, fewer than {MINIMUM_COUNTED} faces: {', '.join(few)}"
    figures: dict[str, Any] = {
        "model": embedder.card.name,
        "fingerprint": embedder.fingerprint,
        "faces": faces.description,
        "face_pixels": pixels,
        "left_out": few,
    }
    for name, block in blocks.items():
        figures[name.replace(" ", "_")] = {key: asdict(one) for key, one in block.items()}
    if arguments.report is not None:
        from face_recognition_node.evaluation.plots import write_page

        curves = {
            f"{size} x {n}": measure(size, n, probes, rates=CURVE_FPIR)
            for size in sizes
            for n in arguments.shots
        }
        draw = partial(_draw, plain, faces.labels, curves)
        write_page(arguments.report, "Open-set identification", head, text, draw)
    report(text, figures, arguments.json)
    return 0


def _is_enough(labels: LabelArray, size: int, shots: int) -> bool:
    _, counts = np.unique(labels, return_counts=True)
    return int((counts > shots).sum()) >= size and len(counts) > size


def _draw(embeddings: FloatArray, labels: LabelArray, curves: dict[str, Any], folder: Path) -> Sequence[Path]:
    from face_recognition_node.evaluation import plots

    first, second = np.triu_indices(len(labels), 1)
    same = labels[first] == labels[second]
    similarity = np.einsum("pd,pd->p", embeddings[first[same]], embeddings[second[same]])
    n_others = min(200_000, int((~same).sum()))
    some = np.random.default_rng(0).choice(np.flatnonzero(~same), n_others, replace=False)
    others = np.einsum("pd,pd->p", embeddings[first[some]], embeddings[second[some]])
    return (
        plots.plot_identification(curves, folder / "dir.png"),
        plots.plot_histogram(similarity, others, folder / "similarity.png", "cosine"),
        plots.plot_most_pictured(embeddings, labels, folder / "map.png", "Test people"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFaces:
    """Faces of people nobody was trained on."""

    labels: LabelArray  # (N,) who each one is
    names: NameArray  # (N,) the same as a name: LFW's, the folder's, the archive's number
    collections: NameArray  # (N,) where each one comes from
    read: Callable[[int], ImageArray]  # returns face n as (112, 112, 3) BGR uint8
    description: str  # where they come from, for people


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
            _describe(path, labels),
        )
    if not (path / "train_faces.csv").is_file():
        lfw = LfwArchive.open(path)
        names, labels = np.unique(lfw.people, return_inverse=True)
        description = f"{path.name}: {len(labels)} faces of {len(names)} people"
        return JudgedFaces(
            labels.astype(np.int64), names[labels], np.full(len(labels), "lfw"), lfw.read, description
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
        _describe(path, labels),
    )


def _describe(path: Path, labels: LabelArray) -> str:
    return f"test people of {path.name}: {len(labels)} faces of {len(np.unique(labels))} people"


def read_groups(path: Path, faces: JudgedFaces) -> dict[str, BoolArray]:
    """Return which faces belong to which group, from a CSV with the columns ``identity`` and ``group``.

    Identities are named as in the faces. People who are not in it belong to no group.

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
        raise InputError(
            f"{path}: names nobody of {faces.description}; a name there is like {faces.names[0]!r}"
        )
    return groups


def embed_faces(embedder: Embedder, faces: JudgedFaces, change: Change | None, name: str) -> FloatArray:
    """Return (N, D) embeddings of all faces, each changed first, with a progress bar."""

    def read(number: int) -> ImageArray:
        crop = faces.read(number)
        return crop if change is None else change(crop)

    return embed_in_batches(embedder, read, len(faces.labels), name, shown=True)

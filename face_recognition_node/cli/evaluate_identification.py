"""``face-recognition evaluate identification FACES``: is it somebody of the gallery, who, or a stranger?"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face_recognition_node.cli.json_output import add_json_option, report
from face_recognition_node.cli.model_options import add_model_options, models_config
from face_recognition_node.core.alignment import CROP_SIZE
from face_recognition_node.core.embedder import Embedder
from face_recognition_node.core.errors import InputError
from face_recognition_node.core.faces import FloatArray, ImageArray
from face_recognition_node.core.model_card import ModelsConfig
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.identification import BoolArray

SWEEP_PIXELS = (64, 48, 32, 24, 16)
SWEEP_BLUR = (1.0, 2.0, 3.0, 4.0)
YAW_EDGES = (0, 15, 30, 45, 90)
MINIMUM_COUNTED = 100
"""Faces that a bin of yaw needs before it is reported."""
_BATCH = 16

Change = Callable[[ImageArray], ImageArray]


@dataclass(frozen=True, slots=True, eq=False)
class TestFaces:
    """Faces of people nobody was trained on.

    Attributes:
        labels: (N,) who each one is.
        groups: (N,) collection of each one.
        read: Returns face n as (112, 112, 3) BGR uint8.
        said: Where they come from.
    """

    labels: LabelArray
    groups: np.ndarray[tuple[int, ...], np.dtype[np.str_]]
    read: Callable[[int], ImageArray]
    said: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "faces",
        type=Path,
        help="the training archive's folder (its held-out test people), or LFW as zip or folder",
    )
    parser.add_argument(
        "--gallery-sizes", type=int, nargs="+", default=[10, 50, 200], metavar="N", help="people"
    )
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[1, 3], metavar="N", help="faces enrolled of each"
    )
    parser.add_argument(
        "--fpir", type=float, nargs="+", default=[0.1, 0.01], help="rates at which to report DIR"
    )
    parser.add_argument("--repetitions", type=int, default=10, help="random galleries")
    parser.add_argument(
        "--face-pixels", type=int, metavar="N", help="reduce the probes to N pixels (not the gallery)"
    )
    parser.add_argument("--sweep", action="store_true", help="also measure against face size, blur and yaw")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a page with curves and pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the random galleries")
    add_json_option(parser)
    add_model_options(parser, only=("models_dir", "embedder", "backend", "device", "precision", "threads"))


def open_test_faces(path: Path) -> TestFaces:
    """Return the held-out people of an archive, or everybody of an LFW archive."""
    from face_recognition_node.evaluation.face_archive import FaceArchive, merge_doubles, split_identities
    from face_recognition_node.evaluation.lfw import LfwArchive

    if not (path / "train_faces.csv").is_file():
        lfw = LfwArchive.open(path)
        _, labels = np.unique(lfw.people, return_inverse=True)
        groups = np.full(len(labels), "lfw")
        return TestFaces(labels.astype(np.int64), groups, lfw.read, f"{path.name}: {len(labels)} faces")
    archive = FaceArchive.open(path)
    chosen = split_identities(archive.labels).test
    labels, groups = archive.labels[chosen], archive.sources[chosen]
    if archive.teacher is not None:
        labels = merge_doubles(labels, groups, archive.teacher[chosen])
    said = f"test people of {path.name}: {len(chosen)} faces of {len(np.unique(labels))} people"
    return TestFaces(labels, groups, lambda number: archive.crop(int(chosen[number])), said)


def embed_faces(embedder: Embedder, faces: TestFaces, change: Change | None, name: str) -> FloatArray:
    """Return (N, D) embeddings of all faces, each changed first, with a progress bar."""
    from tqdm import tqdm

    made = np.empty((len(faces.labels), embedder.dimension), np.float32)
    with tqdm(total=len(made), unit="face", desc=name) as bar:
        for start in range(0, len(made), _BATCH):
            crops = [faces.read(number) for number in range(start, min(start + _BATCH, len(made)))]
            batch = np.stack([change(crop) for crop in crops] if change is not None else crops)
            made[start : start + len(batch)] = embedder.embed(batch)
            bar.update(len(batch))
    return made


def run(arguments: argparse.Namespace) -> int:
    """Embed, enrol random people again and again, report."""
    from face_recognition_node.backends import load_embedder
    from face_recognition_node.evaluation.degradation import reduce_face
    from face_recognition_node.evaluation.identification import IdentificationResult, open_set_identification

    pixels = arguments.face_pixels
    if pixels is not None and not 4 <= pixels <= CROP_SIZE:
        raise InputError(f"--face-pixels: expected 4 to {CROP_SIZE}, got {pixels}")
    faces = open_test_faces(arguments.faces)
    embedder = load_embedder(models_config(arguments))
    plain = embed_faces(embedder, faces, None, "embedding")
    probes = plain
    if pixels is not None:
        probes = embed_faces(embedder, faces, partial(reduce_face, side=pixels), f"{pixels} px")

    def measure(
        size: int, shots: int, shown: FloatArray, keep: Any = slice(None), counted: BoolArray | None = None
    ) -> IdentificationResult:
        return open_set_identification(
            plain[keep],
            faces.labels[keep],
            size,
            shots,
            arguments.fpir,
            arguments.repetitions,
            arguments.seed,
            shown[keep],
            counted,
        )

    sizes, most = sorted(arguments.gallery_sizes), max(arguments.shots)
    middle = sizes[len(sizes) // 2]
    blocks = {
        "by gallery": {f"{size} x {n}": measure(size, n, probes) for size in sizes for n in arguments.shots},
        "by collection": {
            f"without {group}": measure(middle, most, probes, faces.groups != group)
            for group in np.unique(faces.groups)
            if _is_enough(faces.labels[faces.groups != group], middle, most)
        },
        "by face": {
            name: measure(
                middle, most, plain if change is None else embed_faces(embedder, faces, change, name)
            )
            for name, change in (sweep_changes() if arguments.sweep else {}).items()
        },
    }
    if arguments.sweep:
        blocks["by yaw"] = {
            name: measure(middle, most, plain, counted=turned)
            for name, turned in yaw_bins(estimate_yaws(faces, models_config(arguments))).items()
            if turned.sum() >= MINIMUM_COUNTED
        }
    head = f"{embedder.card.name} on {embedder.backend.name}; {faces.said}"
    text = "\n".join([head, *(_lines(name, block) for name, block in blocks.items() if block)])
    figures: dict[str, Any] = {
        "model": embedder.card.name,
        "fingerprint": embedder.fingerprint,
        "faces": faces.said,
        "face_pixels": pixels,
    }
    for name, block in blocks.items():
        figures[name.replace(" ", "_")] = {key: one.to_dict() for key, one in block.items()}
    if arguments.report is not None:
        _write_report(arguments.report, head, text, plain, faces, blocks["by face"])
    report(text, figures, arguments.json)
    return 0


def estimate_yaws(faces: TestFaces, models: ModelsConfig) -> FloatArray:
    """Return (N,) head yaws in degrees from landmarks found again in the crops; nan where none was found."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.core.detector import DetectorConfig
    from face_recognition_node.core.pose import estimate_pose

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
    edges = [(low, high) for low, high in itertools.pairwise(YAW_EDGES)]
    return {f"yaw {low} to {high}": (turn >= low) & (turn < high) for low, high in edges}


def sweep_changes() -> dict[str, Change | None]:
    """Return what the sweep does to the probes, by name."""
    from face_recognition_node.evaluation.degradation import blur_face, reduce_face

    changes: dict[str, Change | None] = {"112 px, sharp": None}
    changes |= {f"{side} px": partial(reduce_face, side=side) for side in SWEEP_PIXELS}
    return changes | {f"blur {sigma:g} px": partial(blur_face, sigma=sigma) for sigma in SWEEP_BLUR}


def _is_enough(labels: LabelArray, size: int, shots: int) -> bool:
    _, counts = np.unique(labels, return_counts=True)
    return int((counts > shots).sum()) >= size and len(counts) > size


def _lines(name: str, block: dict[str, Any]) -> str:
    width = max(len(key) for key in block)
    return "\n".join([f"{name}:", *(f"  {key:{width}} {one}" for key, one in block.items())])


def _write_report(
    path: Path, head: str, text: str, embeddings: FloatArray, faces: TestFaces, sweep: dict[str, Any]
) -> None:
    from face_recognition_node.evaluation import embedding_plots
    from face_recognition_node.evaluation.report_page import Section, write_page

    first, second = np.triu_indices(len(faces.labels), 1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        same = faces.labels[first] == faces.labels[second]
        similarity = np.einsum("pd,pd->p", embeddings[first[same]], embeddings[second[same]])
        some = np.random.default_rng(0).choice(
            np.flatnonzero(~same), min(200_000, int((~same).sum())), replace=False
        )
        others = np.einsum("pd,pd->p", embeddings[first[some]], embeddings[second[some]])
        pictures = [embedding_plots.plot_histogram(similarity, others, place / "similarity.png", "cosine")]
        values, counts = np.unique(faces.labels, return_counts=True)
        shown = values[np.argsort(-counts, kind="stable")][:40]
        kept = np.concatenate([np.flatnonzero(faces.labels == person)[:25] for person in shown])
        pictures.append(
            embedding_plots.plot_projections(
                embeddings[kept], faces.labels[kept], place / "map.png", "Test people"
            )
        )
        if sweep:
            pictures.append(embedding_plots.plot_sweep(sweep, place / "sweep.png"))
        write_page(
            path,
            "Open-set identification",
            [Section(head, text), Section("Pictures", pictures=tuple(pictures))],
        )

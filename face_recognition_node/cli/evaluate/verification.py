"""``face-recognition evaluate verification ARCHIVE``: the official LFW folds, and every pair."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from face_recognition_node.cli.options import (
    add_json_option,
    add_model_options,
    file_to_write,
    given_path,
    models_config,
    report,
)
from face_recognition_node.evaluation.degradation import darken_face, reduce_face
from face_recognition_node.evaluation.picture_archive import embed_in_batches
from face_recognition_node.vision.alignment import CROP_SIZE
from face_recognition_node.vision.faces import ImageArray


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add = parser.add_argument
    add("archive", type=given_path, help="zip or folder: NAME/NAME_0001.webp, aligned 112x112, and pairs.txt")
    add("--face-pixels", type=int, metavar="N", help="reduce the aligned faces to N pixels first")
    add(
        "--light", type=float, default=1.0, metavar="SHARE",
        help="darken the faces to this fraction of their light and add camera noise",
    )  # fmt: skip
    add("--report", type=file_to_write, metavar="HTML", help="write a page with curves and pictures")
    add_json_option(parser)
    add_model_options(parser, only=("models_dir", "embedder", "backend", "device", "precision", "threads"))


def run(arguments: argparse.Namespace) -> int:
    """Embed every picture, judge the pairs, report."""
    from face_recognition_node.backends import load_embedder
    from face_recognition_node.common.errors import InputError
    from face_recognition_node.evaluation.picture_archive import LfwArchive
    from face_recognition_node.evaluation.verification import evaluate_all_pairs, evaluate_pairs, roc_curve

    if arguments.face_pixels is not None and not 4 <= arguments.face_pixels <= CROP_SIZE:
        raise InputError(f"--face-pixels: expected 4 to {CROP_SIZE}, got {arguments.face_pixels}")
    archive = LfwArchive.open(arguments.archive)
    embedder = load_embedder(models_config(arguments))

    def read(number: int) -> ImageArray:
        crop = reduce_face(archive.read(number), arguments.face_pixels or CROP_SIZE)
        return darken_face(crop, arguments.light)

    embeddings = embed_in_batches(embedder, read, len(archive.names))
    pairs = archive.pairs
    similarity = np.einsum("pd,pd->p", embeddings[pairs.first], embeddings[pairs.second])
    official = evaluate_pairs(similarity, pairs.is_same, pairs.fold, pairs.person)
    every = evaluate_all_pairs(embeddings, archive.people)
    backend = embedder.backend
    figures = {
        "model": embedder.card.name,
        "fingerprint": embedder.fingerprint,
        "backend": {"name": backend.name, "device": backend.device, "precision": backend.precision},
        "face_pixels": arguments.face_pixels,
        "light": arguments.light,
        "pictures": len(archive.names),
        **asdict(official),
        "all_pairs": asdict(every),
    }
    head = f"{embedder.card.name} on {backend.name} ({backend.device}, {backend.precision})"
    text = f"{official}\n{every}"
    if arguments.report is not None:
        from face_recognition_node.evaluation import plots

        def draw(folder: Path) -> Sequence[Path]:
            _, labels = np.unique(archive.people, return_inverse=True)
            same, different = similarity[pairs.is_same], similarity[~pairs.is_same]
            curve = roc_curve(similarity, pairs.is_same)
            return (
                plots.plot_roc_and_det(curve, folder / "roc_det.png"),
                plots.plot_histogram(same, different, folder / "similarity.png", "cosine"),
                plots.plot_most_pictured(embeddings, labels, folder / "map.png", "People"),
            )

        plots.write_page(arguments.report, "Verification", head, text, draw)
    report(f"{head}\n{text}", figures, arguments.json)
    return 0

"""``face-recognition evaluate verification ARCHIVE``: the official LFW folds, and every pair."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.cli.json_output import add_json_option, report
from face_recognition_node.cli.model_options import add_model_options, models_config
from face_recognition_node.core.alignment import CROP_SIZE
from face_recognition_node.core.embedder import Embedder
from face_recognition_node.core.embedding import normalize
from face_recognition_node.core.faces import FloatArray, ImageArray

BATCH = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    parser.add_argument(
        "archive", type=Path, help="zip or folder: NAME/NAME_0001.webp, aligned 112x112, and pairs.txt"
    )
    parser.add_argument(
        "--face-pixels", type=int, metavar="N", help="reduce the aligned faces to N pixels first"
    )
    parser.add_argument(
        "--mirror", action="store_true", help="average each face's embedding with its mirror image's"
    )
    add_json_option(parser)
    add_model_options(parser, only=("models_dir", "embedder", "backend", "device", "precision", "threads"))


def reduce_face(crop_bgr: ImageArray, pixels: int) -> ImageArray:
    """Return the crop as a camera far away would give it: shrunk to ``pixels`` and enlarged again."""
    small = cv2.resize(crop_bgr, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR), np.uint8)


def embed_all(
    embedder: Embedder, read: Callable[[int], ImageArray], count: int, face_pixels: int | None, mirror: bool
) -> FloatArray:
    """Return (count, D) embeddings of pictures 0 … count - 1, with a progress bar."""
    from tqdm import tqdm

    embeddings = np.empty((count, embedder.dimension), np.float32)
    with tqdm(total=count, unit="face", desc="embedding") as bar:
        for start in range(0, count, BATCH):
            crops = [read(number) for number in range(start, min(start + BATCH, count))]
            if face_pixels is not None:
                crops = [reduce_face(crop, face_pixels) for crop in crops]
            batch = np.stack(crops)
            vectors = embedder.embed(batch)
            if mirror:
                vectors = normalize(vectors + embedder.embed(np.ascontiguousarray(batch[:, :, ::-1])))
            embeddings[start : start + len(batch)] = vectors
            bar.update(len(batch))
    return embeddings


def run(arguments: argparse.Namespace) -> int:
    """Embed every picture, judge the pairs, report."""
    from face_recognition_node.backends import load_embedder
    from face_recognition_node.core.errors import InputError
    from face_recognition_node.evaluation.lfw import LfwArchive
    from face_recognition_node.evaluation.verification import evaluate_all_pairs, evaluate_pairs

    if arguments.face_pixels is not None and not 4 <= arguments.face_pixels <= CROP_SIZE:
        raise InputError(f"--face-pixels: expected 4 to {CROP_SIZE}, got {arguments.face_pixels}")
    archive = LfwArchive.open(arguments.archive)
    embedder = load_embedder(models_config(arguments))
    embeddings = embed_all(
        embedder, archive.read, len(archive.names), arguments.face_pixels, arguments.mirror
    )
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
        "mirror": arguments.mirror,
        "pictures": len(archive.names),
        **official.to_dict(),
        "all_pairs": every.to_dict(),
    }
    head = f"{embedder.card.name} on {backend.name} ({backend.device}, {backend.precision})"
    report(f"{head}\n{official}\n{every}", figures, arguments.json)
    return 0

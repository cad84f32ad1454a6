"""``face-recognition adopt MODEL.onnx --name NAME --calibrate FACES``: take any face network as embedder."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from face_recognition_node.cli.models import calibrate
from face_recognition_node.cli.options import add_json_option, add_model_options, given_path
from face_recognition_node.common.errors import InputError

_NAME = "abcdefghijklmnopqrstuvwxyz0123456789_"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add = parser.add_argument
    parser.description = (
        "Finds out what the network takes, writes its model card, and learns from labelled faces what its "
        "similarities are worth. Afterwards models.embedder: NAME uses it everywhere. The faces must be of "
        "people whom the network was not trained on."
    )
    add(
        "model",
        type=given_path,
        metavar="MODEL.onnx",
        help="a face embedder for faces aligned as for ArcFace",
    )
    add("--name", required=True, help="its name: lower-case letters, digits, underscores")
    add(
        "--calibrate", type=given_path, required=True, metavar="FACES",
        help="zip or folder of aligned 112x112 faces, NAME/FILE.webp, with LFW's pairs.txt",
    )  # fmt: skip
    add("--license", help="terms of use of the weights (default: asked for on a terminal)")
    add("--output", default="", help="name of the output with the embeddings, if there are several")
    add("--channels", choices=("RGB", "BGR"), help="channel order (default: both are tried)")
    add("--mean", type=float, help="subtracted from each pixel (default: the usual values are tried)")
    add("--scale", type=float, help="divisor of each pixel (default: the usual values are tried)")
    add("--videos", type=given_path, nargs="*", default=[], metavar="VIDEO", help="see calibrate")
    add("--seed", type=int, default=0, help="random seed")
    add_json_option(parser)
    add_model_options(parser, only=("models_dir", "backend", "threads"))


def run(arguments: argparse.Namespace) -> int:
    """Try, write the files, calibrate."""
    import shutil

    from face_recognition_node.common.files import file_sha256
    from face_recognition_node.common.resources import adopted_models_directory
    from face_recognition_node.evaluation import adoption
    from face_recognition_node.evaluation.picture_archive import LfwArchive

    if not arguments.name or set(arguments.name) - set(_NAME):
        raise InputError(
            f"--name: expected lower case letters, digits and underscores, got {arguments.name!r}"
        )
    file = adoption.inspect_embedder(arguments.model, arguments.output)
    archive = LfwArchive.open(arguments.calibrate)
    terms = _license(arguments)
    folder = adopted_models_directory()
    if folder is None:
        raise InputError("no home folder to keep the embedder in; name a folder by XDG_DATA_HOME")
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = file_sha256(arguments.model)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{arguments.name}.") as drafts:
        weights = Path(drafts) / f"{arguments.name}.onnx"
        shutil.copyfile(arguments.model, weights)
        candidates = adoption.candidate_inputs(file, arguments.channels, arguments.mean, arguments.scale)

        def embed_with(candidate: Any, crops: Any) -> Any:
            card = _write_card(weights, file, candidate, sha256, terms, "")
            return _embed(card, arguments, crops)

        trials = adoption.try_inputs(candidates, embed_with, archive)
        best = trials[0]
        _write_card(weights, file, best.input, sha256, terms, "; ".join(str(trial) for trial in trials))
        for kind in ("onnx", "json"):
            weights.with_suffix(f".{kind}").replace(folder / f"{arguments.name}.{kind}")
    print(f"{arguments.name}: {file.dimension} numbers an embedding; {best}", file=sys.stderr)
    if best.decidability < adoption.LEAST_DECIDABILITY:
        print(
            "warning: nothing separates people well. Is this a face embedder, and does it take faces aligned "
            "as ArcFace's? See --channels, --mean, --scale, --output",
            file=sys.stderr,
        )
    arguments.faces, arguments.embedder = arguments.calibrate, arguments.name
    arguments.plot, arguments.dry_run = None, False
    return calibrate.run(arguments)


def _license(arguments: argparse.Namespace) -> str:
    """Return the terms of use, asked for where somebody can answer."""
    terms = arguments.license
    if not terms and sys.stdin.isatty():
        terms = input(f"Terms of use of {arguments.model.name} (for instance: MIT; research only): ")
    if not terms or not terms.strip():
        raise InputError("--license: say under which terms the weights may be used; the card keeps it")
    return str(terms).strip()


def _write_card(weights: Path, file: Any, needs: Any, sha256: str, terms: str, tried: str) -> Path:
    from face_recognition_node.vision.alignment import ALIGNMENT_FINGERPRINT
    from face_recognition_node.vision.model_card import ADOPTED, write_card

    path = weights.with_suffix(".json")
    write_card(
        path,
        {
            "name": weights.stem,
            "task": "face embedding",
            "network": ADOPTED,
            "files": {"onnx": sha256},
            "input": {
                "size": list(needs.size),
                "layout": needs.layout,
                "channels": needs.channels,
                "mean": list(needs.mean),
                "scale": list(needs.scale),
                "alignment": ALIGNMENT_FINGERPRINT,
            },
            "output": {"name": file.output, "dimension": file.dimension},
            "licence": terms,
            "tried": tried,
        },
    )
    return path


def _embed(card_path: Path, arguments: argparse.Namespace, crops: Any) -> Any:
    from face_recognition_node.backends.loading import open_runner
    from face_recognition_node.cli.options import models_config
    from face_recognition_node.vision.embedding import CropEmbedder
    from face_recognition_node.vision.model_card import ModelCard

    card = ModelCard.read(card_path)
    return CropEmbedder(open_runner(card, models_config(arguments)), card).embed(crops)

"""``face-recognition export CHECKPOINT models/NAME``: from training to the files that the robot runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from face_recognition_node.cli.options import add_json_option, given_path, report
from face_recognition_node.common.errors import InputError, ModelMismatchError, ModelMissingError
from face_recognition_node.common.files import write_bytes
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.model_card import CALIBRATION, ModelCard

LEAST_COSINE = 0.9999  # below this the runtimes disagree, and nothing is written

KINDS = ("safetensors", "onnx", "json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add = parser.add_argument
    add("checkpoint", type=given_path, help="a training checkpoint (.ckpt, .pt) or weights (.safetensors)")
    add("target", type=given_path, help="path without extension, for example models/efficientnet_b0_64")
    add(
        "--about",
        type=given_path,
        metavar="FILE",
        help="JSON with the card's texts: version, about, trained_on, licence, measured …; "
        "default: the card that TARGET has already",
    )
    add_json_option(parser)


def read_about(path: Path | None, target: Path) -> Mapping[str, Any]:
    """Return the card's words from a file, or from the card that the target already has.

    Raises:
        ModelMissingError: If a file is named that is not there.
        InputError: If it is no JSON object.
    """
    source = path or target.with_suffix(".json")
    if not source.is_file():
        if path is not None:
            raise ModelMissingError(f"{path}: no such file")
        return {}
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{source}: expected JSON, got {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a JSON object, got {type(values).__name__}")
    return values


def check_parity(card: ModelCard) -> dict[str, float]:
    """Return each CPU runtime's least cosine to torch's answers; ModelMismatchError below LEAST_COSINE."""
    from face_recognition_node.backends import open_runner
    from face_recognition_node.backends.preprocessing import least_cosine, noise_pictures

    def exact(backend: str) -> ModelsConfig:
        return ModelsConfig(backend=backend, precision="fp32")

    images = noise_pictures(4, *(card.input.size or (192, 256)))
    expected = open_runner(card, exact("torch")).run(images)
    cosines = {}
    for name in ("onnxruntime", "openvino"):
        if importlib.util.find_spec(name) is None:
            continue
        cosines[name] = least_cosine(expected, open_runner(card, exact(name)).run(images))
        if cosines[name] < LEAST_COSINE:
            raise ModelMismatchError(
                f"{card.name}: expected {name} to agree with torch to a cosine of {LEAST_COSINE}, "
                f"got {cosines[name]:.6f}; nothing was written"
            )
    return cosines


def run(arguments: argparse.Namespace) -> int:
    """Export beside the target, check, then put the files in place, the card last."""
    from face_recognition_node.networks.exporting import check_target, export
    from face_recognition_node.networks.loading import read_checkpoint

    target = arguments.target
    if target.suffix.lstrip(".") in KINDS:
        target = target.with_suffix("")
    check_target(target)
    about = read_about(arguments.about, target)
    network = read_checkpoint(arguments.checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        card = export(network, Path(folder) / target.name, about)
        cosines = check_parity(card)
        for kind in KINDS:
            os.replace(card.path.with_suffix(f".{kind}"), target.with_suffix(f".{kind}"))
    tables = target.with_suffix(CALIBRATION)
    if card.calibration is None:
        tables.unlink(missing_ok=True)
    elif arguments.about is not None and arguments.about.with_suffix(CALIBRATION) != tables:
        write_bytes(tables, arguments.about.with_suffix(CALIBRATION).read_bytes())
    card = ModelCard.read(target.with_suffix(".json"))
    figures: dict[str, Any] = {"name": card.name, "fingerprint": card.fingerprint, "parity": cosines}
    lines = [f"{target}: {', '.join(KINDS)}", f"fingerprint {card.fingerprint}"]
    lines += [f"{name} agrees with torch: cosine {cosine:.7f}" for name, cosine in cosines.items()]
    if card.dimension and card.calibration is None:
        lines.append("the card has no calibration for these weights yet: face-recognition calibrate")
    report("\n".join(lines), figures, arguments.json)
    return 0

"""``face-recognition train RECIPE``: train a network from a recipe, or go on where it was cut off."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_recognition_node.common.errors import ConfigurationError, FaceRecognitionError
from face_recognition_node.systems.pictures import (
    crop_face,
    embed_crops,
    read_newcomer,
    same_person_probabilities,
)

if TYPE_CHECKING:
    from face_recognition_node.training.recipe import RunOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("recipe", type=Path, help="a YAML file, see config/training/")
    parser.add_argument(
        "--out", type=Path, help="folder for logs, checkpoints, weights and pictures (default runs/RECIPE)"
    )
    parser.add_argument(
        "--data", type=Path, help="the faces to train on (data.path): an archive's folder, a zip, or folders"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change an entry of the recipe"
    )
    parser.add_argument(
        "--start", help="weights to start from: a file, or 'imagenet' (default: the recipe's)"
    )
    parser.add_argument("--fast", action="store_true", help="a trial run of at most two minutes")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu"])
    parser.add_argument("--devices", type=int, default=1, help="processes on this machine, one per GPU")
    parser.add_argument("--nodes", type=int, default=1, help="machines; start the command on each of them")


def run(arguments: argparse.Namespace) -> int:
    """Train, and print what came out."""
    try:
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        from face_recognition_node.training.recipe import RunOptions, read_recipe, set_value
    except ImportError as error:
        raise FaceRecognitionError(
            f"training needs more packages ({error}); pip install -r requirements/train.txt"
        ) from error
    # Lightning advertises services at this level
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    values = read_recipe(arguments.recipe, arguments.set)
    if values.get("data") is None:
        values["data"] = {}
    if arguments.data is not None:
        set_value(values, "data.path", str(arguments.data))
    if arguments.start is not None:
        values["start"] = arguments.start
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigurationError(f"{arguments.recipe}: kind: expected one of {sorted(KINDS)}, got {kind!r}")
    # a short run must never be gone on from by a long one
    out = arguments.out or Path("runs") / f"{arguments.recipe.stem}{'-fast' if arguments.fast else ''}"
    options = RunOptions(
        out, arguments.fast, arguments.threads, arguments.accelerator, arguments.devices, arguments.nodes
    )
    try:
        said = KINDS[kind](values, options)
    except SIGTERMException:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    # the processes of a distributed run share one terminal
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0:
        print(said)
    return 0


def _embedder(values: dict[str, Any], options: RunOptions) -> str:
    from face_recognition_node.training.recipe import EmbedderRecipe, build
    from face_recognition_node.training.run import train_embedder

    weights = train_embedder(build(EmbedderRecipe, values), options)
    return f"weights: {weights}\nnext: face-recognition export {weights} models/NAME"


def _olivetti_siamese(values: dict[str, Any], options: RunOptions) -> str:
    from face_recognition_node.systems.olivetti.training import OlivettiRecipe, train_olivetti
    from face_recognition_node.training.recipe import build

    recipe = build(OlivettiRecipe, values)
    newcomer = None if recipe.data.newcomer is None else read_newcomer(recipe.data.newcomer)
    report = train_olivetti(recipe, options, newcomer, same_person_probabilities)
    return f"{report}\npictures and report.json: {options.out}"


def _triplet_face_id(values: dict[str, Any], options: RunOptions) -> str:
    from face_recognition_node.systems.triplet.runs import TripletRecipe, train_triplet
    from face_recognition_node.training.recipe import build

    said = train_triplet(build(TripletRecipe, values), options, crop_face, embed_crops)
    return f"{said}\npictures and report.json: {options.out}"


def _rgbd_face_id(values: dict[str, Any], options: RunOptions) -> str:
    from face_recognition_node.systems.rgbd.training import RgbdRecipe, train_rgbd
    from face_recognition_node.training.recipe import build

    return f"{train_rgbd(build(RgbdRecipe, values), options)}\npictures and report.json: {options.out}"


KINDS: dict[str, Callable[[dict[str, Any], RunOptions], str]] = {
    "embedder": _embedder,
    "olivetti_siamese": _olivetti_siamese,
    "triplet_face_id": _triplet_face_id,
    "rgbd_face_id": _rgbd_face_id,
}
"""How each kind of recipe is run."""

"""``face-recognition train RECIPE``: train a network from a recipe, or go on where it was cut off."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path

from face_recognition_node.cli.options import given_path
from face_recognition_node.common.errors import ConfigurationError

_PICTURES = "{0}\npictures and report.json: {1}"
# kind of recipe: the module that trains it, its recipe, its function, and what is said of its result
KINDS = {
    "embedder": (
        "training.run", "EmbedderRecipe", "train_embedder",
        "weights: {0}\nnext: face-recognition export {0} models/NAME",
    ),
    "olivetti_siamese": ("systems.olivetti.training", "OlivettiRecipe", "train_olivetti", _PICTURES),
    "triplet_face_id": ("systems.triplet", "TripletRecipe", "train_triplet", _PICTURES),
    "rgbd_face_id": ("systems.rgbd.training", "RgbdRecipe", "train_rgbd", _PICTURES),
}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("recipe", type=given_path, help="a YAML file, see config/training/")
    add(
        "--out",
        type=given_path,
        help="folder for logs, checkpoints, weights and pictures (default runs/RECIPE)",
    )
    add(
        "--data",
        type=given_path,
        help="the faces to train on (data.path): an archive's folder, a zip, or folders",
    )
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change an entry of the recipe")
    add("--start", help="weights to start from: a file, or 'imagenet' (default: the recipe's)")
    add("--fast", action="store_true", help="a trial run of at most two minutes")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--accelerator", default="auto", choices=["auto", "cpu", "gpu"])
    add("--devices", type=int, default=1, help="processes on this machine, one per GPU")
    add("--nodes", type=int, default=1, help="machines; start the command on each of them")


def run(arguments: argparse.Namespace) -> int:
    """Train, and print what came out."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from face_recognition_node.training.recipe import RunOptions, build, read_recipe, set_value

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
        place, recipe, train, text = KINDS[kind]
        module = importlib.import_module(f"face_recognition_node.{place}")
        result = getattr(module, train)(build(getattr(module, recipe), values), options)
    except SIGTERMException:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    # the processes of a distributed run share one terminal
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0:
        print(text.format(result, out))
    return 0

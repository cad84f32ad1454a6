"""Command-line options that choose the models, made from the declared parameters."""

from __future__ import annotations

import argparse
import dataclasses

from face_recognition_node.common.parameters import flatten, with_values
from face_recognition_node.vision.model_card import ModelsConfig


def add_model_options(parser: argparse.ArgumentParser, *, only: tuple[str, ...] = ()) -> None:
    """Add ``--models-dir``, ``--backend`` … to ``parser``; ``only`` names the wanted fields (none: all)."""
    group = parser.add_argument_group("models")
    for name, declared, _ in flatten(ModelsConfig()):
        if not only or name in only:
            group.add_argument(
                "--" + name.replace("_", "-"),
                type=type(declared.default),
                choices=declared.choices or None,
                default=declared.default,
                metavar=None if declared.choices else name.upper(),
                help=declared.description,
            )


def models_config(arguments: argparse.Namespace) -> ModelsConfig:
    """Return the models that the command line asks for."""
    names = [field.name for field in dataclasses.fields(ModelsConfig)]
    return with_values(
        ModelsConfig(), {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    )

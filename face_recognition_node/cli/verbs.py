"""Verbs whose modules are imported only when they stand on the command line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from typing import Any


class VerbParser(argparse.ArgumentParser):
    """A parser that fills itself from its verb's module the moment it is used."""

    module: str | None = None

    def parse_known_args(  # type: ignore[override]  # argparse overloads it for namespaces nobody passes here
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Import and ask the verb's module for its arguments, then parse."""
        if self.module is not None:
            module, self.module = importlib.import_module(self.module), None
            module.configure(self)
            if hasattr(module, "run"):
                self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def add_verbs(
    parser: argparse.ArgumentParser, verbs: Mapping[str, str], prefix: str = "", **options: Any
) -> None:
    """Give ``parser`` one verb per entry; its module is ``face_recognition_node.cli.PREFIX + verb``."""
    subparsers = parser.add_subparsers(required=True, parser_class=VerbParser, **options)
    for verb, summary in verbs.items():
        sub = subparsers.add_parser(verb, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        sub.module = f"face_recognition_node.cli.{prefix}{verb}"

"""``--json``: the figures as JSON on standard output, or in a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from face_recognition_node.cli.options import file_or_stream, is_stream
from face_recognition_node.common.files import PRIVATE, write_json

STANDARD_OUTPUT = "-"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json [FILE]``."""
    parser.add_argument(
        "--json",
        nargs="?",
        const=STANDARD_OUTPUT,
        type=file_or_stream,
        metavar="FILE",
        help="print the figures as JSON instead of text, or write them to FILE",
    )


def report(text: str, figures: Mapping[str, Any], target: str | None) -> None:
    """Print ``text``, or the figures as JSON; with a file, write them there and print the text."""
    if target == STANDARD_OUTPUT:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    if target is not None and is_stream(target):
        Path(target).expanduser().write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    elif target is not None:
        write_json(Path(target), figures, PRIVATE)
    print(text)

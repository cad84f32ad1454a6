"""Runs a tool as ``face-recognition`` runs its verbs: with the same messages, exit codes and progress."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence

from face_recognition_node.cli import run_guarded


def run_tool(
    description: str | None,
    configure: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse ``argv`` (default: the command line), call ``run`` and return the exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configure(parser)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    return run_guarded(parser.prog, run, arguments)

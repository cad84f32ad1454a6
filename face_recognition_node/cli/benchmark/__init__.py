"""``face-recognition benchmark WHAT``: each WHAT is a module of this folder."""

from __future__ import annotations

import argparse

from face_recognition_node.cli.options import add_verbs

WHAT = {
    "pipeline": "the whole pipeline without ROS",
    "ros": "the running node over DDS: latency, rate, CPU, memory",
    "gallery": "search and change by gallery size",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of benchmark."""
    add_verbs(parser, WHAT, {what: f"benchmark.{what}" for what in WHAT}, dest="what", metavar="WHAT")

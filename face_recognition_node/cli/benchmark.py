"""``face-recognition benchmark WHAT``: each WHAT is a module ``benchmark_WHAT`` beside this one."""

from __future__ import annotations

import argparse

from face_recognition_node.cli.verbs import add_verbs

WHAT = {
    "pipeline": "frames per second of the whole path, without ROS",
    "ros": "latency, rate and CPU of the running node over DDS",
    "soak": "the running node for half an hour: does its memory grow",
    "gallery": "search and update times by gallery size",
    "detector": "the face detectors side by side",
    "embedder": "the embedders side by side",
    "int8": "whether an embedder in 8-bit integers would pay on this CPU",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of benchmark."""
    add_verbs(parser, WHAT, prefix="benchmark_", dest="what", metavar="WHAT")

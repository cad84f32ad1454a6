"""``face-recognition evaluate WHAT``: each WHAT is a module of this folder."""

from __future__ import annotations

import argparse

from face_recognition_node.cli.options import add_verbs

WHAT = {
    "verification": "LFW's ten folds and all pairs: accuracy, ROC, TAR at FAR, F1",
    "identification": "open-set identification: DIR at FPIR",
    "replay": "recordings with ground truth: right, wrong and late names",
    "scenarios": "scenes composed of real faces: door, seat swap, crossing, strangers, posters …",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of evaluation."""
    add_verbs(parser, WHAT, {what: f"evaluate.{what}" for what in WHAT}, dest="what", metavar="WHAT")

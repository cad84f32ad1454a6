"""``face-recognition evaluate detector ARCHIVE``: recall and landmark error on labelled photographs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.cli.json_output import add_json_option, report
from face_recognition_node.cli.options import add_model_options, models_config
from face_recognition_node.common.parameters import with_values
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import DetectorConfig


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    parser.add_argument("archive", type=Path, help="zip or folder: ground_truth.csv and images/")
    parser.add_argument(
        "--double-below",
        type=int,
        default=256,
        metavar="N",
        help="photographs whose longer side is shorter than N pixels are doubled first (default %(default)s)",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=DetectorConfig().score_threshold,
        metavar="P",
        help="smallest score of a near face (default %(default)s)",
    )
    add_json_option(parser)
    add_model_options(parser, only=("models_dir", "detector", "backend", "device", "precision", "threads"))


def run(arguments: argparse.Namespace) -> int:
    """Look for the face of every photograph, compare with its label, report."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.evaluation.detection import DetectionArchive, compare, summarize

    archive = DetectionArchive.open(arguments.archive)
    near = arguments.score_threshold
    far = min(near, DetectorConfig().far_score_threshold)
    config = with_values(DetectorConfig(), {"score_threshold": near, "far_score_threshold": far})
    detector = load_detector(models_config(arguments), config)
    outcomes, faces, doubled = [], 0, 0
    for number, label in enumerate(progress_bar(archive.faces, unit="photo", title="detecting")):
        image = archive.read(number)
        if max(image.shape[:2]) < arguments.double_below:
            enlarged = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
            image, label = np.asarray(enlarged, np.uint8), label.scaled(2)
            doubled += 1
        detections = detector.detect(image)
        faces += len(detections)
        outcomes.append(compare(label, detections))
    result = summarize(outcomes)
    backend = detector.backend
    figures = {
        "model": detector.card.name,
        "backend": {"name": backend.name, "device": backend.device, "precision": backend.precision},
        "config": dataclasses.asdict(config),
        "photographs": len(outcomes),
        "doubled": doubled,
        "faces_found_in_all": faces,
        **result.to_dict(),
    }
    head = f"{detector.card.name} on {backend.name}, {len(outcomes)} photographs, {doubled} of them doubled"
    report(f"{head}\n{result}", figures, arguments.json)
    return 0

"""Open-set identification against the size of the face, blur and yaw; the picture needs the `train` extra.

    ./run exec python tools/measure_conditions.py FACES [--picture OUT.png] [--json]

The gallery is as it is; the probes are reduced, blurred, or chosen by the yaw that their landmarks show.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from command import run_tool

from face_recognition_node.backends import load_detector, load_embedder
from face_recognition_node.cli.evaluate.identification import JudgedFaces, embed_faces, open_judged_faces
from face_recognition_node.cli.options import add_json_option, file_to_write, given_path, report
from face_recognition_node.common.tables import aligned
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.evaluation.degradation import blur_face, reduce_face
from face_recognition_node.evaluation.identification import (
    BoolArray,
    IdentificationResult,
    open_set_identification,
)
from face_recognition_node.evaluation.plots import load_pyplot, save_figure
from face_recognition_node.vision.faces import FloatArray
from face_recognition_node.vision.pose import estimate_pose

PIXELS = (64, 48, 32, 24, 16)
BLUR = (1.0, 2.0, 3.0, 4.0)
YAW_EDGES = (0, 15, 30, 45, 90)
MINIMUM_COUNTED = 100  # faces that a bin of yaw needs before it is reported


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("faces", type=given_path, help="as of `face-recognition evaluate identification`")
    parser.add_argument("--gallery-size", type=int, default=50, metavar="N", help="people enrolled")
    parser.add_argument("--shots", type=int, default=3, metavar="N", help="faces enrolled of each")
    parser.add_argument("--fpir", type=float, nargs="+", default=[0.1, 0.01])
    parser.add_argument("--repetitions", type=int, default=10, help="random galleries")
    parser.add_argument("--picture", type=file_to_write, metavar="OUT.png")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure under each condition, and print."""
    faces, embedder = open_judged_faces(arguments.faces), load_embedder(ModelsConfig())
    plain = embed_faces(embedder, faces, None, "embedding")
    measure = partial(
        open_set_identification, plain, faces.labels, arguments.gallery_size, arguments.shots, arguments.fpir,
        arguments.repetitions, 0,
    )  # fmt: skip
    changes = {f"{side} px": partial(reduce_face, side=side) for side in PIXELS}
    changes |= {f"blur {sigma:g} px": partial(blur_face, sigma=sigma) for sigma in BLUR}
    results = {"112 px, sharp": measure(plain)}
    results |= {name: measure(embed_faces(embedder, faces, change, name)) for name, change in changes.items()}
    for name, turned in yaw_bins(estimate_yaws(faces)).items():
        if turned.sum() >= MINIMUM_COUNTED:
            results[name] = measure(plain, turned)
    if arguments.picture is not None:
        draw(results, arguments.picture)
    text = aligned([(name, str(result)) for name, result in results.items()])
    report(text, {name: asdict(result) for name, result in results.items()}, arguments.json)
    return 0


def estimate_yaws(faces: JudgedFaces) -> FloatArray:
    """Return (N,) head yaws in degrees from landmarks found again in the crops; nan where none was found."""
    detector = load_detector(ModelsConfig(), DetectorConfig())
    yaws = np.full(len(faces.labels), np.nan, np.float32)
    for number in range(len(yaws)):
        padded = cv2.copyMakeBorder(faces.read(number), 56, 56, 56, 56, cv2.BORDER_CONSTANT)
        found = detector.detect(np.asarray(padded, np.uint8))
        if found:
            face = max(found, key=lambda one: one.size_px)
            yaws[number] = estimate_pose(face.landmarks_xy).yaw
    return yaws


def yaw_bins(yaws: FloatArray) -> dict[str, BoolArray]:
    """Return which faces are turned how far, by name; faces without an estimate are in none."""
    turn = np.abs(yaws)
    edges = itertools.pairwise(YAW_EDGES)
    return {f"yaw {low} to {high}": (turn >= low) & (turn < high) for low, high in edges}


def draw(results: Mapping[str, IdentificationResult], path: Path) -> None:
    """Draw DIR and its intervals by condition: size of the face, blur, yaw."""
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 3.8))
    rates = [point.fpir for point in next(iter(results.values())).points]
    for number, rate in enumerate(rates):
        points = [one.points[number] for one in results.values()]
        values = np.array([point.dir for point in points])
        spread = np.abs(np.array([[point.low, point.high] for point in points]).T - values)
        axis.errorbar(
            range(len(points)), values, spread, marker="o", capsize=3, label=f"FPIR {100 * rate:g} %"
        )
    axis.set_xticks(range(len(results)), list(results), rotation=30, ha="right")
    axis.set(ylabel="DIR, rank 1", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

"""Is each labelled face found, and how far off are its landmarks?

    ./run exec python tools/evaluate_detector.py ARCHIVE

One labelled face a photograph; other faces in it are not labelled, so false detections cannot be counted.
A landmark's error is given in parts of the labelled eye distance, as is usual for face alignment.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from command import run_tool

from face_recognition_node.cli.options import add_json_option, add_model_options, models_config, report
from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import DetectorConfig
from face_recognition_node.evaluation.bootstrap import Estimate, estimate
from face_recognition_node.evaluation.picture_archive import open_files
from face_recognition_node.media.images import image_from
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray
from face_recognition_node.vision.geometry import iou_matrix

# overlap from which a labelled face counts as found; labels are squarer than RetinaFace's boxes
IOU_FOUND = 0.4

LANDMARKS = ("right eye", "left eye", "nose", "right mouth corner", "left mouth corner")
_LANDMARK_COLUMNS = ("le", "re", "nose", "lm", "rm")  # "left" and "right" as seen in the image


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LabelledFace:
    """One labelled face of one photograph."""

    name: str  # of the photograph
    box_xyxy: FloatArray  # (4,) pixels
    landmarks_xy: FloatArray  # (5, 2) pixels

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.linalg.norm(self.landmarks_xy[1] - self.landmarks_xy[0]))

    def scaled(self, factor: float) -> LabelledFace:
        """Return the label for the photograph enlarged by ``factor``."""
        return LabelledFace(
            self.name, self.box_xyxy * np.float32(factor), self.landmarks_xy * np.float32(factor)
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DetectionArchive:
    """Labelled photographs."""

    faces: tuple[LabelledFace, ...]  # one for each photograph
    read: Callable[[int], ImageArray]  # returns photograph number n as (H, W, 3) BGR uint8

    @classmethod
    def open(cls, path: Path) -> DetectionArchive:
        """Open a zip or folder with ``ground_truth.csv`` and the photographs under ``images``.

        The table's columns: ``path``, ``x1 y1 x2 y2`` and ``le re nose lm rm`` with ``_x`` and ``_y``. A
        photograph lies at its path, or under the last part of it.

        Raises:
            SourceError: If the table or a photograph is missing, or a row cannot be understood.
        """
        files, read_bytes = open_files(path)
        tables = [file for file in files if file.split("/")[-1] == "ground_truth.csv"]
        if not tables:
            raise SourceError(f"{path}: expected a ground_truth.csv in it, found none")
        faces = parse_labels(read_bytes(tables[0]).decode("utf-8"))
        by_path = {file.split("images/", 1)[-1]: file for file in files}
        pictures = []
        for face in faces:
            file = by_path.get(face.name) or by_path.get(face.name.split("/")[-1])
            if file is None:
                raise SourceError(
                    f"{path}: ground_truth.csv names the photograph {face.name}, which is not there"
                )
            pictures.append(file)
        return cls(faces, lambda number: image_from(read_bytes(pictures[number]), pictures[number]))


def parse_labels(text: str) -> tuple[LabelledFace, ...]:
    """Parse ``ground_truth.csv``.

    Raises:
        SourceError: For a missing column or something that is no number.
    """
    faces = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            box = np.array([float(row[column]) for column in ("x1", "y1", "x2", "y2")], np.float32)
            points = [[float(row[f"{part}_x"]), float(row[f"{part}_y"])] for part in _LANDMARK_COLUMNS]
            faces.append(LabelledFace(row["path"], box, np.array(points, np.float32)))
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"ground_truth.csv: cannot understand row {len(faces) + 2}: {error}") from error
    if not faces:
        raise SourceError("ground_truth.csv: expected labelled faces, it has none")
    return tuple(faces)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FaceOutcome:
    """What became of one labelled face."""

    name: str  # of the photograph
    iou: float  # overlap with the best detection, 0 if there is none
    score: float  # of that detection
    landmark_error: FloatArray  # (5,) in parts of the eye distance, NaN if the face was not found

    @property
    def is_found(self) -> bool:
        """Whether the overlap suffices."""
        return self.iou >= IOU_FOUND


def compare(label: LabelledFace, detections: Sequence[Detection]) -> FaceOutcome:
    """Return what became of a labelled face, given all detections of its photograph.

    Raises:
        InputError: If the labelled eyes coincide.
    """
    if label.eye_distance <= 0:
        raise InputError(f"{label.name}: expected two eyes apart from each other")
    nothing = np.full(5, np.nan, np.float32)
    if not detections:
        return FaceOutcome(label.name, 0.0, 0.0, nothing)
    overlaps = iou_matrix(label.box_xyxy[None], [detection.box_xyxy for detection in detections])[0]
    best = int(np.argmax(overlaps))
    chosen = detections[best]
    iou = float(overlaps[best])
    error = np.linalg.norm(chosen.landmarks_xy - label.landmarks_xy, axis=1) / label.eye_distance
    return FaceOutcome(
        label.name, iou, chosen.score, np.asarray(error if iou >= IOU_FOUND else nothing, np.float32)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class DetectionResult:
    """What the labelled photographs gave."""

    recall: Estimate  # share of labelled faces found at IoU 0.4, with its interval
    # mean over found faces and landmarks, in parts of the eye distance, with its interval
    landmark_error: Estimate
    landmark_error_median: float  # median over found faces of their mean error
    landmark_error_p95: float  # 95th percentile of the same
    by_landmark: dict[str, float]  # mean error of each landmark
    iou: float  # mean overlap of found faces
    missed: tuple[str, ...]  # photographs whose face was not found

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {100 * error:.1f} %" for name, error in self.by_landmark.items())
        missed = ", ".join(self.missed[:5]) + (" …" if len(self.missed) > 5 else "")
        return "\n".join(
            [
                f"recall at IoU {IOU_FOUND}   {self.recall}",
                f"landmark error      {100 * self.landmark_error.value:.2f} % of the eye distance, median "
                f"{100 * self.landmark_error_median:.2f} %, p95 {100 * self.landmark_error_p95:.2f} %",
                f"by landmark         {parts}",
                f"mean IoU            {self.iou:.3f}",
                f"missed              {len(self.missed)}{': ' + missed if missed else ''}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **dataclasses.asdict(self),
            "recall": self.recall.to_dict(),
            "landmark_error": self.landmark_error.to_dict(),
        }


def summarize(outcomes: Sequence[FaceOutcome]) -> DetectionResult:
    """Return the figures of all photographs.

    Raises:
        InputError: If there are none.
    """
    if not outcomes:
        raise InputError("outcomes: expected at least one labelled face, got none")
    found = [outcome for outcome in outcomes if outcome.is_found]
    errors = np.array([outcome.landmark_error for outcome in found], np.float64).reshape(len(found), 5)
    by_face = errors.mean(axis=1)
    nan = float("nan")
    return DetectionResult(
        recall=estimate([float(outcome.is_found) for outcome in outcomes]),
        landmark_error=estimate(by_face.tolist()),
        landmark_error_median=float(np.median(by_face)) if found else nan,
        landmark_error_p95=float(np.quantile(by_face, 0.95)) if found else nan,
        by_landmark={name: float(errors[:, n].mean()) if found else nan for n, name in enumerate(LANDMARKS)},
        iou=float(np.mean([outcome.iou for outcome in found])) if found else nan,
        missed=tuple(outcome.name for outcome in outcomes if not outcome.is_found),
    )


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit code."""
    return run_tool(__doc__, configure, run, argv)


if __name__ == "__main__":
    sys.exit(main())

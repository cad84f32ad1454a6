"""What a team would use instead, for side-by-side benchmarks: each only where its package is installed.

    pip install --no-deps -r requirements/benchmark.txt

dlib with the models of face_recognition is the engine inside most ROS packages for faces.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face_recognition_node.vision.faces import FloatArray, ImageArray

_log = logging.getLogger(__name__)


def is_installed(*modules: str) -> bool:
    """Return whether all modules can be found; says in the log which one cannot."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            _log.info(
                "peer left out: %s is not installed (pip install --no-deps -r requirements/benchmark.txt)",
                module,
            )
            return False
    return True


def add_peers_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves all peers out."""
    parser.add_argument("--no-peers", action="store_true", help="leave out what other packages offer")


class DlibFaces:
    """dlib's HOG detector, 5-point landmarks and 128-d embedding, as in the package face_recognition."""

    def __init__(self) -> None:
        dlib: Any = importlib.import_module("dlib")
        # the folder is found without importing face_recognition_models, which needs pkg_resources
        spec = importlib.util.find_spec("face_recognition_models")
        folder = Path(next(iter(spec.submodule_search_locations or [])) if spec else "") / "models"
        self._detect = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._embed = dlib.face_recognition_model_v1(
            str(folder / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def detect(self, image_bgr: ImageArray) -> list[Any]:
        """Return dlib's rectangles."""
        return list(self._detect(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), 0))

    def embed(self, image_bgr: ImageArray, rectangles: list[Any]) -> FloatArray:
        """Return (N, 128) embeddings of the faces at these rectangles."""
        image = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
        found = [self._embed.compute_face_descriptor(image, self._landmarks(image, r), 1) for r in rectangles]
        return np.array(found, np.float32).reshape(-1, 128)

    def recognize(self, image_bgr: ImageArray, known: FloatArray) -> list[int]:
        """Return for each face the nearest of (M, 128) known embeddings within 0.6, else -1."""
        embeddings = self.embed(image_bgr, self.detect(image_bgr))
        distances = np.linalg.norm(embeddings[:, None] - known[None], axis=2)
        return [int(row.argmin()) if len(row) and row.min() <= 0.6 else -1 for row in distances]

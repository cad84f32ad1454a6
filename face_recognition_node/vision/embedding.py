"""Aligned faces to unit vectors: batching and normalising around any backend."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from face_recognition_node.common.errors import ModelError, ModelMismatchError
from face_recognition_node.vision.alignment import ALIGNMENT_FINGERPRINT, require_crops
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.relighting import brighten_faces
from face_recognition_node.vision.runner import BackendReport, ModelRunner

MAXIMUM_BATCH = 16  # more faces than this go through the network in several calls


class CropEmbedder:
    """Embeds aligned crops, from several threads; ModelMismatchError for a card of another alignment."""

    def __init__(self, runner: ModelRunner, card: ModelCard) -> None:
        if card.alignment != ALIGNMENT_FINGERPRINT:
            raise ModelMismatchError(
                f"{card.path}: expected faces aligned by {ALIGNMENT_FINGERPRINT}, its card says "
                f"{card.alignment or 'nothing'}; use a model made for this alignment"
            )
        self.runner = runner  # the network itself, for benchmarks; do not use it while the embedder is in use
        self.card = card
        self._lock = threading.Lock()

    @property
    def backend(self) -> BackendReport:
        """What runs the network."""
        return self.runner.report

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.card.dimension

    @property
    def fingerprint(self) -> str:
        """Names weights and alignment."""
        return self.card.fingerprint

    @property
    def precision(self) -> str:
        """Arithmetic of what runs the network now; it changes when an engine takes over."""
        return self.runner.report.precision

    def embed(self, crops_bgr: ImageArray) -> FloatArray:
        """Return (N, D) float32 unit vectors of (N, 112, 112, 3) BGR uint8 crops; N may be 0.

        Dark faces are brightened first (:mod:`relighting`).

        Raises:
            InputError: For crops of another shape or type.
            ModelError: If the network answers with something that has no direction.
        """
        require_crops(crops_bgr)
        embeddings = np.empty((len(crops_bgr), self.dimension), np.float32)
        lit = self._resize(brighten_faces(crops_bgr))
        for start in range(0, len(crops_bgr), MAXIMUM_BATCH):
            part = slice(start, start + MAXIMUM_BATCH)
            with self._lock:
                (output,) = self.runner.run(np.ascontiguousarray(lit[part]))
                embeddings[part] = output
        return normalize(embeddings)

    def _resize(self, crops_bgr: ImageArray) -> ImageArray:
        """Return the crops in the size that the network takes."""
        height, width = self.card.input.size or crops_bgr.shape[1:3]
        if crops_bgr.shape[1:3] == (height, width) or len(crops_bgr) == 0:
            return crops_bgr
        how = cv2.INTER_AREA if height < crops_bgr.shape[1] else cv2.INTER_LINEAR
        return np.stack([cv2.resize(crop, (width, height), interpolation=how) for crop in crops_bgr])


def normalize(vectors: FloatArray) -> FloatArray:
    """Return (N, D) vectors scaled to unit length; ModelError if one is zero, infinite or not a number."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 1e-12)).all():
        raise ModelError(
            "the embedder answered with a vector without direction; its weights file may be damaged"
        )
    return np.asarray(vectors / lengths, dtype=np.float32)

"""The detector and the embedder as the rest of the core sees them; see retinaface.py and embedding.py."""

from __future__ import annotations

from typing import Protocol

from face_recognition_node.common.stages import StageClock
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray


class Detector(Protocol):
    """Finds faces in an image."""

    def detect(self, image_bgr: ImageArray) -> list[Detection]:
        """Return the faces of a (H, W, 3) BGR uint8 image, best score first, in its pixel coordinates.

        A dark image is brightened first (:mod:`relighting`).
        """
        ...

    def search(self, lit_bgr: ImageArray, clock: StageClock | None = None) -> list[Detection]:
        """Do the same with an image that ``brighten_frame`` has seen already.

        ``clock`` takes the time that the stage "resize" needs, which is then no part of the caller's stage.
        """
        ...


class Embedder(Protocol):
    """Turns aligned faces into unit vectors."""

    @property
    def dimension(self) -> int:
        """Length of an embedding (64)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies weights + alignment; embeddings of different fingerprints must never be compared."""
        ...

    @property
    def precision(self) -> str:
        """Arithmetic of the latest embeddings: "fp32", "fp16" …; templates record it."""
        ...

    def embed(self, crops_bgr: ImageArray) -> FloatArray:
        """Return (N, D) float32 unit vectors of (N, 112, 112, 3) BGR uint8 aligned crops; N may be 0."""
        ...

"""The embedder as the rest of the core sees it."""

from __future__ import annotations

from typing import Protocol

from face_recognition_node.vision.faces import FloatArray, ImageArray


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

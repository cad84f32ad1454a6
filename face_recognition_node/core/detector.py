"""The detector as the rest of the core sees it (the RetinaFace implementation follows in retinaface.py)."""

from __future__ import annotations

from typing import Protocol

from face_recognition_node.core.faces import Detection, ImageArray


class Detector(Protocol):
    """Finds faces in an image."""

    def detect(self, image_bgr: ImageArray) -> list[Detection]:
        """Return the faces of a (H, W, 3) BGR uint8 image, best score first, in its pixel coordinates."""
        ...

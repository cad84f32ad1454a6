"""The detector as the rest of the core sees it (the RetinaFace implementation follows in retinaface.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from face_recognition_node.core.faces import Detection, ImageArray
from face_recognition_node.core.parameters import check_section, parameter


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """How faces are found."""

    score_threshold: float = parameter(
        0.6, "smallest detection score in [0, 1] of a face", minimum=0.05, maximum=0.999
    )
    overlap_threshold: float = parameter(
        0.4,
        "boxes that overlap a better one by more than this (intersection over union) are dropped",
        minimum=0.05,
        maximum=0.95,
    )
    working_width: int = parameter(
        1280,
        "longer side in pixels at which faces are searched; larger images are shrunk to it",
        minimum=160,
        maximum=3840,
    )
    close_pass: bool = parameter(
        True, "look a second time at a small copy of the image, for faces that fill most of it"
    )
    minimum_face_px: int = parameter(
        12, "smallest face height in pixels of the image", minimum=4, maximum=1000
    )
    maximum_faces: int = parameter(
        50, "most faces in one image; the best-scored stay", minimum=1, maximum=500
    )

    def __post_init__(self) -> None:
        check_section(self)


class Detector(Protocol):
    """Finds faces in an image."""

    def detect(self, image_bgr: ImageArray) -> list[Detection]:
        """Return the faces of a (H, W, 3) BGR uint8 image, best score first, in its pixel coordinates."""
        ...

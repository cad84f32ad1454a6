"""The detector and the embedder as the rest of the core sees them; see retinaface.py and embedding.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import check_section, parameter
from face_recognition_node.common.stages import StageClock
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray

FAR_FACE_PX = 20.0
NEAR_FACE_PX = 96.0
"""Heights between which the score threshold rises, pixels at the working resolution."""


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """How faces are found.

    The network is surer the larger a face is: measured on photographs, faces of 100 pixels score above 0.9
    even when half covered, and few other things do; faces of 16 pixels score around 0.6. The threshold
    therefore rises with the size of the face, see :meth:`least_score`.
    """

    score_threshold: float = parameter(
        0.9, "smallest score in [0, 1] of a face at least 96 pixels high", minimum=0.05, maximum=0.999
    )
    far_score_threshold: float = parameter(
        0.2,
        "smallest score in [0, 1] of a face at most 20 pixels high; between 20 and 96 pixels it rises",
        minimum=0.05,
        maximum=0.999,
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
    interval_frames: int = parameter(
        1,
        "faces are searched in every this many images and followed by optical flow in between; a face that "
        "comes into view waits for the next search",
        minimum=1,
        maximum=30,
    )
    close_pass: bool = parameter(
        True, "look a second time at a small copy of a large image, for faces that fill it"
    )
    minimum_face_px: int = parameter(
        10, "smallest face height in pixels of the image", minimum=4, maximum=1000
    )
    maximum_faces: int = parameter(
        50, "most faces in one image; the best-scored stay", minimum=1, maximum=500
    )

    def __post_init__(self) -> None:
        check_section(self)
        if self.far_score_threshold > self.score_threshold:
            raise ConfigurationError(
                "far_score_threshold: expected at most score_threshold "
                f"({self.score_threshold}), got {self.far_score_threshold}"
            )

    def least_score(self, heights_px: ArrayLike) -> FloatArray:
        """Return the score that faces of (N,) heights need, in pixels at the working resolution.

        Linear in the logarithm of the height from 20 to 96 pixels, constant outside.
        """
        logarithms = np.log(np.maximum(np.asarray(heights_px, np.float32), 1e-6))
        ends = (self.far_score_threshold, self.score_threshold)
        return np.asarray(np.interp(logarithms, np.log([FAR_FACE_PX, NEAR_FACE_PX]), ends), np.float32)


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

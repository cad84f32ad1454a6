"""Put the pipeline together: models, gallery and recogniser from one configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from face_recognition_node.config import Config
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.vision.alignment import Aligner, align_faces
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.embedding import CropEmbedder


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The networks, ready to run, and what their scores mean."""

    detector: Detector
    embedder: CropEmbedder
    calibration: Calibration
    align: Aligner = align_faces


def load_models(config: Config) -> Models:
    """Load detector, embedder and calibration.

    Raises:
        ModelError: If a file is missing or does not belong here, or nothing can run it.
    """
    from face_recognition_node.backends import load_detector, load_embedder

    embedder = load_embedder(config.models)
    calibration = Calibration.from_card(embedder.card)
    detector = load_detector(config.models, config.detector)
    return Models(detector, embedder, calibration, detector.align_faces)


def open_gallery(path: Path | None, models: Models, config: Config) -> Gallery:
    """Open the gallery at ``path`` (None: in memory) for these models.

    Raises:
        GalleryError: If it cannot be opened, or belongs to another model.
    """
    return Gallery.open(
        path, models.embedder.fingerprint, config.gallery, dimension=models.embedder.dimension
    )


def build_recognizer(
    config: Config,
    gallery_path: Path | None = None,
    *,
    models: Models | None = None,
    gallery: Gallery | None = None,
    rotate: int = 0,
    background_writes: bool = False,
) -> tuple[Recognizer, Gallery, Models]:
    """Return a recogniser with its gallery and models.

    Args:
        config: All parameters.
        gallery_path: File of the gallery; None keeps it in memory. Not used where ``gallery`` is given.
        models: Already loaded models; None loads them.
        gallery: An open gallery; None opens one.
        rotate: Degrees (0, 90, 180, 270) by which images have to be turned clockwise to be upright.
        background_writes: See :class:`Recognizer`; True for a live camera.

    Raises:
        ModelError, GalleryError: As the parts raise them.
    """
    models = models or load_models(config)
    gallery = gallery or open_gallery(gallery_path, models, config)
    recognizer = Recognizer(
        models.detector, models.embedder, gallery, models.calibration, config,
        align=models.align, rotate=rotate, background_writes=background_writes,
    )  # fmt: skip
    return recognizer, gallery, models

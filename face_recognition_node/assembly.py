"""Put the pipeline together: models, gallery, recognizer and who observes it, from one configuration."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.closing import Closing
from face_recognition_node.config import Config
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.identity.adaptation import Adapter
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.strangers import StrangerBook
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.embedding import CropEmbedder
from face_recognition_node.vision.faces import Frame, RecognitionResult
from face_recognition_node.vision.retinaface import RetinaFaceDetector

PipelineT = TypeVar("PipelineT", bound="Pipeline")


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The networks, ready to run, and what their scores mean."""

    detector: Detector
    embedder: CropEmbedder
    calibration: Calibration


def load_models(config: Config) -> Models:
    """Load detector, embedder and calibration; ModelError if a file is missing or wrong, or cannot be run."""
    from face_recognition_node.backends import load_detector, load_embedder

    embedder = load_embedder(config.models)
    calibration = Calibration.from_card(embedder.card)
    return Models(load_detector(config.models, config.detector), embedder, calibration)


def open_gallery(path: Path | None, models: Models, config: Config) -> Gallery:
    """Open the gallery at ``path`` (None: in memory); GalleryError if it cannot be, or is another model's."""
    return Gallery.open(
        path, models.embedder.fingerprint, config.gallery, dimension=models.embedder.dimension
    )


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline(Closing):
    """Everything that recognizes the faces of one camera, opened and closed as one."""

    models: Models  # the networks
    gallery: Gallery  # who is known
    recognizer: Recognizer  # one frame in, identified faces out
    strangers: StrangerBook  # observes every frame and gives ids to unknown people
    adapter: Adapter  # adds templates of a person's new appearance; observes only where the pipeline learns
    writer: BackgroundWriter  # writes to the gallery while frames go on

    @classmethod
    def open(
        cls: type[PipelineT],
        config: Config,
        gallery_path: Path | None = None,
        *,
        models: Models | None = None,
        rotate: int = 0,
        learns: bool = False,
        is_live: bool = False,
    ) -> PipelineT:
        """Load the models (unless they are given), open the gallery and wire the observers.

        Without a path the gallery is in memory. Images have to be turned clockwise by ``rotate`` degrees to
        be upright. If it ``learns``, people's templates follow their appearance, as in the node. If it
        ``is_live``, a thread of its own writes, so that no frame waits for the disk; otherwise the outcome
        does not depend on timing.

        Raises:
            ModelError: If a file is missing or does not belong here, or nothing can run it.
            GalleryError: If the gallery cannot be opened, or belongs to another model.
        """
        models = models or load_models(config)
        gallery = open_gallery(gallery_path, models, config)
        writer = BackgroundWriter(is_immediate=not is_live)
        strangers = StrangerBook(gallery, config.strangers, writer, models.calibration)
        adapter = Adapter(gallery, models.calibration, config.adaptation, writer)
        recognizer = Recognizer(
            models.detector, models.embedder, gallery, models.calibration, config,
            rotate=rotate, observers=(strangers, adapter) if learns else (strangers,),
        )  # fmt: skip
        return cls(models, gallery, recognizer, strangers, adapter, writer)

    def process(self, frame: Frame, *, embed_all: bool = False) -> RecognitionResult:
        """Return who is in the frame; see :meth:`Recognizer.process`."""
        return self.recognizer.process(frame, embed_all=embed_all)

    def process_picture(self, picture: Frame) -> RecognitionResult:
        """Return the faces of a picture that is not of this camera, each embedded; no track sees them."""
        models = self.models
        alone = Recognizer(
            models.detector, models.embedder, self.gallery, models.calibration, self.recognizer.config
        )
        return alone.process(picture, embed_all=True)

    def update_config(self, config: Config) -> None:
        """Use other parameters from the next frame on (those that may change while running)."""
        self.recognizer.update_config(config)
        self.strangers.config, self.adapter.config = config.strangers, config.adaptation
        if isinstance(self.models.detector, RetinaFaceDetector):
            self.models.detector.config = config.detector
        if config.gallery != self.gallery.config:
            self.gallery.update_config(config.gallery)

    def close(self) -> None:
        """Finish what is being written and close the gallery, whatever goes wrong on the way."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.gallery.close)
            stack.callback(self.writer.close)

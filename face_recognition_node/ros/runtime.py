"""What a configured node holds: models, gallery, recognizer. Made whole or not at all, closed as one."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.assembly import Models, Pipeline
from face_recognition_node.common.errors import GalleryError, GalleryUnavailableError
from face_recognition_node.common.files import user_path
from face_recognition_node.gallery.files import default_gallery_path
from face_recognition_node.gallery.gallery import Gallery, SessionKind
from face_recognition_node.identity.adaptation_review import TWIN_PROBABILITY
from face_recognition_node.identity.person_models import pairs_of_one_person
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.ros.lifecycle import LoudNode
from face_recognition_node.ros.parameters import Settings
from face_recognition_node.vision.faces import Frame, IdentityState, RecognitionResult
from face_recognition_node.vision.runner import BackendReport

if TYPE_CHECKING:
    from face_recognition_node.ros.pipeline import FramePipeline

logger = logging.getLogger(__name__)
HOUSEKEEPING_PERIOD_S = 5.0


class Housekeeper:
    """Collects who is seen and writes it now and then, away from the recognizer's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._twins: tuple[int, list[tuple[str, str]]] = (-1, [])

    def note(self, result: RecognitionResult) -> None:
        """Remember the people of one image."""
        seen = [
            face.identity.person_id
            for face in result.faces
            if face.identity.person_id and face.identity.state is not IdentityState.UNDECIDED
        ]
        if seen:
            with self._lock:
                self._seen.update(seen)

    def tidy(self, gallery: Gallery) -> None:
        """Store when people were last seen and forget whose time is over; after a GalleryError, next time."""
        with self._lock:
            seen, self._seen = self._seen, set()
        now = time.time()
        try:
            if seen:
                gallery.mark_seen(seen, now)
            if gone := gallery.expire(now):
                logger.info("forgot %d people who had expired", len(gone))
        except GalleryError:
            with self._lock:
                self._seen |= seen
            raise

    def twins(self, runtime: Runtime) -> list[tuple[str, str]]:
        """Return the enrolled people among :func:`find_twins`, sought once for each version."""
        snapshot = runtime.gallery.snapshot()
        if self._twins[0] != snapshot.version:
            people = {one.person_id for one in snapshot.persons.values() if not one.is_stranger}
            self._twins = (snapshot.version, [pair for pair in find_twins(runtime) if set(pair) <= people])
        return self._twins[1]


class Runtime(Pipeline):
    """Everything that configure loads and cleanup lets go."""

    __slots__ = ()

    def describe_models(self) -> dict[str, object]:
        """Return what runs where and why, for diagnostics."""
        values: dict[str, object] = {"embedder fingerprint": self.models.embedder.fingerprint}
        for role, model in (("detector", self.models.detector), ("embedder", self.models.embedder)):
            report: BackendReport = model.backend  # type: ignore[union-attr]  # loaded detectors have it, too
            values[f"{role} backend"] = f"{report.name} on {report.device}, {report.precision}"
            values[f"{role} backend chosen"] = report.reason
        return values

    def describe_gallery(self) -> dict[str, object]:
        """Return the gallery's state, for diagnostics."""
        snapshot = self.gallery.snapshot()
        strangers = sum(person.is_stranger for person in snapshot.persons.values())
        return {
            "file": self.gallery.path,
            "version": snapshot.version,
            "persons": len(snapshot.persons) - strangers,
            "strangers": strangers,
            "strangers found to be two": self.strangers.n_separated,
            "templates": snapshot.n_templates,
            "session": snapshot.session or "(default)",
            "trouble": self.gallery.trouble,
        }


def find_twins(runtime: Runtime) -> list[tuple[str, str]]:
    """Return pairs of ids of entries, strangers included, whose templates look like one person."""
    pairs = pairs_of_one_person(runtime.models.calibration, runtime.gallery.snapshot(), TWIN_PROBABILITY)
    return [(first, second) for first, second, _ in pairs]


def twin_warning(pair: tuple[str, str]) -> str:
    """Return what to do about two entries that look like one person; ids only, for logs."""
    first, second = pair
    return (
        f"{first} and {second} look like one person; if they are, call merge_persons with "
        f"keep_person_id {first} and merge_person_ids [{second}]"
    )


class Host(LoudNode):
    """What the services and the actions need of the node they belong to."""

    runtime: Runtime | None = None  # what is there while the node is configured
    pipeline: FramePipeline | None = None  # answers the images; there while the node is configured
    is_active: bool = False  # whether images are answered

    @property
    def settings(self) -> Settings:
        """The parameters in force."""
        raise NotImplementedError

    @property
    def image_topic(self) -> str:
        """Full name of the topic images are expected on."""
        raise NotImplementedError

    def publish_gallery(self) -> None:
        """Show who is known, if that has changed."""
        raise NotImplementedError

    def check(self) -> None:
        """Subscribe to the images if somebody wants answers; show the gallery if it has changed."""
        raise NotImplementedError


def open_runtime(settings: Settings, runs_begun: set[Path]) -> Runtime:
    """Load and warm the models and open the gallery.

    This gallery is added to ``runs_begun``, those that this process has opened before: people stored for one
    run of the node outlive a cleanup of it.

    Raises:
        ModelError: A model file is missing, does not belong to its card, or nothing can run it.
        GalleryError: The gallery cannot be opened or written, or belongs to another model.
    """
    path = (
        user_path(settings.node.gallery_path, "any", name="gallery_path", error=GalleryUnavailableError)
        if settings.node.gallery_path
        else default_gallery_path()
    )
    runtime = Runtime.open(settings.recognition, path, learns=True, is_live=True)
    try:
        if path not in runs_begun and any(
            session.kind is SessionKind.RUN for session in runtime.gallery.snapshot().sessions.values()
        ):
            runtime.gallery.start_run()
        # commands without parameters follow the undo window
        runtime.gallery.update_config(settings.recognition.gallery)
        _warm(runtime.models, runtime.recognizer)
    except BaseException:
        runtime.close()
        raise
    runs_begun.add(path)
    return runtime


def _warm(models: Models, recognizer: Recognizer) -> None:
    """Run everything once, so that the first image is not the slow one."""
    recognizer.process(Frame(np.zeros((480, 640, 3), np.uint8), time.time()))
    models.embedder.embed(np.zeros((1, 112, 112, 3), np.uint8))
    recognizer.reset()

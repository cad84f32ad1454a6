"""The gallery's slow chores: who was seen when, whose time is over."""

from __future__ import annotations

import logging
import threading
import time

from face_recognition_node.common.errors import GalleryError
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.vision.faces import IdentityState, RecognitionResult

logger = logging.getLogger(__name__)
PERIOD_S = 5.0


class Housekeeper:
    """Collects who is seen and writes it now and then, away from the recogniser's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._next = 0.0

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
        """Every few seconds: store when people were last seen, and forget those whose time is over."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PERIOD_S
        with self._lock:
            seen, self._seen = self._seen, set()
        now = time.time()
        persons = gallery.snapshot().persons.values()
        try:
            if seen:
                gallery.mark_seen(seen, now)
            if any(person.expires is not None and person.expires <= now for person in persons):
                gone = gallery.expire(now)
                logger.info("forgot %d people whose time was over", len(gone))
        except GalleryError as error:
            logger.warning("the gallery could not be tidied: %s", error)

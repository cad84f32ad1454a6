"""A resolver with a gallery and tracks that are filled by hand."""

from __future__ import annotations

import math

import numpy as np
from face_world import FaceWorld, empty_gallery, made_up_calibration, unit

from face_recognition_node.config import IdentityConfig
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.identity import IdentityResolver
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.tracking.tracker import Track
from face_recognition_node.vision.faces import Detection, FloatArray, Identity

BOX = Detection(np.array([0.0, 0.0, 80.0, 100.0]), 0.99, np.arange(10.0).reshape(5, 2))


class Desk:
    """A resolver, a gallery and tracks that are filled by hand."""

    def __init__(self, world: FaceWorld, calibration: Calibration | None = None, **values: float) -> None:
        self.world, self.gallery = world, empty_gallery()
        self.calibration = calibration or made_up_calibration()
        self.resolver = IdentityResolver(self.calibration, IdentityConfig(**values), 0.02)
        self.numbers, self.stamp = 0, 0.0

    def enroll(self, person: int, name: str, number: int = 4, *, is_stranger: bool = False) -> str:
        templates = self.world.templates(person, number)
        return self.gallery.add_person(name, templates, is_stranger=is_stranger).person_id

    def track(self, *embeddings: FloatArray, quality: float = 0.9) -> Track:
        self.numbers += 1
        track = Track(self.numbers, BOX, self.stamp, self.stamp, TrackEvidence(0.4))
        for embedding in embeddings:
            self.show(track, embedding, quality)
        return track

    def show(self, track: Track, embedding: FloatArray, quality: float = 0.9) -> None:
        self.stamp += 0.5
        track.evidence.add(embedding, quality, self.stamp)

    def ask(self, *tracks: Track) -> list[Identity]:
        self.last_tracks, identities = self.resolver.resolve(
            tracks, self.gallery.snapshot(), self.stamp, self._renew
        )
        return identities

    def _renew(self, track: Track) -> Track:
        self.numbers += 1
        return Track(self.numbers, track.detection, track.first_stamp, track.last_stamp, track.evidence)


def between(world: FaceWorld, first: int, second: int, share: float) -> FloatArray:
    """Return a face with cosine ``share`` to the first axis, the rest on the second."""
    return unit(world.axis(first) * share + world.axis(second) * math.sqrt(1 - share**2))

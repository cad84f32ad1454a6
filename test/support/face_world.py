"""Made-up faces with known truth: persons are directions in the embedding space, views lie around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from face_recognition_node.gallery.gallery import Gallery, NewTemplate
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.faces import (
    Detection,
    FaceQuality,
    FaceView,
    FloatArray,
    HeadPose,
    IdentifiedFace,
    Identity,
    RecognitionResult,
)

IMAGE_SIZE = (640, 480)
RATE_HZ = 10.0


def unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def made_up_calibration() -> Calibration:
    """Return a log-likelihood ratio of 16 (s - 0.3), whatever the quality, uncorrected for hubness."""
    similarities = np.linspace(-1, 1, 201, dtype=np.float32)
    ratio = np.broadcast_to(16.0 * (similarities - 0.3), (2, 2, 201)).astype(np.float32)
    false_match = np.broadcast_to(np.minimum(-16.0 * similarities, 0.0), (2, 2, 201)).astype(np.float32)
    prototypes = np.eye(64, dtype=np.float32)[:4]
    return Calibration(
        np.array([0.0, 1.0], np.float32), similarities, ratio, false_match, prototypes,
        neighbours=2, weight=0.0, mean_hubness=0.0, comparisons_per_track=1.0, correlation_s=0.4,
    )  # fmt: skip


def random_calibration(seed: int = 0) -> Calibration:
    """Return tables of three quality levels and vectors of eight numbers, without meaning."""
    rng = np.random.default_rng(seed)
    ratio = np.sort(rng.normal(size=(3, 3, 21)), axis=2)
    rate = -np.sort(rng.uniform(0, 9, size=(3, 3, 21)), axis=2)
    prototypes = rng.normal(size=(12, 8))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    return Calibration(
        np.array([0.2, 0.5, 0.9], np.float32),
        np.linspace(-0.5, 1.0, 21, dtype=np.float32),
        ((ratio + ratio.transpose(1, 0, 2)) / 2).astype(np.float32),
        ((rate + rate.transpose(1, 0, 2)) / 2).astype(np.float32),
        prototypes.astype(np.float32), 3, 0.7, 0.3, 2.0, 0.4, "abc",
    )  # fmt: skip


def empty_gallery() -> Gallery:
    return Gallery.open(None, "made-up")


@dataclass
class FaceWorld:
    """Makes views of persons; each person is one of the axes, so that different people have cosine 0."""

    seed: int = 0
    # how far a view lies from its person: 0.5 makes two views of one person about 0.8 alike
    scatter: float = 0.4
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def axis(self, person: int) -> FloatArray:
        return np.eye(64, dtype=np.float32)[person]

    def embedding(self, person: int, scatter: float | None = None) -> FloatArray:
        noise = unit(self.rng.normal(size=64).astype(np.float32))
        return unit(self.axis(person) + np.float32(self.scatter if scatter is None else scatter) * noise)

    def view(
        self,
        stamp: float,
        person: int = 0,
        *,
        center: tuple[float, float] = (320.0, 240.0),
        size: float = 90.0,
        yaw: float = 0.0,
        pitch: float = 0.0,
        score: float = 0.99,
        embedding: FloatArray | None = None,
        has_embedding: bool = True,
        crop_value: int = 128,
        **quality: float,
    ) -> FaceView:
        x, y = center
        half = size / 2
        box = np.array([x - half, y - half, x + half, y + half], np.float32)
        eyes = np.array([[-0.2, -0.1], [0.2, -0.1], [0.0, 0.1], [-0.15, 0.27], [0.15, 0.27]])
        parts = {
            "size": 1.0,
            "sharpness": 1.0,
            "exposure": 1.0,
            "frontality": 1.0,
            "landmarks": 1.0,
            **quality,
        }
        parts.setdefault("overall", float(np.prod(list(parts.values()))))
        vector = self.embedding(person) if embedding is None else embedding
        return FaceView(
            Detection(box, score, (eyes * size + (x, y)).astype(np.float32)),
            stamp,
            FaceQuality(**parts),
            HeadPose(yaw, pitch, 0.0),
            np.full((112, 112, 3), crop_value, np.uint8),
            vector if has_embedding else None,
            precision="fp16",
        )

    def templates(self, person: int, number: int = 4, scatter: float | None = None) -> list[NewTemplate]:
        return [NewTemplate(self.embedding(person, scatter), 0.9, HeadPose(0, 0, 0)) for _ in range(number)]


def face(view: FaceView, track_id: int = 1, identity: Identity | None = None) -> IdentifiedFace:
    return IdentifiedFace(track_id, view, identity or Identity())


def frame(stamp: float, faces: Iterable[IdentifiedFace] = ()) -> RecognitionResult:
    return RecognitionResult(stamp, "camera", IMAGE_SIZE, tuple(faces), 0)


def stamps(seconds: float, start: float = 0.0) -> Sequence[float]:
    return [float(start + k / RATE_HZ) for k in range(round(seconds * RATE_HZ))]

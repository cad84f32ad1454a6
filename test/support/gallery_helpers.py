"""Small galleries with made-up faces."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, Provenance, Snapshot
from face_recognition_node.vision.faces import HeadPose

FINGERPRINT = "model-a/alignment-1"


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector, axis=-1, keepdims=True)).astype(np.float32)


def face(rng: np.random.Generator, n: int | None = None) -> np.ndarray:
    """Return one random unit vector, or n of them."""
    return unit(rng.normal(size=64 if n is None else (n, 64)))


def template(
    vector: np.ndarray, quality: float = 0.8, provenance: Provenance = Provenance.ENROLLED, crop=None
) -> NewTemplate:
    return NewTemplate(vector, quality, HeadPose(1.0, -2.0, 3.0), provenance, crop_bgr=crop)


def templates(rng: np.random.Generator, n: int) -> list[NewTemplate]:
    return [template(vector) for vector in face(rng, n)]


def open_gallery(path: Path | None, clock: Callable[[], float] | None = None, **values: object) -> Gallery:
    """Open a gallery whose keys lie in a folder beside, not in, the one of the file."""
    values.setdefault("poll_interval_s", 0.0)
    options = {} if clock is None else {"clock": clock}
    if path is not None:
        options["keys_folder"] = path.parent.parent / "keys"
    return Gallery.open(path, FINGERPRINT, GalleryConfig(**values), **options)


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on a gallery's file, as another program would, and return its rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def content(snapshot: Snapshot) -> dict[str, object]:
    """Return all that is stored, for comparison."""
    return {
        person_id: (
            person.name, person.is_stranger, person.session, person.created, person.expires, person.aliases,
            tuple(
                (t.template_id, t.embedding.tobytes(), t.quality, t.pose, t.provenance, t.is_set_aside)
                for t in snapshot.templates_of(person_id)
            ),
        )
        for person_id, person in snapshot.persons.items()
    }  # fmt: skip

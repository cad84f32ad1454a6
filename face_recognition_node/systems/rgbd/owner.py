"""The owner of a device as vectors: registered from several poses, unlocking by distance, adapting."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.common.files import written_whole
from face_recognition_node.vision.faces import FloatArray


@dataclass
class Owner:
    """The owner's vectors.

    Attributes:
        threshold: Distance below which a face unlocks.
        vectors: (K, D) registered and adapted vectors.
        capacity: Most vectors kept; the registered ones stay, the oldest adapted one makes room.
        registered: How many of them were registered.
    """

    threshold: float
    vectors: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    capacity: int = 20
    registered: int = 0

    def register(self, vectors: FloatArray) -> None:
        """Start anew from (K, D) vectors of different poses."""
        if vectors.ndim != 2 or len(vectors) == 0:
            raise InputError(
                f"registration: expected vectors (K, D), K at least 1, got shape {vectors.shape}"
            )
        self.vectors = np.asarray(vectors, np.float32)
        self.registered = len(vectors)
        self.capacity = max(self.capacity, self.registered + 1)

    def distance(self, vector: FloatArray) -> float:
        """Return the Euclidean distance of (D,) to the nearest of the owner's vectors."""
        if len(self.vectors) == 0:
            raise InputError("nobody is registered: register some pictures of the owner first")
        return float(np.linalg.norm(self.vectors - vector, axis=1).min())

    def unlocks(self, vector: FloatArray, adapt: bool = False) -> bool:
        """Return whether (D,) is near enough; with ``adapt`` an accepted vector is added to the owner's."""
        is_owner = self.distance(vector) < self.threshold
        if is_owner and adapt:
            kept = self.vectors
            if len(kept) >= self.capacity:
                kept = np.delete(kept, self.registered, axis=0)
            self.vectors = np.concatenate([kept, np.asarray(vector, np.float32)[None]])
        return is_owner

    def save(self, path: Path) -> None:
        """Write to an ``.npz``, whole or not at all, readable by its user only."""
        with written_whole(path, 0o600) as draft:
            np.savez(
                draft, threshold=self.threshold, vectors=self.vectors, capacity=self.capacity,
                registered=self.registered,
            )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Owner:
        """Read what ``save`` wrote."""
        if not path.is_file():
            raise SourceError(f"{path}: no such file; register the owner first (unlock --register PICTURES)")
        try:
            with np.load(path) as stored:
                return cls(
                    float(stored["threshold"]),
                    stored["vectors"],
                    int(stored["capacity"]),
                    int(stored["registered"]),
                )
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise SourceError(
                f"{path}: expected an owner's vectors, got a file that is damaged or something else "
                f"({error}); register the owner again"
            ) from error

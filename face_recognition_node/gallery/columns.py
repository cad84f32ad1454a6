"""Templates as columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.gallery.values import PRECISIONS, Provenance
from face_recognition_node.vision.faces import FloatArray

Row = tuple[str | int | float | bytes | None, ...]
IntArray = NDArray[np.int64]

PROVENANCES = tuple(Provenance)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Templates as columns of equal length n, in any order.

    Attributes:
        person_ids: Whose each template is.
        template_ids: (n,) int64.
        embeddings: (n, D) float32 unit vectors.
        quality: (n,) float32.
        pose: (n, 3) float32 yaw, pitch, roll in degrees.
        created: (n,) float64 Unix seconds.
        codes: (n, 3) uint8 position in PROVENANCES, position in PRECISIONS, 1 if set aside.
    """

    person_ids: NDArray[np.object_]
    template_ids: IntArray
    embeddings: FloatArray
    quality: FloatArray
    pose: FloatArray
    created: NDArray[np.float64]
    codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.template_ids)

    def take(self, rows: NDArray[np.intp] | IntArray, is_column_major: bool = False) -> Columns:
        """Return a copy of some rows."""
        embeddings = self.embeddings[rows]
        return Columns(
            self.person_ids[rows], self.template_ids[rows],
            np.asfortranarray(embeddings) if is_column_major else embeddings, self.quality[rows],
            self.pose[rows], self.created[rows], self.codes[rows],
        )  # fmt: skip

    def joined(self, other: Columns) -> Columns:
        """Return these rows and then those of ``other``."""
        return joined([self, other], self.embeddings.shape[1])


def columns_from_rows(rows: Sequence[Row], dimension: int) -> Columns:
    """Return rows of the table templates (columns in the schema's order) as arrays.

    Raises:
        InputError: An embedding is not ``dimension`` numbers long.
    """
    n = len(rows)
    for row in rows:
        if len(row[2]) != 4 * dimension:  # type: ignore[arg-type]  # bytes, by the schema
            raise InputError(f"template {row[0]!r}: expected an embedding of {dimension} numbers")
    ids, persons, blobs, quality, yaw, pitch, roll, provenance, precision, created, aside = (
        zip(*rows, strict=True) if rows else ((),) * 11
    )
    provenance_codes = {name.value: code for code, name in enumerate(PROVENANCES)}
    precision_codes = {name: code for code, name in enumerate(PRECISIONS)}
    codes = np.empty((n, 3), np.uint8)
    codes[:, 0] = [provenance_codes[name] for name in provenance]
    codes[:, 1] = [precision_codes[name] for name in precision]
    codes[:, 2] = aside
    person_ids = np.empty(n, object)
    person_ids[:] = persons
    return Columns(
        person_ids,
        np.array(ids, np.int64),
        np.frombuffer(b"".join(blobs), np.float32).reshape(n, dimension),
        np.array(quality, np.float32),
        np.array([yaw, pitch, roll], np.float32).T.reshape(n, 3),
        np.array(created, np.float64),
        codes,
    )


def joined(parts: Sequence[Columns], dimension: int) -> Columns:
    """Return the rows of all parts, one part after the other; there may be none."""
    parts = parts or [columns_from_rows([], dimension)]
    return Columns(
        np.concatenate([part.person_ids for part in parts]),
        np.concatenate([part.template_ids for part in parts]),
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.pose for part in parts]),
        np.concatenate([part.created for part in parts]),
        np.concatenate([part.codes for part in parts]),
    )


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Return (n, D) vectors at unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)

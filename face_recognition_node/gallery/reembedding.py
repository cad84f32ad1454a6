"""Carry a gallery over to another model, where the crops of its faces were kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.common.errors import GalleryConflictError

if TYPE_CHECKING:
    from face_recognition_node.gallery.changes import Transaction
    from face_recognition_node.gallery.files import CropSafe
    from face_recognition_node.gallery.store import Store
    from face_recognition_node.vision.detector import Embedder

BATCH = 16


@dataclass(frozen=True, slots=True)
class ReembeddingReport:
    """How many templates have a new embedding, and how many had no crop and are gone."""

    n_embedded: int
    n_removed: int
    removed_persons: tuple[str, ...]  # names (or ids) of those who had no crop at all


def reembed(
    store: Store,
    crops: CropSafe,
    embedder: Embedder,
    lock: AbstractContextManager[object],
    note_residue: Callable[[], int],
    *,
    remove_without_crop: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReembeddingReport:
    """Replace all embeddings by those of another model, in one change that cannot be undone.

    The lock is held while the file is read or written, not while the network runs. ``note_residue`` is called
    in the transaction that removes the old embeddings. Without ``remove_without_crop`` a template of which no
    crop was kept is an error. ``progress`` is told the number of templates done and to do.

    Raises:
        GalleryConflictError: Crops are missing and may not be removed, or none was kept; nothing was changed.
        GalleryUnavailableError: The key is not on this machine.
    """
    embedded: dict[int, bytes] = {}
    while True:
        with lock:
            execute = store.connection.execute
            n_all = execute("SELECT count(*) FROM templates").fetchone()[0]
            kept = execute("SELECT template_id, sealed FROM crops ORDER BY template_id").fetchall()
        if len(kept) < n_all and (not remove_without_crop or not kept):
            raise GalleryConflictError(
                f"{n_all - len(kept)} of {n_all} templates have no crop and cannot be embedded again; "
                "allow their removal (--remove-without-crop) or enroll these people again"
            )
        new = [(template_id, sealed) for template_id, sealed in kept if template_id not in embedded]
        for start in range(0, len(new), BATCH):  # without the lock: the network takes its time
            batch = new[start : start + BATCH]
            images = np.stack([crops.open(template_id, sealed) for template_id, sealed in batch])
            vectors = np.asarray(embedder.embed(images), "<f4")
            embedded |= {key: one.tobytes() for one, (key, _) in zip(vectors, batch, strict=True)}
            progress(len(embedded), len(kept))
        with lock, store.transaction() as transaction:
            found = transaction.execute("SELECT template_id FROM crops ORDER BY template_id")
            if [key for (key,) in found] == [key for key, _ in kept]:
                names, n_removed = _replace(transaction, embedder, embedded)
                note_residue()
                break
    return ReembeddingReport(len(kept), n_removed, names)


def _replace(
    transaction: Transaction, embedder: Embedder, embedded: dict[int, bytes]
) -> tuple[tuple[str, ...], int]:
    """Write the new embeddings; return the names of who is gone, and how many templates went."""
    execute = transaction.execute
    transaction.connection.executemany(
        "UPDATE templates SET embedding = ?, precision = ? WHERE template_id = ?",
        [(vector, embedder.precision, template_id) for template_id, vector in embedded.items()],
    )
    n_removed = execute(
        "DELETE FROM templates WHERE template_id NOT IN (SELECT template_id FROM crops)"
    ).rowcount
    empty = "person_id NOT IN (SELECT person_id FROM templates)"
    gone = execute(f"SELECT CASE name WHEN '' THEN person_id ELSE name END FROM persons WHERE {empty}")
    names = tuple(str(row[0]) for row in gone.fetchall())
    execute(f"DELETE FROM aliases WHERE {empty}")
    execute(f"DELETE FROM persons WHERE {empty}")
    execute("DELETE FROM history")  # what it would bring back are embeddings of the other model
    transaction.set_meta("fingerprint", embedder.fingerprint)
    transaction.set_meta("dimension", embedder.dimension)
    transaction.bump_version(is_everything=True)
    return names, n_removed

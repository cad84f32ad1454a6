"""Check a gallery: the file, the rules its rows must obey, the index against it, and doubtful templates."""

from __future__ import annotations

import stat
from dataclasses import dataclass

import numpy as np

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.gallery.keys import KeyRing
from face_recognition_node.gallery.rows import unit_rows
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.store import Store

UNIT_TOLERANCE = 1e-3
DOUBT_SIMILARITY = 0.4
"""A template is doubtful only if somebody else is at least this similar."""
DOUBT_LIMIT = 20000
"""With more templates than this, only a sample of this size is checked for doubt."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What ``verify`` found.

    Attributes:
        problems: One sentence each; empty: all is well.
        suspicious_template_ids: See :func:`doubtful_templates`.
        n_persons: Persons and strangers.
        n_templates: Templates.
        fingerprint: Of the model and alignment.
        version: Of the gallery.
    """

    problems: tuple[str, ...]
    suspicious_template_ids: tuple[int, ...]
    n_persons: int
    n_templates: int
    fingerprint: str
    version: int

    @property
    def is_sound(self) -> bool:
        """Whether there is no problem; doubtful templates are for people to judge."""
        return not self.problems


def verify(store: Store, snapshot: Snapshot, keys: KeyRing) -> VerificationReport:
    """Check everything; changes nothing. The snapshot must be of the version in the file."""
    problems = [*_file_problems(store), *_row_problems(store), *_key_problems(store, keys)]
    problems += _index_problems(store, snapshot)
    return VerificationReport(
        problems=tuple(problems),
        suspicious_template_ids=doubtful_templates(snapshot),
        n_persons=len(snapshot.persons),
        n_templates=snapshot.n_templates,
        fingerprint=snapshot.fingerprint,
        version=snapshot.version,
    )


def _file_problems(store: Store) -> list[str]:
    execute = store.connection.execute
    problems = [f"file: {row[0]}" for row in execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    problems += [
        f"{row[0]} row {row[1]} refers to a row of {row[2]} that is not there"
        for row in execute("PRAGMA foreign_key_check")
    ]
    try:
        store.require_same_file()
    except GalleryUnavailableError as error:
        return [*problems, str(error)]
    if store.path is not None and stat.S_IMODE(store.path.stat().st_mode) & 0o077:
        problems.append(f"{store.path} can be read by other users; run: chmod 600 {store.path}")
    return problems


def _row_problems(store: Store) -> list[str]:
    execute = store.connection.execute
    problems = []
    for (person_id,) in execute(
        "SELECT person_id FROM persons WHERE person_id NOT IN (SELECT person_id FROM templates)"
    ):
        problems.append(f"{person_id} has no templates")
    for (alias,) in execute("SELECT alias FROM aliases WHERE alias IN (SELECT person_id FROM persons)"):
        problems.append(f"{alias} is a person and at the same time a former id of another")
    for (template_id,) in execute("SELECT template_id FROM templates WHERE NOT quality BETWEEN 0 AND 1"):
        problems.append(f"template {template_id}: its quality is outside [0, 1]")
    next_template = int(store.meta("next_template"))
    for (template_id,) in execute(
        "SELECT template_id FROM templates WHERE template_id >= ?", (next_template,)
    ):
        problems.append(f"template {template_id}: its id has not been given out")
    return problems


def _key_problems(store: Store, keys: KeyRing) -> list[str]:
    problems = []
    for entry_id, seal in store.connection.execute(
        "SELECT entry_id, seal FROM history WHERE seal IS NOT NULL"
    ):
        if not keys.has(seal):
            problems.append(f"change {entry_id} cannot be undone here: its key is not on this machine")
    n_crops = store.connection.execute("SELECT count(*) FROM crops").fetchone()[0]
    if n_crops and not keys.has("crops"):
        problems.append(f"{n_crops} face crops cannot be opened here: their key is not on this machine")
    return problems


def _index_problems(store: Store, snapshot: Snapshot) -> list[str]:
    rows = store.read_since(-1)
    in_file, indexed = rows.templates, snapshot.columns
    lengths = np.linalg.norm(rows.embeddings, axis=1)
    is_unit = np.abs(lengths - 1) <= UNIT_TOLERANCE  # False for NaN as well
    problems = [
        f"template {template_id}: its embedding is no unit vector"
        for template_id in in_file.template_ids[~is_unit].tolist()
    ]
    if not np.array_equal(indexed.template_ids, in_file.template_ids):
        return [
            *problems,
            f"the search index holds {len(indexed)} templates, the file {len(in_file)} other ones",
        ]
    differs = (snapshot.embeddings() != rows.embeddings).any(axis=1) & is_unit
    differs |= indexed.person_ids != in_file.person_ids
    return problems + [
        f"template {template_id}: the search index differs from the file"
        for template_id in in_file.template_ids[differs].tolist()
    ]


def doubtful_templates(snapshot: Snapshot) -> tuple[int, ...]:
    """Return templates that resemble the mean of somebody else more than that of their person's others.

    Means, not single templates: one stray template must not cast doubt on all those it resembles.
    """
    n = snapshot.n_templates
    if n == 0:
        return ()
    embeddings, template_ids = snapshot.embeddings(), snapshot.columns.template_ids
    _, owners = np.unique(snapshot.columns.person_ids.astype(str), return_inverse=True)
    counts = np.bincount(owners)
    sums = np.zeros((len(counts), snapshot.dimension), np.float32)
    np.add.at(sums, owners, embeddings)
    means = unit_rows(sums)
    rows = (
        np.arange(n) if n <= DOUBT_LIMIT else np.random.default_rng(0).choice(n, DOUBT_LIMIT, replace=False)
    )
    doubtful: list[int] = []
    for start in range(0, len(rows), 256):
        batch = rows[start : start + 256]
        vectors, mine = embeddings[batch], owners[batch]
        own = (unit_rows(sums[mine] - vectors) * vectors).sum(axis=1)
        similarities = vectors @ means.T
        similarities[np.arange(len(batch)), mine] = -2
        other = similarities.max(axis=1)
        is_doubtful = (counts[mine] > 1) & (other > own) & (other >= DOUBT_SIMILARITY)
        doubtful += template_ids[batch[is_doubtful]].tolist()
    return tuple(sorted(doubtful))

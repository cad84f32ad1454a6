"""Check a gallery: the file, the rules its rows must obey, the index against it, and doubtful templates."""

from __future__ import annotations

import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.common.errors import GalleryUnavailableError, InputError
from face_recognition_node.gallery.index import unit_rows
from face_recognition_node.gallery.schema import KEY_COLUMNS, PRECISIONS, PROVENANCES
from face_recognition_node.gallery.values import checked_name

if TYPE_CHECKING:
    from face_recognition_node.gallery.files import KeyRing
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.gallery.store import Store
    from face_recognition_node.vision.faces import FloatArray, IntArray

UNIT_TOLERANCE = 1e-3
DOUBT_SIMILARITY = 0.4  # a template is doubtful only if somebody else is at least this similar
DOUBT_LIMIT = 20000  # with more templates than this, only a sample of this size is checked for doubt


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What ``verify`` found: one sentence for each problem, and what :func:`doubtful_templates` says."""

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


def verify(
    store: Store, snapshot: Snapshot, catch_up: Callable[[], Snapshot], keys: KeyRing
) -> VerificationReport:
    """Check everything; changes nothing. ``catch_up`` returns the snapshot of the version in the file."""
    try:
        store.require_same_file()
    except GalleryUnavailableError as error:
        return _report([str(error)], snapshot)
    problems = [*_file_problems(store), *row_problems(store.connection, snapshot.dimension)]
    problems += [*_counter_problems(store), *_key_problems(store, keys)]
    try:
        snapshot = catch_up()
        problems += _index_problems(store, snapshot)
    except GalleryUnavailableError as error:
        problems.append(str(error))
    return _report(problems, snapshot)


def _report(problems: list[str], snapshot: Snapshot) -> VerificationReport:
    return VerificationReport(
        problems=tuple(problems),
        suspicious_template_ids=doubtful_templates(snapshot),
        n_persons=len(snapshot.persons),
        n_templates=snapshot.n_templates,
        fingerprint=snapshot.fingerprint,
        version=snapshot.version,
    )


def _file_problems(store: Store) -> list[str]:
    problems = [
        f"file: {row[0]}" for row in store.connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"
    ]
    if store.path is not None and stat.S_IMODE(store.path.stat().st_mode) & 0o077:
        problems.append(f"{store.path} can be read by other users; run: chmod 600 {store.path}")
    return problems


def _is_number(column: str, low: float = -1e15, high: float = 1e15) -> str:
    """Return SQL that is true where a column holds a finite number within bounds."""
    return f"(typeof({column}) IN ('integer', 'real') AND {column} BETWEEN {low!r} AND {high!r})"


def _is_flag(column: str) -> str:
    return f"(typeof({column}) = 'integer' AND {column} IN (0, 1))"


# table, condition that no row of it may meet, and the sentence about one that does
_RULES = (
    ("persons", "person_id NOT IN (SELECT person_id FROM templates)", "{} has no templates"),
    ("persons", f"NOT {_is_flag('is_stranger')}", "{}: is_stranger is not 0 or 1"),
    ("persons", f"NOT {_is_number('created')}", "{}: its time of creation is invalid"),
    ("persons", f"expires IS NOT NULL AND NOT {_is_number('expires')}", "{}: its expiry is invalid"),
    ("persons", f"last_seen IS NOT NULL AND NOT {_is_number('last_seen')}", "{}: last_seen is invalid"),
    (
        "aliases", "alias IN (SELECT person_id FROM persons)",
        "{} is a person and at the same time a former id of another",
    ),
    ("sessions", "kind NOT IN ('permanent', 'event', 'run')", "session {}: its kind is unknown"),
    (
        "sessions", f"time_to_live_s IS NOT NULL AND NOT {_is_number('time_to_live_s', 0)}",
        "session {}: its time to live is not a positive number",
    ),
    ("templates", "NOT template_id BETWEEN 1 AND 1e18", "template {}: its id is out of range"),
    ("templates", f"NOT {_is_number('quality', 0, 1)}", "template {}: its quality is outside [0, 1]"),
    *(
        ("templates", f"NOT {_is_number(angle)}", f"template {{}}: its {angle} is not an angle")
        for angle in ("yaw", "pitch", "roll")
    ),
    ("templates", f"NOT {_is_number('created')}", "template {}: its time of creation is invalid"),
    ("templates", f"provenance NOT IN {PROVENANCES!r}", "template {}: its provenance is unknown"),
    ("templates", f"precision NOT IN {PRECISIONS!r}", "template {}: its precision is unknown"),
    ("templates", f"NOT {_is_flag('is_set_aside')}", "template {}: is_set_aside is not 0 or 1"),
)  # fmt: skip
_ID = re.compile(r"[!-~]{1,64}")  # a person id: printable ASCII without blanks


def row_problems(connection: sqlite3.Connection, dimension: int) -> Iterator[str]:
    """Yield what is wrong with the rows of a gallery or an exported file, whose schema has been checked."""
    execute = connection.execute
    for table, condition, sentence in _RULES:
        for (key,) in execute(f"SELECT {KEY_COLUMNS[table]} FROM {table} WHERE {condition}"):
            yield sentence.format(_quoted(key))
    for table, row_id, parent, _ in execute("PRAGMA foreign_key_check"):
        yield f"{table} row {row_id} refers to a row of {parent} that is not there"
    for (key,) in execute("SELECT person_id FROM persons UNION ALL SELECT alias FROM aliases"):
        if not isinstance(key, str) or not _ID.fullmatch(key):
            yield f"{_quoted(key)} is not a person id (1 to 64 printable ASCII characters without blanks)"
    names = (
        "SELECT person_id, name, is_stranger <> 0 FROM persons "
        "UNION ALL SELECT 'session', name, 1 FROM sessions"
    )
    for owner, name, may_be_empty in execute(names):
        try:
            checked_name(name if isinstance(name, str) else "\0", may_be_empty=bool(may_be_empty))
        except InputError as error:
            yield f"{_quoted(owner)}: {error}"
    size = "typeof(embedding) <> 'blob' OR length(embedding) <> ?"
    for (key,) in execute(f"SELECT template_id FROM templates WHERE {size}", (4 * dimension,)):
        yield f"template {key}: expected an embedding of {dimension} numbers"


def unit_problems(template_ids: IntArray, embeddings: FloatArray) -> list[str]:
    """Return a sentence for each of (n, D) embeddings that is no unit vector."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_unit = np.abs(np.linalg.norm(embeddings, axis=1) - 1) <= UNIT_TOLERANCE  # False for NaN as well
    return [f"template {key}: its embedding is not a unit vector" for key in template_ids[~is_unit].tolist()]


def _quoted(value: object) -> str:
    """Return a short printable form of a key that may be of any type and length."""
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() and len(text) <= 64 else f"{text[:40]!r}"


def _counter_problems(store: Store) -> list[str]:
    query = "SELECT template_id FROM templates WHERE template_id >= ?"
    found = store.connection.execute(query, (int(store.meta("next_template")),))
    return [f"template {template_id}: its id was never assigned" for (template_id,) in found]


def _key_problems(store: Store, keys: KeyRing) -> list[str]:
    sealed = store.connection.execute("SELECT entry_id, seal FROM history WHERE seal IS NOT NULL")
    problems = [
        f"change {entry_id} cannot be undone here: its key is not on this machine"
        for entry_id, seal in sealed
        if not keys.has(seal)
    ]
    n_crops = store.connection.execute("SELECT count(*) FROM crops").fetchone()[0]
    if n_crops and not keys.has("crops"):
        problems.append(f"{n_crops} face crops cannot be opened here: their key is not on this machine")
    return problems


def _index_problems(store: Store, snapshot: Snapshot) -> list[str]:
    rows = store.read_since(-1)
    in_file, indexed = rows.templates, snapshot.table
    problems = unit_problems(in_file["template_id"], rows.embeddings)
    if not np.array_equal(indexed["template_id"], in_file["template_id"]):
        sizes = f"{len(indexed)} templates, the file {len(in_file)} other ones"
        return [*problems, f"the search index holds {sizes}"]
    is_number = np.isfinite(rows.embeddings).all(axis=1)  # NaN is reported above, and differs from itself
    differs = (snapshot.embeddings() != rows.embeddings).any(axis=1) & is_number
    differs |= indexed["person_id"] != in_file["person_id"]
    return problems + [
        f"template {template_id}: the search index differs from the file"
        for template_id in in_file["template_id"][differs].tolist()
    ]


def doubtful_templates(snapshot: Snapshot) -> tuple[int, ...]:
    """Return templates that resemble the mean of somebody else more than that of their person's others.

    Means, not single templates: one stray template must not cast doubt on all those it resembles.
    """
    n = snapshot.n_templates
    if n == 0:
        return ()
    embeddings, template_ids = snapshot.embeddings(), snapshot.table["template_id"]
    _, owners = np.unique(snapshot.table["person_id"].astype(str), return_inverse=True)
    counts = np.bincount(owners)
    sums = np.zeros((len(counts), snapshot.dimension), np.float32)
    np.add.at(sums, owners, embeddings)
    means = unit_rows(sums)
    rows = np.arange(n)
    if n > DOUBT_LIMIT:
        rows = np.random.default_rng(0).choice(n, DOUBT_LIMIT, replace=False)
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

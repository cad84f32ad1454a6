"""The tables of a gallery file, and how to read their rows: all, or those changed since a version."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.gallery.values import PRECISIONS, Provenance
from face_recognition_node.vision.faces import FloatArray, IntArray

APPLICATION_ID = 0x46524E47
"""Marks the SQLite file as ours ("FRNG"), so that no other database is taken for a gallery."""

FORMAT_VERSION = 1

SCHEMA = """
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;
CREATE TABLE sessions (
    name           TEXT PRIMARY KEY,
    kind           TEXT NOT NULL CHECK (kind IN ('permanent', 'event', 'run')),
    time_to_live_s REAL
) WITHOUT ROWID;
CREATE TABLE persons (
    person_id   TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    is_stranger INTEGER NOT NULL CHECK (is_stranger IN (0, 1)),
    session     TEXT NOT NULL REFERENCES sessions (name) DEFERRABLE INITIALLY DEFERRED,
    created     REAL NOT NULL,
    expires     REAL,
    last_seen   REAL
) WITHOUT ROWID;
CREATE TABLE aliases (
    alias     TEXT PRIMARY KEY,
    person_id TEXT NOT NULL REFERENCES persons (person_id) DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
CREATE TABLE templates (
    template_id  INTEGER PRIMARY KEY,
    person_id    TEXT NOT NULL REFERENCES persons (person_id) DEFERRABLE INITIALLY DEFERRED,
    embedding    BLOB NOT NULL,
    quality      REAL NOT NULL,
    yaw          REAL NOT NULL,
    pitch        REAL NOT NULL,
    roll         REAL NOT NULL,
    provenance   TEXT NOT NULL CHECK (provenance IN ('enrolled', 'adapted', 'imported')),
    precision    TEXT NOT NULL,
    created      REAL NOT NULL,
    is_set_aside INTEGER NOT NULL CHECK (is_set_aside IN (0, 1))
);
CREATE INDEX templates_of_person ON templates (person_id);
CREATE INDEX aliases_of_person ON aliases (person_id);
CREATE TABLE crops (
    template_id INTEGER PRIMARY KEY REFERENCES templates (template_id) DEFERRABLE INITIALLY DEFERRED,
    sealed      BLOB NOT NULL
);
CREATE TABLE changes (
    version INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    key     NOT NULL,
    PRIMARY KEY (version, kind, key)
) WITHOUT ROWID;
CREATE TABLE history (
    entry_id INTEGER PRIMARY KEY AUTOINCREMENT,
    made     REAL NOT NULL,
    sentence TEXT NOT NULL,
    is_done  INTEGER NOT NULL CHECK (is_done IN (0, 1)),
    persons  TEXT NOT NULL,
    seal     TEXT,
    deadline REAL
);
CREATE TABLE history_parts (
    entry_id INTEGER NOT NULL REFERENCES history (entry_id) ON DELETE CASCADE,
    part     INTEGER NOT NULL,
    payload  BLOB NOT NULL,
    PRIMARY KEY (entry_id, part)
);
"""
"""Format 1. ``changes`` says which rows each version touched, for readers that follow (kind ``p``erson,
``t``emplate; ``*`` stands for "too many, read everything"); the key of kind ``#`` is a random number by which
the version is told from one of the same number in another copy of the file. ``history`` holds, for every
change that can be undone or done again, its persons (ids with blanks between) and the row changes that would
do so, sealed where they carry embeddings."""

MIGRATIONS: dict[int, str] = {}
"""SQL that turns format N into N + 1, run in one transaction at opening."""


def require_schema(connection: sqlite3.Connection) -> None:
    """Refuse any table, view, trigger or index that is not word for word of :data:`SCHEMA`.

    A file from elsewhere could have a view without end in place of a table. Call it before any row is read.

    Raises:
        InputError: What is there, or missing.
    """
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}")
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' LIMIT 100"
    found = {(kind, name): sql for kind, name, sql in connection.execute(query)}
    expected = {
        (kind.lower(), name): statement.strip()
        for statement in SCHEMA.split(";")
        for kind, name in re.findall(r"^CREATE (TABLE|INDEX) (\w+)", statement.strip())
    }
    for kind, name in found.keys() | expected.keys():
        if (kind, name) not in expected:
            raise InputError(f"it has a {str(kind)[:20]} {str(name)[:60]!r}, which no gallery has")
        if found.get((kind, name)) != expected[kind, name]:
            raise InputError(f"its {kind} {name} is not that of a gallery")


KEY_COLUMNS = {
    "sessions": "name",
    "persons": "person_id",
    "aliases": "alias",
    "templates": "template_id",
    "crops": "template_id",
}
"""Tables that edits may touch, with their key."""

COLUMNS = {
    "sessions": ("name", "kind", "time_to_live_s"),
    "persons": ("person_id", "name", "is_stranger", "session", "created", "expires", "last_seen"),
    "aliases": ("alias", "person_id"),
    "templates": (
        "template_id", "person_id", "embedding", "quality", "yaw", "pitch", "roll",
        "provenance", "precision", "created", "is_set_aside",
    ),
    "crops": ("template_id", "sealed"),
}  # fmt: skip
"""All columns of those tables, in the order of the schema."""


Row = tuple[str | int | float | bytes | None, ...]

PROVENANCES = tuple(Provenance)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Templates, without their embeddings, as columns of equal length n.

    Attributes:
        person_ids: Whose each template is.
        template_ids: (n,) int64.
        quality: (n,) float32.
        pose: (n, 3) float32 yaw, pitch, roll in degrees.
        created: (n,) float64 Unix seconds.
        codes: (n, 3) uint8 position in PROVENANCES, position in PRECISIONS, 1 if set aside.
    """

    person_ids: NDArray[np.object_]
    template_ids: IntArray
    quality: FloatArray
    pose: FloatArray
    created: NDArray[np.float64]
    codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.template_ids)

    def rows_of(self, template_ids: IntArray) -> IntArray:
        """Return the rows of those of some ids that are here; the columns must be sorted by id."""
        if len(self) == 0:
            return np.zeros(0, np.int64)
        rows = np.minimum(np.searchsorted(self.template_ids, template_ids), len(self) - 1)
        found: IntArray = rows[self.template_ids[rows] == template_ids]
        return found

    def with_changed(self, touched: IntArray, new: Columns) -> Columns:
        """Return these templates, sorted by id, with the touched ones replaced by those of ``new``."""
        rows = self.rows_of(touched)
        kept = Columns(*(np.delete(column, rows, axis=0) for column in self._all()))
        at = np.searchsorted(kept.template_ids, new.template_ids)
        pairs = zip(kept._all(), new._all(), strict=True)
        return Columns(*(np.insert(column, at, more, axis=0) for column, more in pairs))

    def _all(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


READ_ROWS = 20000
"""Read at a time: a million rows as Python objects would take a gigabyte."""


def read_columns(fetch: Callable[[int], Sequence[Row]], dimension: int) -> tuple[Columns, FloatArray]:
    """Return rows of the table templates (columns in the schema's order), and their (n, D) embeddings.

    Raises:
        InputError: An embedding is not ``dimension`` numbers long.
    """
    parts = [_columns(fetch(0), dimension)]
    while rows := fetch(READ_ROWS):
        parts.append(_columns(rows, dimension))
    columns = zip(*(part[0]._all() for part in parts), strict=True)
    return Columns(*(np.concatenate(column) for column in columns)), np.concatenate([p[1] for p in parts])


def _columns(rows: Sequence[Row], dimension: int) -> tuple[Columns, FloatArray]:
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
    columns = Columns(
        person_ids,
        np.array(ids, np.int64),
        np.array(quality, np.float32),
        np.array([yaw, pitch, roll], np.float32).T.reshape(n, 3),
        np.array(created, np.float64),
        codes,
    )
    return columns, np.frombuffer(b"".join(blobs), "<f4").reshape(n, dimension)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Return (n, D) vectors at unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows read for a reader that follows.

    Attributes:
        version: Of the gallery they belong to.
        is_everything: The rows are the whole gallery; otherwise what was touched since the version asked for.
        persons: Rows of the table persons, in the order in which they were created, then by id.
        aliases: (alias, person_id) of those persons.
        templates: The table templates, ascending id.
        embeddings: (n, D) their embeddings.
        memberships: (person_id, template_id, provenance) of all templates of those persons; empty if the rows
            are everything, for ``templates`` says it then.
        sessions: Rows of the table sessions, always all.
        session: Name of the current session.
        touched_persons: Ids touched; one that is not among ``persons`` is gone.
        touched_templates: Ids touched; one that is not among ``templates`` is gone.
    """

    version: int
    is_everything: bool
    persons: list[Row]
    aliases: list[Row]
    templates: Columns
    embeddings: FloatArray
    memberships: list[Row]
    sessions: list[Row]
    session: str
    touched_persons: frozenset[str] = frozenset()
    touched_templates: frozenset[int] = frozenset()


def _templates(
    connection: sqlite3.Connection, dimension: int, where: str = "", values: tuple[int | str, ...] = ()
) -> tuple[Columns, FloatArray]:
    names = ", ".join(COLUMNS["templates"])
    cursor = connection.execute(f"SELECT {names} FROM templates {where} ORDER BY template_id", values)
    return read_columns(cursor.fetchmany, dimension)


def read_rows(connection: sqlite3.Connection, version: int) -> Rows:
    """Return the rows touched after ``version``, or everything where the log does not reach back.

    Raises:
        InputError: An embedding is of the wrong length.
    """
    execute = connection.execute
    meta = dict(execute("SELECT key, value FROM meta").fetchall())
    now, dimension = int(meta["version"]), int(meta["dimension"])
    persons = f"SELECT {', '.join(COLUMNS['persons'])} FROM persons"
    in_order = "ORDER BY created, person_id"
    memberships = "SELECT person_id, template_id, provenance FROM templates"
    sessions = execute("SELECT name, kind, time_to_live_s FROM sessions").fetchall()
    session = str(meta["session"])
    n_versions = execute(
        "SELECT count(DISTINCT version) FROM changes WHERE version > ?", (version,)
    ).fetchone()[0]
    bulk = execute("SELECT 1 FROM changes WHERE version > ? AND kind = '*'", (version,)).fetchone()
    if version < 0 or bulk or n_versions != now - version:
        templates, embeddings = _templates(connection, dimension)
        return Rows(
            version=now,
            is_everything=True,
            persons=execute(f"{persons} {in_order}").fetchall(),
            aliases=execute("SELECT alias, person_id FROM aliases").fetchall(),
            templates=templates,
            embeddings=embeddings,
            memberships=[],
            sessions=sessions,
            session=session,
        )
    where = "WHERE template_id IN (SELECT key FROM changes WHERE version > ? AND kind = ?)"
    templates, embeddings = _templates(connection, dimension, where, (version, "t"))
    inside = "(SELECT DISTINCT key FROM changes WHERE version > ? AND kind = ?)"
    touched = execute("SELECT DISTINCT kind, key FROM changes WHERE version > ?", (version,)).fetchall()
    return Rows(
        version=now,
        is_everything=False,
        persons=execute(f"{persons} WHERE person_id IN {inside} {in_order}", (version, "p")).fetchall(),
        aliases=execute(
            f"SELECT alias, person_id FROM aliases WHERE person_id IN {inside}", (version, "p")
        ).fetchall(),
        templates=templates,
        embeddings=embeddings,
        memberships=execute(
            f"{memberships} WHERE person_id IN {inside} ORDER BY template_id", (version, "p")
        ).fetchall(),
        sessions=sessions,
        session=session,
        touched_persons=frozenset(str(key) for kind, key in touched if kind == "p"),
        touched_templates=frozenset(int(key) for kind, key in touched if kind == "t"),
    )

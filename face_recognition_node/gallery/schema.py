"""The tables of a gallery file, and its rows as they are read: all, or those changed since a version."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import GalleryUnavailableError, InputError

if TYPE_CHECKING:
    from face_recognition_node.vision.faces import FloatArray, IntArray

PROVENANCES = ("enrolled", "adapted", "imported")  # where a template can come from
PRECISIONS = ("fp32", "fp16", "bf16", "int8")  # arithmetic an embedding can have been computed in

# marks the SQLite file as ours ("FRNG"), so that no other database is taken for a gallery
APPLICATION_ID = 0x46524E47

FORMAT_VERSION = 1

# format 1. `changes` says which rows each version touched, for readers that follow (kind `p`erson,
# `t`emplate; `*` stands for "too many, read everything"); the key of kind `#` is a random number by which the
# version differs from one of the same number in another copy of the file. `history` holds, for every change
# that can be undone or done again, its persons (ids with blanks between) and the row changes that would do
# so, sealed where they carry embeddings
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


def require_gallery(connection: sqlite3.Connection, path: Path | None) -> None:
    """Refuse a file that is no gallery of this format; call it before any row is read.

    A file from elsewhere could have a view without end in place of a table: any table, view, trigger or index
    must be word for word of :data:`SCHEMA`.

    Raises:
        GalleryUnavailableError: What it is instead.
    """
    application, version = format_of(connection)
    if application != APPLICATION_ID:
        n_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        what = "is an SQLite file, but not a gallery" if n_tables else "is empty"
        raise GalleryUnavailableError(f"{path} {what}; check the path (nothing was changed)")
    if version != FORMAT_VERSION:
        raise GalleryUnavailableError(
            f"{path} has format {version}, this program reads format {FORMAT_VERSION}: update the older one"
        )
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
        what = ""
        if (kind, name) not in expected:
            what = f"it has a {str(kind)[:20]} {str(name)[:60]!r}, which a gallery does not have"
        elif found.get((kind, name)) != expected[kind, name]:
            what = f"its {kind} {name} is not that of a gallery"
        if what:
            raise GalleryUnavailableError(f"{path} is not a gallery: {what} (nothing was changed)")


def is_part_of_gallery(path: Path) -> bool:
    """Return whether a file is a gallery, an export, or SQLite's log or the log's index beside one."""
    real = path.resolve()
    files = [real, *(real.with_name(real.name.removesuffix(end)) for end in ("-wal", "-shm", "-journal"))]
    for file in files:
        try:
            with file.open("rb") as stream:
                head = stream.read(72)
        except OSError:
            continue
        if head.startswith(b"SQLite format 3\0") and head[68:] == APPLICATION_ID.to_bytes(4, "big"):
            return True
    return False


def format_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return whose the file is, and in which version of its format; zeros for a new one."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    return application, version


# all columns of the tables that edits may touch, in the order of the schema
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
KEY_COLUMNS = {table: columns[0] for table, columns in COLUMNS.items()}


Row = tuple[str | int | float | bytes | None, ...]


# a template without its embedding, as a row of a :data:`Table`, which is sorted by id
TEMPLATES = np.dtype(
    [
        ("template_id", np.int64),
        ("person_id", object),
        ("created", np.float64),
        ("quality", np.float32),
        ("pose", np.float32, 3),  # yaw, pitch, roll in degrees
        ("provenance", np.uint8),  # position in PROVENANCES
        ("precision", np.uint8),  # position in PRECISIONS
        ("is_set_aside", np.uint8),
    ],
    align=True,
)
Table = NDArray[np.void]


def rows_of(table: Table, template_ids: IntArray) -> IntArray:
    """Return the rows of those of some ids that are in the table."""
    if len(table) == 0:
        return np.zeros(0, np.int64)
    rows = np.minimum(np.searchsorted(table["template_id"], template_ids), len(table) - 1)
    found: IntArray = rows[table["template_id"][rows] == template_ids]
    return found


def with_changed(table: Table, touched: IntArray, new: Table) -> Table:
    """Return a table with the touched templates and those of ``new`` replaced by it."""
    kept = np.delete(table, rows_of(table, np.union1d(touched, new["template_id"])))
    changed: Table = np.insert(kept, np.searchsorted(kept["template_id"], new["template_id"]), new)
    return changed


READ_ROWS = 20000  # read at a time: a million rows as Python objects would take a gigabyte


def read_table(rows: Iterator[Row], dimension: int) -> tuple[Table, FloatArray]:
    """Return rows of the table templates (columns in the schema's order), and their (n, D) embeddings."""
    parts = [_table([], dimension)]
    while part := list(itertools.islice(rows, READ_ROWS)):
        parts.append(_table(part, dimension))
    tables, embeddings = zip(*parts, strict=True)
    return np.concatenate(tables, dtype=TEMPLATES), np.concatenate(embeddings)


def _table(rows: Sequence[Row], dimension: int) -> tuple[Table, FloatArray]:
    for row in rows:
        if len(row[2]) != 4 * dimension:  # type: ignore[arg-type]  # bytes, by the schema
            raise InputError(f"template {row[0]!r}: expected an embedding of {dimension} numbers")
    columns = dict(zip(COLUMNS["templates"], zip(*rows, strict=True) if rows else [()] * 11, strict=True))
    columns["pose"] = tuple(zip(columns["yaw"], columns["pitch"], columns["roll"], strict=True))
    columns["provenance"] = tuple(map(PROVENANCES.index, columns["provenance"]))
    columns["precision"] = tuple(map(PRECISIONS.index, columns["precision"]))
    table = np.empty(len(rows), TEMPLATES)
    for name in (TEMPLATES.names or ()) if rows else ():
        table[name] = columns[name]
    return table, np.frombuffer(b"".join(columns["embedding"]), "<f4").reshape(-1, dimension)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows read for a reader that follows."""

    version: int  # of the gallery they belong to
    # the rows are the whole gallery; otherwise what was touched since the version asked for
    is_everything: bool
    persons: list[Row]  # rows of the table persons, in the order in which they were created, then by id
    aliases: list[Row]  # (alias, person_id) of those persons
    templates: Table  # all templates of those persons, and the touched ones of others; ascending id
    embeddings: FloatArray  # (n, D) their embeddings
    sessions: list[Row]  # rows of the table sessions, always all
    session: str  # name of the current session
    touched_persons: frozenset[str]  # ids touched; one that is not among `persons` is gone
    touched_templates: frozenset[int]  # ids touched; one that is not among `templates` is gone


def read_rows(connection: sqlite3.Connection, version: int) -> Rows:
    """Return the rows touched after ``version`` (-1: all), or all where the log does not reach back."""
    execute = connection.execute
    meta = dict(execute("SELECT key, value FROM meta").fetchall())
    now = int(meta["version"])
    logged = "SELECT count(DISTINCT version), total(kind = '*') FROM changes WHERE version > ?"
    n_versions, n_bulk = execute(logged, (version,)).fetchone()
    is_everything = version < 0 or n_bulk > 0 or n_versions != now - version
    log = "SELECT key FROM changes WHERE version > :version AND kind = '{}'"

    def rows(table: str, touched: str, order: str = "") -> sqlite3.Cursor:
        where = "" if is_everything else f"WHERE {touched}"
        query = f"SELECT {', '.join(COLUMNS[table])} FROM {table} {where} {order}"
        return execute(query, {"version": version})

    def keys(kind: str) -> frozenset[Any]:
        if is_everything:
            return frozenset()
        return frozenset(key for (key,) in execute(log.format(kind), {"version": version}))

    of_persons = f"person_id IN ({log.format('p')})"
    of_either = f"{of_persons} OR template_id IN ({log.format('t')})"
    cursor = rows("templates", of_either, "ORDER BY template_id")
    templates, embeddings = read_table(cursor, int(meta["dimension"]))
    return Rows(
        version=now,
        is_everything=is_everything,
        persons=rows("persons", of_persons, "ORDER BY created, person_id").fetchall(),
        aliases=rows("aliases", of_persons).fetchall(),
        templates=templates,
        embeddings=embeddings,
        sessions=execute(f"SELECT {', '.join(COLUMNS['sessions'])} FROM sessions").fetchall(),
        session=str(meta["session"]),
        touched_persons=keys("p"),
        touched_templates=keys("t"),
    )

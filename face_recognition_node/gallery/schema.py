"""The tables of a gallery file."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from face_recognition_node.common.errors import GalleryUnavailableError

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

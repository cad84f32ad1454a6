"""Read the rows of a gallery file: all, or those changed since a version."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.gallery.schema import COLUMNS, PRECISIONS, PROVENANCES, Row
from face_recognition_node.vision.faces import FloatArray, IntArray

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

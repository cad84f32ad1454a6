"""Read the rows of a gallery file: all, or those changed since a version."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.gallery.schema import COLUMNS, PRECISIONS, PROVENANCES, Row
from face_recognition_node.vision.faces import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Templates, without their embeddings, as columns of equal length n.

    Attributes:
        person_ids: (n,) whose each template is.
        pose: (n, 3) yaw, pitch, roll in degrees.
        created: (n,) Unix seconds.
        codes: (n, 3) position in PROVENANCES, position in PRECISIONS, 1 if set aside.
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
        """Return these templates, sorted by id, with the touched ones and those of ``new`` replaced by it."""
        rows = self.rows_of(np.union1d(touched, new.template_ids))
        kept = Columns(*(np.delete(column, rows, axis=0) for column in self._all()))
        at = np.searchsorted(kept.template_ids, new.template_ids)
        pairs = zip(kept._all(), new._all(), strict=True)
        return Columns(*(np.insert(column, at, more, axis=0) for column, more in pairs))

    def _all(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


READ_ROWS = 20000
"""Read at a time: a million rows as Python objects would take a gigabyte."""


def read_columns(rows: Iterator[Row], dimension: int) -> tuple[Columns, FloatArray]:
    """Return rows of the table templates (columns in the schema's order), and their (n, D) embeddings.

    Raises:
        InputError: An embedding is not ``dimension`` numbers long.
    """
    parts = [_columns([], dimension)]
    while part := list(itertools.islice(rows, READ_ROWS)):
        parts.append(_columns(part, dimension))
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
    codes = np.empty((n, 3), np.uint8)
    codes[:, 0] = [PROVENANCES.index(name) for name in provenance]
    codes[:, 1] = [PRECISIONS.index(name) for name in precision]
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows read for a reader that follows.

    Attributes:
        version: Of the gallery they belong to.
        is_everything: The rows are the whole gallery; otherwise what was touched since the version asked for.
        persons: Rows of the table persons, in the order in which they were created, then by id.
        aliases: (alias, person_id) of those persons.
        templates: All templates of those persons, and the touched ones of others; ascending id.
        embeddings: (n, D) their embeddings.
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
    sessions: list[Row]
    session: str
    touched_persons: frozenset[str]
    touched_templates: frozenset[int]


def read_rows(connection: sqlite3.Connection, version: int) -> Rows:
    """Return the rows touched after ``version`` (-1: all), or everything where the log does not reach back.

    Raises:
        InputError: An embedding is of the wrong length.
    """
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
    templates, embeddings = read_columns(cursor, int(meta["dimension"]))
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

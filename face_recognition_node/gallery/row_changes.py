"""Changes of single rows, which can be applied, inverted and written down: what undo and redo are made of.

Applying a list of changes yields the list that takes them back, so that one mechanism serves every edit,
its undo, and its redo. An inverse holds only what the database no longer holds: the inverse of an insert is
a key, the inverse of a delete is the row.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from face_recognition_node.common.errors import GalleryConflictError
from face_recognition_node.gallery.store_schema import COLUMNS, KEY_COLUMNS

Key = str | int
Cell = str | int | float | bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """One row to insert, update or delete.

    Attributes:
        kind: What to do; the row must be absent for an insert and present otherwise.
        table: One of :data:`KEY_COLUMNS`.
        key: Value of the table's key.
        values: All other columns of an insert, the changed ones of an update, empty for a delete.
    """

    kind: Literal["insert", "update", "delete"]
    table: str
    key: Key
    values: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def is_biometric(self) -> bool:
        """Whether an embedding or a crop is among the values."""
        return self.kind != "delete" and ("embedding" in self.values or "sealed" in self.values)


def apply_changes(connection: sqlite3.Connection, changes: Sequence[Change]) -> list[Change]:
    """Make the changes inside the running transaction and return those that take them back, in their order.

    Raises:
        GalleryConflictError: A row to insert exists, or one to change does not; roll the transaction back.
    """
    inverse: list[Change] = []
    for change in changes:
        inverse.append(_apply(connection, change))
    inverse.reverse()
    return inverse


def _apply(connection: sqlite3.Connection, change: Change) -> Change:
    key_column = KEY_COLUMNS[change.table]
    if change.kind == "insert":
        columns = [key_column, *change.values]
        marks = ", ".join("?" * len(columns))
        try:
            connection.execute(
                f"INSERT INTO {change.table} ({', '.join(columns)}) VALUES ({marks})",
                (change.key, *change.values.values()),
            )
        except sqlite3.IntegrityError as error:
            raise _conflict(change, "is there already") from error
        return Change("delete", change.table, change.key)
    columns = [name for name in COLUMNS[change.table] if name != key_column]
    if change.kind == "update":
        columns = [name for name in columns if name in change.values]
    where = f"WHERE {key_column} = ?"
    row = connection.execute(
        f"SELECT {', '.join(columns)} FROM {change.table} {where}", (change.key,)
    ).fetchone()
    if row is None:
        raise _conflict(change, "is not there any more")
    old = dict(zip(columns, row, strict=True))
    if change.kind == "delete":
        connection.execute(f"DELETE FROM {change.table} {where}", (change.key,))
        return Change("insert", change.table, change.key, old)
    assignments = ", ".join(f"{name} = ?" for name in columns)
    values = [change.values[name] for name in columns]
    connection.execute(f"UPDATE {change.table} SET {assignments} {where}", (*values, change.key))
    return Change("update", change.table, change.key, old)


def _conflict(change: Change, what: str) -> GalleryConflictError:
    return GalleryConflictError(
        f"cannot {change.kind} {change.key!r} in {change.table}: it {what}; the gallery was changed since"
    )


def encode_changes(changes: Iterable[Change]) -> bytes:
    """Return the changes as JSON; bytes become base64."""

    def plain(cell: Cell) -> object:
        return {"base64": base64.b64encode(cell).decode("ascii")} if isinstance(cell, bytes) else cell

    rows = [[c.kind, c.table, c.key, {name: plain(cell) for name, cell in c.values.items()}] for c in changes]
    return json.dumps(rows, separators=(",", ":")).encode()


def decode_changes(payload: bytes) -> list[Change]:
    """Return what :func:`encode_changes` wrote."""

    def cell(value: Any) -> Cell:
        return base64.b64decode(value["base64"]) if isinstance(value, dict) else value

    return [
        Change(kind, table, key, {name: cell(value) for name, value in values.items()})
        for kind, table, key, values in json.loads(payload)
    ]

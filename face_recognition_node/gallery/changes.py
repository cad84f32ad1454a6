"""Changes of single rows, which can be applied, inverted and written down, and the transaction they run in.

Applying a list of changes yields the list that takes them back, so that one mechanism serves every edit,
its undo, and its redo. An inverse holds only what the database no longer holds: the inverse of an insert is
a key, the inverse of a delete is the row.
"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from face_recognition_node.common.errors import GalleryConflictError
from face_recognition_node.gallery.rows import COLUMNS, KEY_COLUMNS

Key = str | int
Cell = str | int | float | bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """One row to insert, update or delete.

    Attributes:
        kind: What to do; the row must be absent for an insert and present otherwise.
        table: One of :data:`KEY_COLUMNS`.
        key: Value of the table's key. Of a session, an insert makes sure that there is one of the name.
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
        inverse += _apply(connection, change)
    inverse.reverse()
    return inverse


def _apply(connection: sqlite3.Connection, change: Change) -> list[Change]:
    key_column = KEY_COLUMNS[change.table]
    if change.kind == "insert":
        columns = [key_column, *change.values]
        marks = ", ".join("?" * len(columns))
        is_session = change.table == "sessions"
        verb = "INSERT OR IGNORE" if is_session else "INSERT"
        try:
            connection.execute(
                f"{verb} INTO {change.table} ({', '.join(columns)}) VALUES ({marks})",
                (change.key, *change.values.values()),
            )
        except sqlite3.IntegrityError as error:
            raise _conflict(change, "is there already") from error
        return [change if is_session else Change("delete", change.table, change.key)]
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
        return [Change("insert", change.table, change.key, old), *_session_of(connection, old)]
    assignments = ", ".join(f"{name} = ?" for name in columns)
    values = [change.values[name] for name in columns]
    connection.execute(f"UPDATE {change.table} SET {assignments} {where}", (*values, change.key))
    return [Change("update", change.table, change.key, old), *_session_of(connection, old)]


def _session_of(connection: sqlite3.Connection, row: Mapping[str, Cell]) -> list[Change]:
    """Return what makes sure that a row's session is there when the row comes back: it may go with others."""
    if "session" not in row:
        return []
    columns = COLUMNS["sessions"]
    query = f"SELECT {', '.join(columns)} FROM sessions WHERE name = ?"
    found = connection.execute(query, (row["session"],)).fetchone()
    values = dict(zip(columns[1:], found[1:], strict=True))
    return [Change("insert", "sessions", found[0], values)]


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


LOGGED_ROWS = 5000
LOGGED_VERSIONS = 2000
"""Versions whose row log is kept for readers that follow."""


class Transaction:
    """A running change."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._touched: set[tuple[str, str | int]] = set()
        self.removed_texts: set[str] = set()
        """Names and ids in row changes that are to leave no trace."""
        self.is_text_lost = False
        """There are more of them, in what can be read no more."""

    def apply(self, changes: Sequence[Change]) -> list[Change]:
        """Make the row changes and return those that take them back."""
        inverse = apply_changes(self.connection, changes)
        for change in changes:
            self._touch(change)
        for change in inverse:
            self._touch(change)
        return inverse

    def _touch(self, change: Change) -> None:
        if change.table == "persons":
            self._touched.add(("p", change.key))
        elif change.table == "templates":
            self._touched.add(("t", change.key))
        if "person_id" in change.values:
            self._touched.add(("p", str(change.values["person_id"])))

    def allocate(self, counter: str, n: int = 1) -> range:
        """Return the next ``n`` numbers of a counter in meta; a number is never given out twice."""
        first = int(self.connection.execute("SELECT value FROM meta WHERE key = ?", (counter,)).fetchone()[0])
        self.set_meta(counter, first + n)
        return range(first, first + n)

    def set_meta(self, key: str, value: str | int) -> None:
        """Change an entry of the table meta."""
        self.connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    def note_removed(self, changes: Iterable[Change]) -> None:
        """Remember the names and ids in row changes that are to leave no trace."""
        for change in changes:
            texts = (change.key, *(change.values.get(column) for column in ("name", "person_id", "session")))
            self.removed_texts.update(text for text in texts if isinstance(text, str) and text)

    def leave_session(self, name: str) -> None:
        """Let go of the current session's name, too, if nobody is left of those who were in it."""
        if self.connection.execute("DELETE FROM meta WHERE key = 'session_emptied'").rowcount:
            self.removed_texts.add(name)

    def erase_texts(self) -> list[str]:
        """Clear the log and the sessions of the removed texts; return those that nobody has any more.

        A session whose people are all gone goes with them. The current one stays, until it is left.
        """
        if not self.removed_texts:
            return []
        execute, texts = self.connection.execute, json.dumps(sorted(self.removed_texts))
        chosen = "(SELECT value FROM json_each(?))"
        (current,) = execute("SELECT value FROM meta WHERE key = 'session'").fetchone()
        empty = f"name IN {chosen} AND name <> '' AND name NOT IN (SELECT session FROM persons)"
        execute(f"DELETE FROM sessions WHERE {empty} AND name <> ?", (texts, current))
        if execute(f"SELECT 1 FROM sessions WHERE {empty}", (texts,)).fetchone():
            execute("INSERT OR REPLACE INTO meta VALUES ('session_emptied', 1)")
        present = {key for (keys,) in execute("SELECT persons FROM history") for key in keys.split()}
        for table, column in (
            ("persons", "person_id"), ("persons", "name"), ("aliases", "alias"), ("sessions", "name"),
        ):  # fmt: skip
            query = f"SELECT {column} FROM {table} WHERE {column} IN {chosen}"
            present.update(text for (text,) in execute(query, (texts,)))
        gone = sorted(self.removed_texts - present)
        # Who follows learns of it from the templates, which are gone as well.
        execute(f"DELETE FROM changes WHERE kind = 'p' AND key IN {chosen}", (json.dumps(gone),))
        self._touched -= {("p", text) for text in gone}
        return gone

    def bump_version(self, is_everything: bool = False) -> int:
        """Give the change its version and log what it touched, or that it touched everything."""
        (version,) = self.allocate("version")
        version += 1
        touched: set[tuple[str, str | int]] = self._touched
        if is_everything or len(touched) > LOGGED_ROWS:
            touched = {("*", "")}
        rows = [(version, kind, key) for kind, key in (*touched, ("#", secrets.randbits(62)))]
        self.connection.executemany("INSERT INTO changes VALUES (?, ?, ?)", rows)
        self.connection.execute("DELETE FROM changes WHERE version <= ?", (version - LOGGED_VERSIONS,))
        return version

"""Changes of single rows, which can be made, taken back and written down, and the transaction they run in.

A transaction notes of each change what would take it back, so that one mechanism serves every edit, its
undo, and its redo. An inverse holds only what the database no longer holds: the inverse of an insert is a
key, the inverse of a delete is the row.
"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from face_recognition_node.common.errors import GalleryConflictError
from face_recognition_node.gallery.schema import COLUMNS, KEY_COLUMNS

if TYPE_CHECKING:
    from face_recognition_node.config import GalleryConfig
    from face_recognition_node.gallery.files import CropSafe
    from face_recognition_node.gallery.snapshot import Snapshot

Key = str | int
Cell = str | int | float | bytes | None
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Change:
    """One row to insert, update or delete."""

    # what to do; the row must be absent for an insert and present otherwise
    kind: Literal["insert", "update", "delete"]
    table: str  # one of :data:`KEY_COLUMNS`
    key: Key  # value of the table's key. Of a session, an insert makes sure that there is one of the name
    # all other columns of an insert, the changed ones of an update, empty for a delete
    values: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def is_biometric(self) -> bool:
        """Whether an embedding or a crop is among the values."""
        return self.kind != "delete" and ("embedding" in self.values or "sealed" in self.values)


LOGGED_ROWS = 5000
LOGGED_VERSIONS = 2000  # versions whose row log is kept for readers that follow


class Transaction:
    """A running change: it makes changes of rows and notes what was touched and what takes them back."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.execute = connection, connection.execute
        self._back: list[Change] = []
        self._touched: set[tuple[str, str | int]] = set()
        self.removed_texts: set[str] = set()  # names and ids in row changes that are to leave no trace
        self.is_text_lost = False  # there are more of them, in what can be read no more

    @property
    def inverse(self) -> list[Change]:
        """What takes back all that was done, in the order to do it."""
        return self._back[::-1]

    def removed_embeddings(self) -> list[bytes]:
        """Return the embeddings of the rows that are gone."""
        values = (change.values.get("embedding") for change in self._back if change.kind == "insert")
        return [value for value in values if isinstance(value, bytes)]

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """Make changes and return those that take them back, in order; GalleryConflictError: roll back."""
        start = len(self._back)
        for change in changes:
            if change.kind == "insert":
                self.insert(change.table, change.key, change.values)
            elif change.kind == "update":
                self.update(change.table, change.key, change.values)
            else:
                self.delete(change.table, change.key)
        return self._back[start:][::-1]

    def insert(self, table: str, key: Key, values: Mapping[str, Cell]) -> None:
        """Add a row, which must not be there; of a session it is enough that it is."""
        columns, marks = ", ".join([KEY_COLUMNS[table], *values]), ", ".join("?" * (1 + len(values)))
        is_session = table == "sessions"
        verb = "INSERT OR IGNORE" if is_session else "INSERT"
        try:
            self.execute(f"{verb} INTO {table} ({columns}) VALUES ({marks})", (key, *values.values()))
        except sqlite3.IntegrityError as error:
            raise _conflict("insert", table, key, "is there already") from error
        back = Change("insert", table, key, values) if is_session else Change("delete", table, key)
        self._note(table, key, values, back)

    def update(self, table: str, key: Key, values: Mapping[str, Cell]) -> None:
        """Change some columns of a row, which must be there."""
        columns = [name for name in COLUMNS[table] if name in values]
        old = self._row("update", table, key, columns)
        assignments = ", ".join(f"{name} = ?" for name in columns)
        query = f"UPDATE {table} SET {assignments} WHERE {KEY_COLUMNS[table]} = ?"
        self.execute(query, (*(values[name] for name in columns), key))
        self._note(table, key, values, Change("update", table, key, old))

    def delete(self, table: str, key: Key) -> None:
        """Remove a row, which must be there."""
        old = self._row("delete", table, key, COLUMNS[table][1:])
        self.execute(f"DELETE FROM {table} WHERE {KEY_COLUMNS[table]} = ?", (key,))
        self._note(table, key, {}, Change("insert", table, key, old))

    def _row(self, verb: str, table: str, key: Key, columns: Sequence[str]) -> dict[str, Cell]:
        """Return what some columns of a row hold."""
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE {KEY_COLUMNS[table]} = ?"
        row = self.execute(query, (key,)).fetchone()
        if row is None:
            raise _conflict(verb, table, key, "no longer exists")
        return dict(zip(columns, row, strict=True))

    def _note(self, table: str, key: Key, values: Mapping[str, Cell], back: Change) -> None:
        """Note that a row was touched, and what takes that back."""
        self._back.append(back)
        if table in ("persons", "templates"):
            self._touched.add((table[0], key))  # "p" or "t", as the log says
        for cells in (values, back.values):
            if "person_id" in cells:
                self._touched.add(("p", str(cells["person_id"])))
        if "session" in back.values:
            # The row's session may go with others: it must be there again when the row comes back.
            name = str(back.values["session"])
            session = self._row("update", "sessions", name, COLUMNS["sessions"][1:])
            self._back.append(Change("insert", "sessions", name, session))

    def delete_template(self, template_id: int) -> None:
        """Remove a template and its crop, where one is kept."""
        if self.has("crops", template_id):
            self.delete("crops", template_id)
        self.delete("templates", template_id)

    def has(self, table: str, key: Key) -> bool:
        """Return whether there is a row of this key."""
        query = f"SELECT 1 FROM {table} WHERE {KEY_COLUMNS[table]} = ?"
        return self.execute(query, (key,)).fetchone() is not None

    def allocate(self, counter: str, n: int = 1) -> range:
        """Return the next ``n`` numbers of a counter in meta; a number is never given out twice."""
        first = int(self.execute("SELECT value FROM meta WHERE key = ?", (counter,)).fetchone()[0])
        self.set_meta(counter, first + n)
        return range(first, first + n)

    def set_meta(self, key: str, value: str | int) -> None:
        """Change an entry of the table meta."""
        self.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    def note_removed(self, changes: Iterable[Change]) -> None:
        """Remember the names and ids in row changes that are to leave no trace."""
        for change in changes:
            texts = (change.key, *(change.values.get(column) for column in ("name", "person_id", "session")))
            self.removed_texts.update(text for text in texts if isinstance(text, str) and text)

    def leave_session(self, name: str) -> None:
        """Let go of the current session's name, too, if nobody is left of those who were in it."""
        if self.execute("DELETE FROM meta WHERE key = 'session_emptied'").rowcount:
            self.removed_texts.add(name)

    def erase_texts(self) -> list[str]:
        """Clear the log and the sessions of the removed texts; return those that nobody has any more.

        A session whose people are all gone goes with them. The current one stays, until it is left.
        """
        if not self.removed_texts:
            return []
        execute, texts = self.execute, json.dumps(sorted(self.removed_texts))
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
        self.execute("DELETE FROM changes WHERE version <= ?", (version - LOGGED_VERSIONS,))
        return version


@dataclass(frozen=True, slots=True)
class Context:
    """What a change is made on."""

    snapshot: Snapshot  # who is known
    rows: Transaction  # the transaction, which changes rows and gives out numbers
    config: GalleryConfig  # parameters
    now: float  # Unix seconds
    crops: CropSafe  # seals what is kept of a new template's crop


@dataclass(frozen=True, slots=True)
class Edit(Generic[Answer]):
    """What an operation did."""

    answer: Answer  # what the caller asked for, ids in place of persons
    sentence: str  # what it did, for people
    persons: tuple[str, ...]  # ids it touched
    is_recorded: bool = True  # it can be undone
    is_final: bool = False  # nothing is kept to undo it, nor earlier changes of the same persons


def _conflict(verb: str, table: str, key: Key, what: str) -> GalleryConflictError:
    return GalleryConflictError(f"cannot {verb} {key!r} in {table}: it {what}; the gallery was changed since")


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

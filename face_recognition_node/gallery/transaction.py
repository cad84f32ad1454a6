"""One running change of the store: its row changes, its numbers, its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from face_recognition_node.gallery.row_changes import Change, apply_changes

LOGGED_ROWS = 5000
LOGGED_VERSIONS = 2000
"""Versions whose row log is kept for readers that follow."""


class Transaction:
    """A running change."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._touched: set[tuple[str, str | int]] = set()

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

    def bump_version(self, is_everything: bool = False) -> int:
        """Give the change its version and log what it touched, or that it touched everything."""
        (version,) = self.allocate("version")
        version += 1
        rows = [(version, kind, key) for kind, key in self._touched]
        if is_everything or not rows or len(rows) > LOGGED_ROWS:
            rows = [(version, "*" if is_everything or rows else "-", "")]
        self.connection.executemany("INSERT INTO changes VALUES (?, ?, ?)", rows)
        self.connection.execute("DELETE FROM changes WHERE version <= ?", (version - LOGGED_VERSIONS,))
        return version

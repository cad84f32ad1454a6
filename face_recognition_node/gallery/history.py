"""Undo and redo of every change, across restarts and processes.

Each entry keeps the row changes that would take it back (or, once undone, do it again). Entries whose row
changes carry embeddings or crops are sealed with a key of their own outside the gallery's folder and end
with the undo window; so do the older entries that cannot be undone without them.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from face_recognition_node.common.errors import GalleryConflictError, GalleryUnavailableError, InputError
from face_recognition_node.gallery.changes import (
    Change,
    Context,
    Edit,
    Transaction,
    decode_changes,
    encode_changes,
)
from face_recognition_node.gallery.retention import revive
from face_recognition_node.gallery.values import Provenance

if TYPE_CHECKING:
    from face_recognition_node.config import GalleryConfig
    from face_recognition_node.gallery.files import KeyRing

LOGGER = logging.getLogger(__name__)

ROWS_PER_PART = 20000
LONGEST_WINDOW_S = 86400.0  # no undo window is longer (see GalleryConfig)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change that can be undone or done again."""

    entry_id: int  # its place in the order of the changes
    made: float  # Unix seconds
    sentence: str  # what it did, for people
    is_done: bool  # it can be undone; otherwise it can be done again
    persons: frozenset[str]  # ids of those it touched
    seal: str | None  # name of the key that opens it, or None where it is not sealed
    deadline: float | None  # when it ends, Unix seconds, or None


class History:
    """The changes of one gallery that can be undone or done again; ``config`` may be replaced in between."""

    def __init__(
        self, connection: sqlite3.Connection, gallery_id: str, keys: KeyRing, config: GalleryConfig
    ) -> None:
        self._execute = connection.execute
        self._gallery_id = gallery_id
        self._keys = keys
        self.config = config
        self._doomed_keys: list[str] = []
        self._left_keys: list[str] = []
        self._new_keys: list[str] = []
        # when the next entry ends, Unix seconds, as of the latest :meth:`note_deadline`
        self.next_deadline = math.inf

    def entries(self) -> list[HistoryEntry]:
        """Return all entries, oldest first."""
        rows = self._execute(
            "SELECT entry_id, made, sentence, is_done, persons, seal, deadline FROM history ORDER BY entry_id"
        )
        return [
            HistoryEntry(entry_id, made, sentence, bool(is_done), frozenset(persons.split()), seal, deadline)
            for entry_id, made, sentence, is_done, persons, seal, deadline in rows
        ]

    def record(
        self,
        transaction: Transaction,
        sentence: str,
        persons: Iterable[str],
        inverse: Sequence[Change],
        now: float,
    ) -> None:
        """Add a change that was just made; what had been undone before can no longer be done again."""
        entries = self.entries()
        done = [entry for entry in entries if entry.is_done]
        self._drop(transaction, [entry for entry in entries if not entry.is_done])
        self._drop(transaction, done[: max(0, len(done) + 1 - self.config.history_length)])
        carries = any(change.is_biometric for change in inverse)
        if self.config.history_length == 0 or (carries and self.config.undo_window_s == 0):
            self.forget(transaction, persons)
            return
        cursor = self._execute(
            "INSERT INTO history (made, sentence, is_done, persons) VALUES (?, ?, 1, ?)",
            (now, sentence, " ".join(sorted(persons))),
        )
        self._write(int(cursor.lastrowid or 0), inverse, now)

    def step(self, at: Context, steps: int, is_redo: bool) -> Edit[tuple[str, ...]]:
        """Undo the latest changes, or redo what was undone last; all or none (GalleryConflictError)."""
        if steps < 1:
            raise InputError(f"steps: expected at least 1, got {steps}")
        n_able = sum(entry.is_done != is_redo for entry in self.entries())
        if 0 < n_able < steps:
            done = "redone" if is_redo else "undone"
            raise GalleryConflictError(f"only {n_able} changes can be {done}, {steps} were asked for")
        sentences = []
        for _ in range(steps):
            entry = self._step(at.rows, is_redo, at.now)
            sentences.append(entry.sentence)
            revive(at, entry.persons)
        return Edit(tuple(sentences), "", (), is_recorded=False)

    def _step(self, transaction: Transaction, redo: bool, now: float) -> HistoryEntry:
        fitting = [entry for entry in self.entries() if entry.is_done != redo]
        if not fitting:
            what = "there is nothing to redo" if redo else "there is nothing to undo"
            window_s = self.config.undo_window_s
            raise GalleryConflictError(f"{what} (removed faces can be brought back for {window_s:g} s)")
        entry = fitting[0] if redo else fitting[-1]
        changes = _past_learning(transaction, self._read(entry))
        inverse = transaction.apply(changes)
        _require_templates(transaction, entry)
        self._erase_parts(entry)
        if any(change.is_biometric for change in inverse) and self.config.undo_window_s == 0:
            self._drop(transaction, [entry])
        else:
            self._execute("UPDATE history SET is_done = ? WHERE entry_id = ?", (int(redo), entry.entry_id))
            self._write(entry.entry_id, inverse, now)
        return entry

    def forget(self, transaction: Transaction, persons: Iterable[str]) -> None:
        """Drop all that is remembered of these persons, and what cannot be undone without it."""
        self._drop(transaction, _with_dependants(self.entries(), set(persons)))

    def expire(self, transaction: Transaction, now: float) -> list[HistoryEntry]:
        """Drop the entries whose time is over, and the older ones that depend on them."""
        ended = ended_by(self.entries(), now)
        self._drop(transaction, ended)
        return ended

    def note_deadline(self) -> None:
        """Find out when the next entry ends."""
        (deadline,) = self._execute("SELECT min(deadline) FROM history").fetchone()
        self.next_deadline = math.inf if deadline is None else deadline

    def destroy_keys(self) -> None:
        """Destroy the keys of dropped entries; call it when the transaction that dropped them is durable.

        What cannot be destroyed (a full disk, a folder that may not be written) is tried again next time.
        """
        self._new_keys.clear()
        names, self._doomed_keys, self._left_keys = [*self._left_keys, *self._doomed_keys], [], []
        for name in names:
            try:
                self._keys.destroy(name)
            except OSError as error:
                LOGGER.warning("the key %s could not be destroyed (%s); it will be tried again", name, error)
                self._left_keys.append(name)

    def abandon_keys(self) -> None:
        """Keep the keys of dropped entries, and destroy new ones: the transaction was rolled back."""
        self._doomed_keys = list(self._new_keys)
        self.destroy_keys()

    def destroy_orphans(self) -> None:
        """Destroy keys of entries that are not there: left by a crash between the two files.

        Only old ones, for a copy of the gallery has the same keys and may have other entries.
        """
        used = {entry.seal for entry in self.entries()}
        for name in self._keys.names(older_than_s=LONGEST_WINDOW_S):
            if name.startswith("undo-") and name not in used:
                self._doomed_keys.append(name)
        self.destroy_keys()
        self.note_deadline()

    def _write(self, entry_id: int, changes: Sequence[Change], now: float) -> None:
        seal = deadline = None
        if any(change.is_biometric for change in changes):
            seal = self._keys.create(prefix="undo-")
            self._new_keys.append(seal)
            deadline = now + self.config.undo_window_s
        self._execute(
            "UPDATE history SET seal = ?, deadline = ? WHERE entry_id = ?", (seal, deadline, entry_id)
        )
        for part in range(0, len(changes), ROWS_PER_PART):
            payload = encode_changes(changes[part : part + ROWS_PER_PART])
            if seal is not None:
                payload = self._keys.seal(seal, payload, self._purpose(entry_id, part))
            self._execute("INSERT INTO history_parts VALUES (?, ?, ?)", (entry_id, part, payload))

    def _read(self, entry: HistoryEntry) -> list[Change]:
        changes: list[Change] = []
        for part, payload in self._execute(
            "SELECT part, payload FROM history_parts WHERE entry_id = ? ORDER BY part", (entry.entry_id,)
        ):
            if entry.seal is not None:
                payload = self._keys.unseal(entry.seal, payload, self._purpose(entry.entry_id, part))
            changes += decode_changes(payload)
        return changes

    def _purpose(self, entry_id: int, part: int) -> str:
        return f"history {self._gallery_id} {entry_id} {part}"

    def _erase_parts(self, entry: HistoryEntry) -> None:
        self._execute("DELETE FROM history_parts WHERE entry_id = ?", (entry.entry_id,))
        if entry.seal is not None:
            self._doomed_keys.append(entry.seal)

    def _drop(self, transaction: Transaction, entries: Sequence[HistoryEntry]) -> None:
        for entry in entries:
            try:
                transaction.note_removed(self._read(entry))
            except GalleryUnavailableError:
                transaction.is_text_lost = True
                LOGGER.debug("change %d is dropped unread: its key is gone", entry.entry_id)
            self._erase_parts(entry)
            self._execute("DELETE FROM history WHERE entry_id = ?", (entry.entry_id,))


def ended_by(entries: Sequence[HistoryEntry], now: float) -> list[HistoryEntry]:
    """Return the entries whose time is over, and those that depend on them."""
    left, ended = list(entries), []
    while late := [entry for entry in left if entry.deadline is not None and entry.deadline <= now]:
        last = late[-1]
        before = [entry for entry in left if entry.is_done and entry.entry_id < last.entry_id]
        gone = [last, *(_with_dependants(before, set(last.persons)) if last.is_done else ())]
        if not last.is_done:  # later changes were built on it: they cannot be done again without it
            gone += [entry for entry in left if not entry.is_done and entry.entry_id > last.entry_id]
        left = [entry for entry in left if entry not in gone]
        ended += gone
    return ended


def _past_learning(transaction: Transaction, changes: Sequence[Change]) -> list[Change]:
    """Return the changes of a step as the templates that the node learned and replaced since let them be."""
    ids = {change.key for change in changes if change.table == "templates" and change.kind != "insert"}
    gone = {key for key in ids if not transaction.has("templates", key)}
    kept = [
        c for c in changes if not (c.table in ("templates", "crops") and c.kind != "insert" and c.key in gone)
    ]
    learned: list[Change] = []
    for change in kept:
        if change.table == "persons" and change.kind == "delete":
            query = "SELECT template_id FROM templates WHERE person_id = ? AND provenance = ?"
            owned = transaction.execute(query, (change.key, Provenance.ADAPTED.value))
            for (key,) in owned.fetchall():
                if key not in ids:
                    tables = ("crops", "templates") if transaction.has("crops", key) else ("templates",)
                    learned += [Change("delete", table, key) for table in tables]
    return [*learned, *kept]


def _require_templates(transaction: Transaction, entry: HistoryEntry) -> None:
    """Raise GalleryConflictError if a step leaves a person without templates."""
    for person_id in entry.persons:
        query = (
            "SELECT 1 FROM persons WHERE person_id = ? "
            "AND person_id NOT IN (SELECT person_id FROM templates WHERE person_id = ?)"
        )
        if transaction.execute(query, (person_id, person_id)).fetchone() is not None:
            raise GalleryConflictError(
                f"{entry.sentence!r} would leave {person_id} without templates; the gallery was changed since"
            )


def _with_dependants(entries: Sequence[HistoryEntry], persons: set[str]) -> list[HistoryEntry]:
    """Return the entries that touch ``persons``, and the older ones that touch whom those touched."""
    doomed = []
    tainted = set(persons)
    for entry in reversed(entries):
        if entry.persons & tainted:
            doomed.append(entry)
            tainted |= entry.persons
    return doomed

"""Removed bytes leave the files of a gallery: at once, or as soon as nothing stands in the way.

The write-ahead log is folded into the database and cut to nothing. ``secure_delete`` has zeroed the removed
cells, but SQLite may have left an older copy of a cell in the slack of a page it had moved: where a trace of
what was removed is found, at whatever position, the database is rewritten.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.gallery.files import journal_paths
from face_recognition_node.gallery.store import IMPATIENT_SECONDS, Store

LOGGER = logging.getLogger(__name__)
# how long to wait for another process that reads the file, and when to try again if that was in vain
SCRUB_SECONDS, SCRUB_AGAIN_S = 2.0, 10.0
PIECE_BYTES = 8  # of an embedding, at five places, are looked for: any third of it holds one of them
CHUNK_BYTES = 2**24
MOST_REMOVED = 50  # to rewrite a file is quicker than to look for more than so much


class Erasure:
    """Clears the files of one gallery; a note in it says, also after a crash, that there is work left."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen_note, self._try_again_at = 0, 0.0
        self._is_mine = False

    def pending(self) -> int:
        """Return the latest note that removed bytes may still be in the files; 0: there is none."""
        return int(self._store.setting("residue") or 0)

    def note(self) -> int:
        """Note for every process that removed bytes may be left; call it in the transaction that removes."""
        note = secrets.randbelow(2**62) + 1
        self._store.connection.execute("INSERT OR REPLACE INTO meta VALUES ('residue', ?)", (note,))
        return note

    def tidy(self) -> None:
        """Clear what is left to do, here or by another process; who is at it has until the second look."""
        note = self.pending()
        is_due = self._is_mine or (note > 0 and note == self._seen_note)
        self._seen_note = note
        if not note:  # another process has done it
            self._is_mine = False
            self._store.troubles.note("scrub", "")
        elif is_due and time.monotonic() >= self._try_again_at and not self.scrub(note):
            self._try_again_at = time.monotonic() + SCRUB_AGAIN_S

    def scrub(self, note: int, removed: Sequence[bytes | str] = (), must_rewrite: bool = True) -> bool:
        """Clear the files of removed embeddings, names and ids; return whether it is done, or left for later.

        The ``note`` is taken away when all is done, unless another process has made one since. There may be
        more to remove where it ``must_rewrite``.
        """
        reason = self._clear(removed, must_rewrite)
        self._is_mine = bool(reason)
        if not reason:
            try:
                query = "DELETE FROM meta WHERE key = 'residue' AND value = ?"
                self._store.connection.execute(query, (note,))
            except sqlite3.OperationalError as error:  # nothing is lost: the files are cleared once more
                LOGGER.warning("%s: a note could not be removed (%s)", self._store.path, error)
        sentence = (
            f"{self._store.path}: the removal is in effect, but its bytes could not be cleared from the file "
            f"or its log yet ({reason}); this is retried automatically"
        )
        self._store.troubles.note("scrub", sentence if reason else "")
        return not reason

    def _clear(self, removed: Sequence[bytes | str], must_rewrite: bool) -> str:
        """Do it; return why it could not be done, in words, or ``""``."""
        path = self._store.path
        if path is None:
            return ""
        try:
            self._store.require_same_file()
            self._truncate_log()
            files = path, journal_paths(path)[0]
            if must_rewrite or len(removed) > MOST_REMOVED or has_residue(files, removed):
                self._store.connection.execute("VACUUM")
                self._truncate_log()
        except (GalleryUnavailableError, sqlite3.Error, OSError) as error:
            return str(error)
        return ""

    def _truncate_log(self) -> None:
        """Fold the write-ahead log into the database, or raise sqlite3.OperationalError."""
        execute = self._store.connection.execute
        execute(f"PRAGMA busy_timeout = {int(1000 * SCRUB_SECONDS)}")
        try:
            if execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise sqlite3.OperationalError("another process is reading it")
        finally:
            execute(f"PRAGMA busy_timeout = {int(1000 * IMPATIENT_SECONDS)}")


def has_residue(paths: Iterable[Path], removed: Sequence[bytes | str]) -> bool:
    """Return whether any file holds a piece of removed bytes, or a removed text, at whatever position."""
    pieces = {piece for item in removed for piece in _pieces(item)}
    return any(_file_has(path, pieces) for path in paths if path.exists())


def _pieces(item: bytes | str) -> Iterator[bytes]:
    """Yield the bytes to look for, of which a copy may be cut at either side, in all forms of a text."""
    if isinstance(item, bytes):
        last = len(item) - PIECE_BYTES
        pieces = (item[place : place + PIECE_BYTES] for place in range(0, last + 1, max(1, last // 4)))
        # Zeros are everywhere in a file, and no trace of anybody.
        yield from (piece for piece in pieces if piece.count(0) <= 2)
        return
    for form in filter(None, {item.encode(), json.dumps(item)[1:-1].encode()}):
        yield form
        if len(form) >= 12 and not item.startswith("stranger-"):  # half of which is everywhere
            yield form[: len(form) // 2]
            yield form[len(form) // 2 :]


def _file_has(path: Path, pieces: Collection[bytes]) -> bool:
    before = b""
    with path.open("rb") as file:
        while pieces and (chunk := file.read(CHUNK_BYTES)):
            content = before + chunk
            if any(piece in content for piece in pieces):
                return True
            before = content[-max(map(len, pieces)) :]
    return False

"""The gallery's truth: one SQLite file, every change durable before it returns.

Write-ahead log, ``synchronous=FULL`` (one fsync per change), ``secure_delete`` (removed bytes are zeroed).
Several processes may open the same file: SQLite lets one write at a time, and each finds out from the
``changes`` table what the others did.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from face_recognition_node.common.errors import (
    GalleryConflictError,
    GalleryMismatchError,
    GalleryUnavailableError,
)
from face_recognition_node.gallery.changes import Transaction
from face_recognition_node.gallery.files import journal_paths, make_private_file, make_private_folder
from face_recognition_node.gallery.schema import (
    APPLICATION_ID,
    FORMAT_VERSION,
    SCHEMA,
    Rows,
    format_of,
    read_rows,
    require_gallery,
)

LOGGER = logging.getLogger(__name__)
# how long a change waits for another process that writes, and how long the next ones if that was in vain
BUSY_SECONDS, IMPATIENT_SECONDS = 2.0, 0.1
# how often, and how far apart, a file whose content seems to be another's is looked at
LOOKS, LOOK_SECONDS = 5, 0.02
_CURE = (
    "open it again (restart the node, or clean it up and configure it). To bring people back while a node "
    "runs, import a backup: face-recognition gallery import"
)
# what is wrong with the disk is believed for so long, or until the next change is stored
WRITE_TROUBLE_S = 60.0
QUICK_CHECK_BYTES = 64 * 1024 * 1024  # files up to this size are checked page by page when opened


class Troubles:
    """What is wrong with a gallery's file at present, for diagnostics; logged when it begins and ends."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._sentences: dict[str, str] = {}

    def in_words(self, kind: str = "") -> str:
        """Return what is wrong, of one kind or of all, in words, or empty."""
        if kind:
            return self._sentences.get(kind, "")
        return "; ".join(dict.fromkeys(self._sentences.values()))

    def note(self, kind: str, sentence: str) -> None:
        """Remember what is wrong (``read``, ``write``, ``scrub``); an empty sentence: nothing is any more."""
        if sentence and sentence not in self._sentences.values():
            LOGGER.warning("%s", sentence)
        before = self._sentences.pop(kind, "")
        if sentence:
            self._sentences[kind] = sentence
        elif before and not self._sentences:
            LOGGER.info("the gallery %s can be used again", self._path)


class Store:
    """An open gallery file; one thread at a time. Arguments and errors are those of ``Gallery.open``."""

    def __init__(
        self,
        path: Path | None,
        fingerprint: str | None,
        dimension: int,
        must_exist: bool = False,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self.troubles = Troubles(path)
        if path is not None:
            if not path.exists() and (must_exist or fingerprint is None):
                raise GalleryUnavailableError(
                    f"there is no gallery at {path}; enroll somebody first, or check the path"
                )
            make_private_folder(path.parent)
            _refuse_other_files(path)
            make_private_file(path)
        try:
            self.connection = sqlite3.connect(
                ":memory:" if path is None else path,
                timeout=IMPATIENT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self.closing = threading.Event()
            self._patience_s = BUSY_SECONDS
            self._write_trouble_ends = 0.0
            self._lost = self._gallery_id = ""
            self._status: tuple[int, ...] | None = None
            self._marks: dict[int, int] = {}
            self._version = self._version_in_file = -1
            try:
                self._prepare()
                self._create_or_check(fingerprint, dimension)
                self._check_pages()
                self.check_fingerprint(fingerprint, dimension)
                self._gallery_id = str(self.meta("gallery_id"))
                self._status = _status(path)
                self._learn_marks()
                self._is_in_file()
                if read_only:
                    self.connection.execute("PRAGMA query_only = ON")
            except BaseException:
                self.connection.close()
                raise
        except sqlite3.OperationalError as error:
            raise GalleryUnavailableError(f"the gallery {path} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise _damaged(path, str(error)) from error

    def _prepare(self) -> None:
        execute = self.connection.execute
        mode = execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if self.path is not None and mode != "wal":
            raise GalleryUnavailableError(
                f"the file system of {self.path} does not support SQLite's write-ahead log (got {mode!r}); "
                "put the gallery on a local disk"
            )
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA secure_delete = ON")
        execute("PRAGMA foreign_keys = ON")
        execute("PRAGMA temp_store = MEMORY")
        execute("PRAGMA journal_size_limit = 0")
        # The file itself is kept up to date: what is in the log alone can be lost with it.
        execute("PRAGMA wal_autocheckpoint = 1")

    def _check_pages(self) -> None:
        if self.path is not None and self.path.stat().st_size <= QUICK_CHECK_BYTES:
            answer = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if answer != "ok":
                raise _damaged(self.path, answer)

    def _create_or_check(self, fingerprint: str | None, dimension: int) -> None:
        """Make the tables of a new file, or refuse one that is no gallery of this format."""
        if fingerprint is not None and not format_of(self.connection)[0]:
            with self.transaction():  # look again: another process may be creating it at the same time
                if not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    self._create(fingerprint, dimension)
        require_gallery(self.connection, self.path)

    def _create(self, fingerprint: str, dimension: int) -> None:
        for statement in SCHEMA.split(";"):
            self.connection.execute(statement)
        meta = {
            "gallery_id": secrets.token_hex(8),
            "fingerprint": fingerprint,
            "dimension": dimension,
            "version": 0,
            "next_template": 1,
            "next_stranger": 1,
            "session": "",
        }
        self.connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        self.connection.execute("INSERT INTO sessions VALUES ('', 'permanent', NULL)")
        self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def check_fingerprint(self, fingerprint: str | None, dimension: int) -> None:
        """Raise GalleryMismatchError unless the file's embeddings come from this model and alignment."""
        found = self.meta("fingerprint")
        if fingerprint is not None and found != fingerprint:
            raise GalleryMismatchError(
                f"{self.path}: expected embeddings of model and alignment {fingerprint}, the gallery holds "
                f"those of {found}. They must not be compared. If crops were kept (gallery.keep_crops), run: "
                "face-recognition gallery reembed --gallery FILE; otherwise enroll again into another "
                "gallery, or use the model it was made with"
            )
        if fingerprint is not None and self.meta("dimension") != dimension:
            raise GalleryMismatchError(
                f"{self.path}: expected embeddings of {dimension} numbers, the gallery holds those of "
                f"{self.meta('dimension')}"
            )

    def require_same_file(self) -> None:
        """Raise GalleryUnavailableError if another file or content, or none, lies where the open one was."""
        self.require_usable()
        status = _status(self.path)
        if status == self._status or not self._gallery_id:
            return
        if status is None or self._status is None or status[:2] != self._status[:2]:
            raise GalleryUnavailableError(
                f"{self.path} was removed or replaced while it was open: what is stored now would be lost. "
                f"Export it first if its people are to be kept, then {_CURE}"
            )
        self._require_same_content()
        self._status = status

    def require_usable(self) -> None:
        """Raise GalleryUnavailableError if the content was found to be another's."""
        if self._lost:
            raise GalleryUnavailableError(self._lost)

    def _require_same_content(self) -> None:
        """Look past SQLite's cache into the file: it must hold a version of this gallery, and no older one.

        Another process may be bringing the file up to date at this moment: only what stays wrong is wrong.
        """
        for _ in range(LOOKS):
            if not self.connection.in_transaction:  # which has learned them, and may be rolled back
                self._learn_marks()
            if self._is_in_file():
                return
            time.sleep(LOOK_SECONDS)
        self._raise_lost()

    def _is_in_file(self) -> bool:
        found = None if self.path is None else _content(self.path)
        if found is None:
            return False
        gallery_id, version, mark = found
        is_known = mark is None or self._marks.get(version, mark) == mark
        is_ours = gallery_id in (self._gallery_id, "") and is_known
        if not is_ours or not self._version_in_file <= version <= self._version:
            return False
        self._version_in_file = version
        return True

    def _learn_marks(self) -> None:
        """Read the marks of the versions that came since; the last one known must still be there."""
        execute, known = self.connection.execute, self._version
        with self._translated():
            version = int(execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0])
            query = "SELECT version, key FROM changes WHERE kind = '#' AND version >= ?"
            marks = dict(execute(query, (known,)).fetchall())
            (first,) = execute("SELECT min(version) FROM changes").fetchone()
        is_logged = first is not None and first <= known and known in self._marks
        if version < known or (is_logged and marks.get(known) != self._marks[known]):
            self._raise_lost()
        self._version = version
        self._marks = {key: mark for key, mark in self._marks.items() if key >= (first or 0)} | marks

    def _raise_lost(self) -> None:
        self._lost = (
            f"the content of {self.path} was removed or replaced while it was open (a backup copied over "
            f"it?): nothing more is read from it or stored in it; {_CURE}"
        )
        raise GalleryUnavailableError(self._lost)

    def meta(self, key: str) -> str | int:
        """Return an entry of the table meta."""
        try:
            found = self.setting(key)
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, str(error)) from error
        if found is None:
            raise _damaged(self.path, f"meta has no {key!r}")
        return found  # type: ignore[no-any-return]

    def setting(self, key: str) -> Any:
        """Return an entry of the table meta, or None."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def data_version(self) -> int:
        """Return a number that differs after another connection has changed the file."""
        with self._translated():
            return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into those of the package."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise GalleryConflictError(f"the change contradicts what the gallery holds ({error})") from error
        except sqlite3.OperationalError as error:
            hint = "another process is writing; try again" if "locked" in str(error) else "check the disk"
            raise GalleryUnavailableError(f"{self.path}: nothing was stored ({error}); {hint}") from error
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, str(error)) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run a block as one change: all of it is durable afterwards, or none of it happened."""
        execute = self.connection.execute
        try:
            with self._translated():
                self._begin()
                try:
                    if self._gallery_id:
                        self._learn_marks()
                    yield Transaction(self.connection)
                    self.require_same_file()
                    execute("COMMIT")
                except BaseException:
                    if self.connection.in_transaction:
                        execute("ROLLBACK")
                    raise
        except (GalleryUnavailableError, GalleryMismatchError) as error:
            if self._gallery_id:
                self.troubles.note("write", str(error))
                self._write_trouble_ends = time.monotonic() + WRITE_TROUBLE_S
            raise
        self.troubles.note("write", "")

    def look_for_better(self) -> None:
        """Take back what is said to be wrong with writing, once nothing seems to stand in its way."""
        is_disk = "check the disk" in self.troubles.in_words("write")
        if is_disk and time.monotonic() <= self._write_trouble_ends:
            return
        if not self._is_locked():
            self.troubles.note("write", "")

    def _begin(self) -> None:
        """Start to write, after others; who waits gives up when the gallery is closed."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline or self.closing.is_set():
                    self._patience_s = IMPATIENT_SECONDS
                    raise
            else:
                self._patience_s = BUSY_SECONDS
                return

    def _is_locked(self) -> bool:
        """Return whether another process keeps this one from writing."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        self.connection.execute("ROLLBACK")
        return False

    def read_since(self, version: int) -> Rows:
        """Return the rows touched after ``version``, or everything where the log does not reach back."""
        execute = self.connection.execute
        nested = self.connection.in_transaction
        self.require_usable()
        with self._translated():
            if not nested:
                execute("BEGIN")
            try:
                self._learn_marks()
                return read_rows(self.connection, version)
            except (KeyError, ValueError, TypeError, OverflowError) as error:
                raise _damaged(self.path, str(error)) from error
            finally:
                if not nested:
                    execute("COMMIT")

    def close(self) -> None:
        """Close the file; the last one to close folds the write-ahead log into the database."""
        self.connection.close()


def _status(path: Path | None) -> tuple[int, ...] | None:
    """Return device and inode of a file, and what changes when it is written, or None where there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _content(path: Path) -> tuple[str, int, int | None] | None:
    """Return id, version and mark of the gallery in the file itself, without its log; None: there is none."""
    try:
        with contextlib.closing(_as_it_lies(path)) as reading:
            if not reading.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return "", -1, None  # just created: everything is in the log
            meta = dict(reading.execute("SELECT key, value FROM meta"))
            version = int(meta["version"])
            query = "SELECT key FROM changes WHERE version = ? AND kind = '#'"
            row = reading.execute(query, (version,)).fetchone()
            return str(meta["gallery_id"]), version, None if row is None else int(row[0])
    except (sqlite3.DatabaseError, KeyError, ValueError, TypeError):
        return None


def _as_it_lies(path: Path) -> sqlite3.Connection:
    """Return a connection that sees the file alone, and changes nothing."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _refuse_other_files(path: Path) -> None:
    """Raise GalleryUnavailableError for a file that is no gallery, before anything of it is changed."""
    try:
        if not path.stat().st_size:
            return
        with contextlib.closing(_as_it_lies(path)) as reading:
            is_new = not reading.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            is_ours = format_of(reading)[0] == APPLICATION_ID
            if not is_new and not is_ours and not any(journal.exists() for journal in journal_paths(path)):
                require_gallery(reading, path)
    except (OSError, sqlite3.OperationalError):
        return  # it is not there, or opening it says what is wrong
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path | None, what: str) -> GalleryUnavailableError:
    return GalleryUnavailableError(
        f"the gallery {path} is damaged or not a gallery ({what}). It was left as it is: move it away and "
        "import an export (face-recognition gallery import), or try: sqlite3 FILE .recover"
    )

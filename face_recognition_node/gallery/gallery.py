"""The gallery: who is known, found by face, changed while the robot runs.

An SQLite file is the truth (:mod:`store`); readers pick up immutable snapshots and never wait for a writer;
writers take turns on one lock. Every change is durable before its method returns, and the next
:meth:`Gallery.snapshot` shows it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from face_recognition_node.common.background import repeat
from face_recognition_node.common.closing import Closing
from face_recognition_node.common.errors import FaceRecognitionError, GalleryUnavailableError
from face_recognition_node.common.files import user_path
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery import edits, retention, transfer
from face_recognition_node.gallery.changes import Context, Edit
from face_recognition_node.gallery.check import VerificationReport, verify
from face_recognition_node.gallery.erasure import Erasure
from face_recognition_node.gallery.files import CropSafe, KeyRing, choose_keys_folder
from face_recognition_node.gallery.history import History, HistoryEntry, ended_by
from face_recognition_node.gallery.reembedding import ReembeddingReport, reembed
from face_recognition_node.gallery.snapshot import LiveSnapshot, Snapshot
from face_recognition_node.gallery.store import Store
from face_recognition_node.gallery.values import (
    NewTemplate,
    Person,
    Provenance,
    Session,
    SessionKind,
    Template,
)
from face_recognition_node.vision.detector import Embedder
from face_recognition_node.vision.faces import ImageArray

__all__ = [
    "Gallery", "GalleryConfig", "NewTemplate", "Person", "Provenance", "Session", "SessionKind",
    "Snapshot", "Template",
]  # fmt: skip

UNDO_WINDOW = "undo_window_s"  # the setting of the node that the file keeps, in the table meta, for commands
Key = TypeVar("Key")
Answer = TypeVar("Answer")
P = ParamSpec("P")


def _method(
    edit: Callable[Concatenate[Context, P], Edit[Key]], shown: Callable[[Snapshot, Key], Answer]
) -> Callable[Concatenate[Gallery, P], Answer]:
    """Make a method of an edit: it makes the change and returns, when durable, what is ``shown`` of it."""

    @functools.wraps(edit)
    def change(self: Gallery, /, *args: P.args, **options: P.kwargs) -> Answer:
        answer = self._change(lambda at: edit(at, *args, **options))
        return shown(self.snapshot(), answer)

    return change


def _itself(snapshot: Snapshot, answer: Answer) -> Answer:
    return answer


def _persons(snapshot: Snapshot, ids: tuple[str, ...]) -> tuple[Person, ...]:
    return tuple(snapshot.persons[person_id] for person_id in ids)


class Gallery(Closing):
    """Persons and their templates; safe to use from several threads, and from several processes on one file.

    Open one with :meth:`open`; use it as a context manager or call :meth:`close`. ``path`` is None in memory.
    """

    def __init__(
        self,
        store: Store,
        keys: KeyRing,
        config: GalleryConfig,
        clock: Callable[[], float],
        read_only: bool = False,
    ) -> None:
        self.path, self.config = store.path, config
        self._store, self._keys, self._clock = store, keys, clock
        gallery_id = str(store.meta("gallery_id"))
        self._lock = threading.RLock()
        self._crops = CropSafe(keys, gallery_id)
        self._history = History(store.connection, gallery_id, keys, config)
        self._erasure = Erasure(store)
        self._live = LiveSnapshot(store, config)
        self._is_open = True
        self._data_version = store.data_version()
        if read_only:
            return
        self._history.destroy_orphans()
        self._end_what_is_late()
        if note := self._erasure.pending():  # a crash may have come between a forget and its scrubbing
            self._erasure.scrub(note)
        if store.path is not None and config.poll_interval_s > 0:
            repeat(self._follow_quietly, config.poll_interval_s, store.closing, "gallery-follow")

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        fingerprint: str | None,
        config: GalleryConfig | None = None,
        *,
        dimension: int = 64,
        must_exist: bool = False,
        read_only: bool = False,
        keys_folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Gallery:
        """Open a gallery file, or create it.

        Args:
            path: The file; None keeps everything in memory.
            fingerprint: Of the model and alignment in use; None takes what the file says (to administer it).
            config: Parameters; None takes the undo window that the node left in the file, and the defaults.
            dimension: Length of an embedding.
            must_exist: Do not create a missing file.
            read_only: Change nothing, neither now nor later; what is due (expiry, the end of undo) is left.
            keys_folder: Where keys are kept; by default the user's state folder. Never the gallery's folder.
            clock: Returns Unix seconds.

        Raises:
            GalleryUnavailableError: It cannot be opened, is damaged, of a newer format, or no gallery.
            GalleryMismatchError: Its embeddings come from another model or alignment.
        """
        file = None if path is None else _path(path).absolute()
        store = Store(file, fingerprint or ("" if file is None else None), dimension, must_exist, read_only)
        try:
            folder = choose_keys_folder(file, str(store.meta("gallery_id")), keys_folder)
            if config is None:
                window_s = store.setting(UNDO_WINDOW)
                config = GalleryConfig() if window_s is None else GalleryConfig(undo_window_s=window_s)
            return cls(store, KeyRing(folder), config, clock, read_only)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Close the file; snapshots already taken stay usable."""
        self._store.closing.set()  # who waits for another process gives up
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._store.close()

    @property
    def fingerprint(self) -> str:
        """Of the model and alignment the embeddings come from."""
        return self._live.snapshot.fingerprint

    @property
    def trouble(self) -> str:
        """What is wrong with the file at present, in words; empty if nothing is known to be."""
        return self._store.troubles.in_words()

    @property
    def unfinished(self) -> str:
        """What is still to be done after people were removed, in words; empty if no byte of them is left."""
        return self._store.troubles.in_words("scrub")

    def follow(self) -> None:
        """Take over another process's changes, end what is late; skipped while a change is made."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._is_open:
                return
            self._store.require_same_file()
            data_version = self._store.data_version()
            if data_version != self._data_version:
                self._live.catch_up()
                self._data_version = data_version
                # The other may have begun an undo window.
                self._history.note_deadline()
            self._end_what_is_late()
            self._erasure.tidy()
            self._store.troubles.note("read", "")
            self._store.look_for_better()
        except FaceRecognitionError as error:
            self._store.troubles.note("read", str(error))
            raise
        finally:
            self._lock.release()

    def _follow_quietly(self) -> None:
        with contextlib.suppress(FaceRecognitionError):  # noted, and logged once
            self.follow()

    def update_config(self, config: GalleryConfig) -> None:
        """Use other parameters from the next change on; commands, which have none, follow the undo window."""
        with self._opened():
            if self._store.setting(UNDO_WINDOW) != config.undo_window_s:
                with self._store.transaction() as transaction:
                    statement = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
                    transaction.execute(statement, (UNDO_WINDOW, config.undo_window_s))
            self.config = config
            self._history.config = config

    def snapshot(self) -> Snapshot:
        """Return the present version; never waits."""
        return self._live.snapshot

    @property
    def session(self) -> Session:
        """The session under which newcomers are stored."""
        return self.snapshot().current_session

    # Changes. Each returns when it is durable, or raises and has changed nothing.

    add_person = _method(edits.add_person, Snapshot.person)
    enroll = _method(edits.enroll, Snapshot.person)
    learn = _method(edits.learn, Snapshot.person)
    add_templates = _method(edits.add_templates, Snapshot.person)
    rename = _method(edits.rename, Snapshot.person)
    merge = _method(edits.merge, Snapshot.person)
    split = _method(edits.split, Snapshot.person)
    remove_templates = _method(edits.remove_templates, _persons)
    set_aside = _method(edits.set_aside, _persons)

    rollback_adaptation = _method(edits.rollback_adaptation, _itself)
    forget = _method(edits.forget, _itself)
    forget_all = _method(edits.forget_all, _itself)
    start_run = _method(edits.start_run, _itself)
    set_session = _method(retention.set_session, lambda snapshot, name: snapshot.sessions[name])

    def forget_strangers(self, person_ids: Iterable[str]) -> tuple[Person, ...]:
        """Forget, for good, those who are strangers still: neither named nor merged in the meantime."""
        wanted = list(person_ids)
        if not retention.strangers_among(self.snapshot(), wanted):
            return ()
        return self._change(lambda at: edits.forget(at, retention.strangers_among(at.snapshot, wanted), True))

    def expire(self, now: float | None = None) -> tuple[Person, ...]:
        """Forget, for good, persons and undoable removals whose time is over; return the persons."""
        moment = self._clock() if now is None else now
        gone: tuple[Person, ...] = ()
        if retention.expired(self.snapshot(), moment):
            gone = self._change(lambda at: edits.forget(at, retention.expired(at.snapshot, moment), True))
        self._end_what_is_late(moment)
        return gone

    def mark_seen(self, person_ids: Iterable[str], now: float | None = None) -> None:
        """Note that persons were recognized; written once a minute each, and lets strangers live on."""
        moment = self._clock() if now is None else now
        ids = list(person_ids)
        if retention.due_to_be_seen(self._live.snapshot, ids, moment, self.config):
            self._change(lambda at: retention.mark_seen(at, ids, moment))

    def import_from(
        self,
        path: str | Path,
        *,
        session: str | None = None,
        on_conflict: transfer.ImportConflict = transfer.ImportConflict.MERGE,
    ) -> transfer.ImportReport:
        """Store the people of an exported file, all or none, under a session (by default the current one).

        Raises:
            GalleryUnavailableError: The file is missing, damaged or no gallery.
            GalleryMismatchError: Its embeddings come from another model or alignment.
            GalleryConflictError: Somebody is here already and that is to be refused; or an unknown session.
        """
        export = transfer.read_export(_path(path), self.fingerprint)
        gallery_id = str(self._store.meta("gallery_id"))
        return self._change(lambda at: transfer.import_people(at, export, gallery_id, session, on_conflict))

    def export_to(
        self, path: str | Path, *, person_ids: Iterable[str] | None = None, overwrite: bool = False
    ) -> transfer.ExportReport:
        """Write everybody, or some persons, to a file that :meth:`import_from` reads; whole or not at all."""
        with self._opened():
            rows = self._store.read_since(-1)
            wanted = None if person_ids is None else {self.snapshot().resolve(key) for key in person_ids}
            return transfer.write_export(self._store, rows, _path(path).absolute(), wanted, overwrite)

    def crop(self, template_id: int) -> ImageArray | None:
        """Return the (112, 112, 3) BGR crop of a template, None if none is kept; see CropSafe.open."""
        with self._opened():
            query = "SELECT sealed FROM crops WHERE template_id = ?"
            row = self._store.connection.execute(query, (template_id,)).fetchone()
        return None if row is None else self._crops.open(template_id, row[0])

    def verify(self) -> VerificationReport:
        """Check the file, its rows, the keys and the search index; changes nothing."""
        with self._opened(may_be_lost=True):
            return verify(self._store, self._live.snapshot, self._live.catch_up, self._keys)

    def reembed(
        self,
        embedder: Embedder,
        *,
        remove_without_crop: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ReembeddingReport:
        """Carry the gallery over to another model (see :mod:`reembedding`); this ends undo."""
        report = reembed(
            self._store, self._crops, embedder, self._lock, self._erasure.note,
            remove_without_crop=remove_without_crop, progress=progress,
        )  # fmt: skip
        with self._opened():
            self._live.read_everything()
            self._history.destroy_orphans()
            self._erasure.scrub(self._erasure.pending())
        return report

    def undo(self, steps: int = 1) -> tuple[str, ...]:
        """Take back the latest changes and return what each was; all or none (GalleryConflictError)."""
        return self._change(lambda at: self._history.step(at, steps, is_redo=False))

    def redo(self, steps: int = 1) -> tuple[str, ...]:
        """Do again what was undone last, like :meth:`undo`."""
        return self._change(lambda at: self._history.step(at, steps, is_redo=True))

    def history(self) -> list[HistoryEntry]:
        """Return the changes that can be undone or done again, oldest first."""
        with self._opened():
            entries = self._history.entries()
            ended = ended_by(entries, self._clock())
            return [entry for entry in entries if entry not in ended]

    # How a change is made.

    @contextlib.contextmanager
    def _opened(self, may_be_lost: bool = False) -> Iterator[None]:
        """Hold the lock; raise GalleryUnavailableError once closed, or if the file holds another gallery."""
        with self._lock:
            if not self._is_open:
                raise GalleryUnavailableError(f"the gallery {self.path} was closed; open it again")
            if not may_be_lost:
                self._store.require_usable()
            yield

    def _change(self, edit: Callable[[Context], Edit[Answer]], now: float | None = None) -> Answer:
        """Make a change in one transaction, show its outcome to readers and clear what it removed.

        What ``edit`` raises leaves everything as it was. ``now`` is by default the clock's.
        """
        with self._opened():
            try:
                with self._store.transaction() as rows:
                    self._live.catch_up()
                    moment = self._clock() if now is None else now
                    is_more_left = self._erasure.pending() > 0
                    ended = self._history.expire(rows, moment)
                    done = edit(Context(self._live.snapshot, rows, self.config, moment, self._crops))
                    if done.is_final:
                        self._history.forget(rows, done.persons)
                        rows.note_removed(rows.inverse)
                    elif done.is_recorded and rows.inverse:
                        self._history.record(rows, done.sentence, done.persons, rows.inverse, moment)
                    removed, texts = rows.removed_embeddings(), rows.erase_texts()
                    note = self._erasure.note() if removed or ended or texts else 0
                    if edit is not _end_removals or texts:
                        rows.bump_version()
                    self._history.note_deadline()
            except BaseException:
                self._history.abandon_keys()
                raise
            self._show(note, is_more_left or rows.is_text_lost, [*removed, *texts])
            return done.answer

    def _end_what_is_late(self, now: float | None = None) -> None:
        if self._history.next_deadline <= (self._clock() if now is None else now):
            self._change(_end_removals, now)

    def _show(self, note: int, must_rewrite: bool, removed: Sequence[bytes | str]) -> None:
        """Show a change that is durable, and clear what it removed."""
        try:
            self._live.catch_up()
        except GalleryUnavailableError as error:
            raise GalleryUnavailableError(
                f"the change is stored, but cannot be read back: {error}"
            ) from error
        if note:
            self._erasure.scrub(note, removed, must_rewrite)
        self._history.destroy_keys()


def _end_removals(at: Context) -> Edit[None]:
    """Change nothing: with every change, removals whose undo window is over come to their end."""
    return Edit(None, "", (), is_recorded=False)


def _path(path: str | Path) -> Path:
    return user_path(path, "any", name="gallery", error=GalleryUnavailableError)

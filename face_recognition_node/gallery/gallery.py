"""The gallery: who is known, found by face, changed while the robot runs.

An SQLite file is the truth (:mod:`store`); readers pick up immutable snapshots and never wait for a writer;
writers take turns on one lock. Every change is durable before its method returns, and the next
:meth:`Gallery.snapshot` shows it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from face_recognition_node.common.closing import Closing
from face_recognition_node.common.errors import (
    FaceRecognitionError,
    GalleryConflictError,
    GalleryUnavailableError,
    InputError,
)
from face_recognition_node.common.files import user_path
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery import edits, retention, transfer
from face_recognition_node.gallery.changes import Context, Edit, Transaction
from face_recognition_node.gallery.check import VerificationReport, verify
from face_recognition_node.gallery.erasure import Erasure
from face_recognition_node.gallery.files import CropSafe, KeyRing, choose_keys_folder
from face_recognition_node.gallery.history import History, HistoryEntry, ended_by
from face_recognition_node.gallery.reembedding import ReembeddingReport, reembed
from face_recognition_node.gallery.snapshot import LiveSnapshot, Snapshot
from face_recognition_node.gallery.store import Store
from face_recognition_node.gallery.values import (
    Match,
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
    "Gallery", "GalleryConfig", "Match", "NewTemplate", "Person", "Provenance", "Session", "SessionKind",
    "Snapshot", "Template",
]  # fmt: skip

LOGGER = logging.getLogger(__name__)
UNDO_WINDOW = "undo_window_s"
"""The setting of the node that the file keeps, in the table meta, for commands."""
Answer = TypeVar("Answer")
P = ParamSpec("P")


def _returning_person(
    edit: Callable[Concatenate[Context, P], Edit[str]],
) -> Callable[Concatenate[Gallery, P], Person]:
    """Make an edit a method that returns the person it is about, as it is then."""

    @functools.wraps(edit)
    def change(self: Gallery, /, *args: P.args, **options: P.kwargs) -> Person:
        person_id = self._change(lambda at: edit(at, *args, **options))
        return self.snapshot().person(person_id)

    return change


def _returning_owners(
    edit: Callable[Concatenate[Context, P], Edit[tuple[str, ...]]],
) -> Callable[Concatenate[Gallery, P], tuple[Person, ...]]:
    """Make an edit of templates a method that returns their owners, as they are then."""

    @functools.wraps(edit)
    def change(self: Gallery, /, *args: P.args, **options: P.kwargs) -> tuple[Person, ...]:
        ids = self._change(lambda at: edit(at, *args, **options))
        return tuple(self.snapshot().persons[person_id] for person_id in ids)

    return change


class Gallery(Closing):
    """Persons and their templates; safe to use from several threads, and from several processes on one file.

    Open one with :meth:`open`; use it as a context manager or call :meth:`close`.
    """

    def __init__(
        self,
        store: Store,
        keys: KeyRing,
        config: GalleryConfig,
        clock: Callable[[], float],
        read_only: bool = False,
    ) -> None:
        self._store, self._keys, self._config, self._clock = store, keys, config, clock
        gallery_id = str(store.meta("gallery_id"))
        self._lock = threading.RLock()
        self._crops = CropSafe(keys, gallery_id)
        self._history = History(gallery_id, keys, config)
        self._erasure = Erasure(store)
        self._live = LiveSnapshot(store, config)
        self._is_open = True
        self._data_version = store.data_version()
        self._next_deadline: float | None = None
        if read_only:
            return
        self._destroy_orphans()
        self._end_what_is_late()
        if note := self._erasure.pending():  # a crash may have come between a forget and its scrubbing
            self._erasure.scrub(note)
        if store.path is not None and config.poll_interval_s > 0:
            threading.Thread(
                target=_follow,
                args=(weakref.ref(self), store.closing, config.poll_interval_s),
                name="gallery-follow",
                daemon=True,
            ).start()

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
            folder = (
                None if file is None else choose_keys_folder(file, str(store.meta("gallery_id")), keys_folder)
            )
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
    def path(self) -> Path | None:
        """The file, or None in memory."""
        return self._store.path

    @property
    def fingerprint(self) -> str:
        """Of the model and alignment the embeddings come from."""
        return self._live.snapshot.fingerprint

    @property
    def config(self) -> GalleryConfig:
        """The parameters in force."""
        return self._config

    @property
    def trouble(self) -> str:
        """What is wrong with the file at present, in words; empty if nothing is known to be."""
        return self._store.troubles.told()

    @property
    def unfinished(self) -> str:
        """What is still to be done after people were removed, in words; empty if no byte of them is left."""
        return self._store.troubles.told("scrub")

    def follow(self) -> None:
        """Take over what another process has changed, and end what has to end; skipped while one is made.

        The gallery's own thread does it now and then.
        """
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
                self._next_deadline = self._history.next_deadline(Transaction(self._store.connection))
            self._end_what_is_late()
            self._erasure.tidy()
            self._store.troubles.note("read", "")
            self._store.look_for_better()
        except FaceRecognitionError as error:
            self._store.troubles.note("read", str(error))
            raise
        finally:
            self._lock.release()

    def update_config(self, config: GalleryConfig) -> None:
        """Use other parameters from the next change on (those that may change while running).

        Commands, which have none of their own, follow the undo window.
        """
        with self._opened():
            if self._store.setting(UNDO_WINDOW) != config.undo_window_s:
                with self._store.transaction() as transaction:
                    statement = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
                    transaction.connection.execute(statement, (UNDO_WINDOW, config.undo_window_s))
            self._config = config
            self._history.config = config

    def snapshot(self) -> Snapshot:
        """Return the present version; never waits."""
        return self._live.snapshot

    @property
    def session(self) -> Session:
        """The session under which newcomers are stored."""
        snapshot = self._live.snapshot
        return snapshot.sessions[snapshot.session]

    # Changes. Each returns when it is durable, or raises and has changed nothing.

    add_person = _returning_person(edits.add_person)
    enroll = _returning_person(edits.enroll)
    learn = _returning_person(edits.learn)
    add_templates = _returning_person(edits.add_templates)
    rename = _returning_person(edits.rename)
    merge = _returning_person(edits.merge)
    split = _returning_person(edits.split)
    remove_templates = _returning_owners(edits.remove_templates)
    set_aside = _returning_owners(edits.set_aside)

    def rollback_adaptation(self, person_id: str | None = None) -> int:
        """Remove the templates the node added by itself, of one person or of all; return how many."""
        return self._change(lambda at: edits.rollback_adaptation(at, person_id))

    def forget(
        self, person_ids: str | Iterable[str] = (), final: bool = False, *, session: str | None = None
    ) -> tuple[Person, ...]:
        """Remove persons, or everybody of a session, with everything known of them; return them as they were.

        No embedding is left in the file, its log or memory. Until the undo window ends they can be brought
        back from a sealed copy, unless ``final``.
        """
        wanted = [person_ids] if isinstance(person_ids, str) else list(person_ids)

        def choose(snapshot: Snapshot) -> list[str]:
            members = [] if session is None else retention.members_of(snapshot, session)
            return [*wanted, *members]

        return self._forget(choose, final)

    def forget_strangers(self, person_ids: Iterable[str]) -> tuple[Person, ...]:
        """Forget, for good, those that are strangers when it comes to it.

        Whoever has been named or joined with somebody in the meantime stays.
        """
        wanted = list(person_ids)
        if not retention.strangers_among(self._live.snapshot, wanted):
            return ()
        return self._forget(lambda snapshot: retention.strangers_among(snapshot, wanted), final=True)

    def forget_all(self, final: bool = False) -> tuple[Person, ...]:
        """Forget everybody."""
        return self._forget(lambda snapshot: list(snapshot.persons), final)

    def start_run(self) -> tuple[Person, ...]:
        """Forget for good who was stored for an earlier run of the node only; the node calls it at start."""
        return self._forget(retention.members_of_runs, final=True)

    def expire(self, now: float | None = None) -> tuple[Person, ...]:
        """Forget, for good, persons and undoable removals whose time is over; return the persons."""
        moment = self._clock() if now is None else now
        gone: tuple[Person, ...] = ()
        if retention.expired(self._live.snapshot, moment):
            gone = self._forget(lambda snapshot: retention.expired(snapshot, moment), final=True)
        self._change(_end_removals, now=moment)
        return gone

    def set_session(
        self, name: str, kind: SessionKind | None = None, time_to_live_s: float | None = None
    ) -> Session:
        """Store newcomers under this session from now on; without a kind a known session is continued."""
        self._change(lambda at: retention.set_session(at, name, kind, time_to_live_s))
        return self.session

    def mark_seen(self, person_ids: Iterable[str], now: float | None = None) -> None:
        """Note that persons were recognized; written once a minute each, and lets strangers live on."""
        moment = self._clock() if now is None else now
        ids = list(person_ids)
        if retention.due_to_be_seen(self._live.snapshot, ids, moment, self._config):
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
        """Return the (112, 112, 3) BGR crop of a template, or None if none is kept.

        Raises:
            GalleryUnavailableError: Its key is not on this machine, or it is damaged.
        """
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
            self._destroy_orphans()
            self._erasure.scrub(self._erasure.pending())
        return report

    def undo(self, steps: int = 1) -> tuple[str, ...]:
        """Take back the latest changes, all asked for or none, and return a sentence for each.

        Raises:
            GalleryConflictError: There are not so many, or a later change stands in the way.
        """
        return self._step(steps, is_redo=False)

    def redo(self, steps: int = 1) -> tuple[str, ...]:
        """Do again what was undone last, like :meth:`undo`."""
        return self._step(steps, is_redo=True)

    def history(self) -> list[HistoryEntry]:
        """Return the changes that can be undone or done again, oldest first."""
        with self._opened():
            entries = self._history.entries(Transaction(self._store.connection))
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

    def _forget(self, choose: Callable[[Snapshot], list[str]], final: bool) -> tuple[Person, ...]:
        is_final = final or self._config.undo_window_s == 0
        return self._change(lambda at: edits.forget(at, choose(at.snapshot)), is_final=is_final)

    def _step(self, steps: int, is_redo: bool) -> tuple[str, ...]:
        """Undo or redo changes, all asked for or none, and return what each did."""
        if steps < 1:
            raise InputError(f"steps: expected at least 1, got {steps}")

        def take_back(at: Context) -> Edit[tuple[str, ...]]:
            n_able = sum(entry.is_done != is_redo for entry in self._history.entries(at.rows))
            if 0 < n_able < steps:
                done = "done again" if is_redo else "undone"
                raise GalleryConflictError(f"only {n_able} changes can be {done}, {steps} were asked for")
            sentences = []
            for _ in range(steps):
                entry = self._history.step(at.rows, is_redo, at.now)
                sentences.append(entry.sentence)
                retention.revive(at, entry.persons)
            return Edit(tuple(sentences), "", (), is_recorded=False)

        return self._change(take_back)

    def _change(
        self, edit: Callable[[Context], Edit[Answer]], *, is_final: bool = False, now: float | None = None
    ) -> Answer:
        """Make a change in one transaction, show its outcome to readers and clear what it removed.

        Args:
            edit: Makes it; what it raises leaves everything as it was.
            is_final: Nothing is kept to undo it, nor earlier changes of the same persons.
            now: Unix seconds; by default the clock's.
        """
        with self._opened():
            try:
                with self._store.transaction() as rows:
                    self._live.catch_up()
                    moment = self._clock() if now is None else now
                    is_more_left = self._erasure.pending() > 0
                    ended = self._history.expire(rows, moment)
                    done = edit(Context(self._live.snapshot, rows, self._config, moment, self._crops))
                    if is_final:
                        self._history.forget(rows, done.persons)
                        rows.note_removed(rows.inverse)
                    elif done.is_recorded and rows.inverse:
                        self._history.record(rows, done.sentence, done.persons, rows.inverse, moment)
                    removed, texts = rows.removed_embeddings(), rows.erase_texts()
                    note = self._erasure.note() if removed or ended or texts else 0
                    if edit is not _end_removals or texts:
                        rows.bump_version()
                    self._next_deadline = self._history.next_deadline(rows)
            except BaseException:
                self._history.abandon_keys()
                raise
            self._show(note, is_more_left or rows.is_text_lost, [*removed, *texts])
            return done.answer

    def _end_what_is_late(self) -> None:
        if self._next_deadline is not None and self._next_deadline <= self._clock():
            self._change(_end_removals)

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

    def _destroy_orphans(self) -> None:
        """Destroy keys of changes that are not in the history any more."""
        with self._lock:
            rows = Transaction(self._store.connection)
            self._history.destroy_orphans(rows)
            self._next_deadline = self._history.next_deadline(rows)


def _end_removals(at: Context) -> Edit[None]:
    """Change nothing: with every change, removals whose undo window is over come to their end."""
    return Edit(None, "", (), is_recorded=False)


def _path(path: str | Path) -> Path:
    return user_path(path, "any", name="gallery", error=GalleryUnavailableError)


def _follow(reference: weakref.ref[Gallery], stop: threading.Event, interval_s: float) -> None:
    while not stop.wait(interval_s):
        gallery = reference()
        if gallery is None:
            return
        try:
            gallery.follow()
        except FaceRecognitionError:
            pass  # noted, and logged once
        except Exception:  # the thread must outlive a full disk, a lock, a file of another model
            LOGGER.exception("could not follow changes of the gallery %s", gallery.path)
        del gallery

"""The machinery of the gallery: how a change becomes durable, visible to readers, and in the end forgotten.

Writers take turns on one lock; readers only pick up the present snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TypeVar

import numpy as np

from face_recognition_node.common.errors import (
    FaceRecognitionError,
    GalleryConflictError,
    GalleryMismatchError,
    GalleryUnavailableError,
    InputError,
)
from face_recognition_node.gallery import retention
from face_recognition_node.gallery.changes import Change, Transaction
from face_recognition_node.gallery.config import GalleryConfig
from face_recognition_node.gallery.edits import Context, Edit
from face_recognition_node.gallery.history import History, HistoryEntry, ended_by
from face_recognition_node.gallery.index import Index
from face_recognition_node.gallery.keys import CropSafe, KeyRing
from face_recognition_node.gallery.snapshot import Snapshot, first_snapshot, next_snapshot
from face_recognition_node.gallery.store import Store
from face_recognition_node.gallery.values import NewTemplate

LOGGER = logging.getLogger(__name__)
UNDO_WINDOW = "undo_window_s"
"""The setting of the node that the file keeps, in the table meta, for commands."""
WRITE_TROUBLE_S = 60.0
"""What is wrong with the disk is believed for so long, or until the next change is stored."""
SCRUB_AGAIN_S = 10.0
Plan = Callable[[Context], Edit]
Answer = TypeVar("Answer")


class GalleryEngine:
    """Keeps a store, its history and the present snapshot in step.

    Args:
        store: The file.
        keys: Where keys are kept.
        config: Parameters.
        clock: Returns Unix seconds.
        read_only: Write nothing, not even what is due.
    """

    def __init__(
        self,
        store: Store,
        keys: KeyRing,
        config: GalleryConfig,
        clock: Callable[[], float],
        read_only: bool = False,
    ) -> None:
        self.store = store
        self.keys = keys
        self.config = config
        self.clock = clock
        self.lock = threading.RLock()
        self.crops = CropSafe(keys, str(store.meta("gallery_id")))
        self.snapshot: Snapshot
        self._is_open = True
        self._troubles: dict[str, str] = {}
        self._write_trouble_ends = self._scrub_again = 0.0
        self._indexes: weakref.WeakSet[Index] = weakref.WeakSet()
        self._seen_residue, self._owes_scrub = 0, False
        self._history = self._make_history()
        self._data_version = store.data_version()
        self.read_everything()
        self._next_deadline: float | None = None
        if read_only:
            return
        self.destroy_orphans()
        self._end_what_is_late()
        if note := store.residue():  # a crash may have come between a forget and its scrubbing
            self.scrub(note)
        if store.path is not None and config.poll_interval_s > 0:
            threading.Thread(
                target=_follow,
                args=(weakref.ref(self), store.closing, config.poll_interval_s),
                name="gallery-follow",
                daemon=True,
            ).start()

    def close(self) -> None:
        """Close the file; snapshots already taken stay usable."""
        self.store.closing.set()  # who waits for another process gives up
        with self.lock:
            if self._is_open:
                self._is_open = False
                self.store.close()

    def require_open(self, may_be_lost: bool = False) -> None:
        """Raise GalleryUnavailableError after :meth:`close`, or if the file holds another's content."""
        if not self._is_open:
            raise GalleryUnavailableError(f"the gallery {self.store.path} was closed; open it again")
        if not may_be_lost:
            self.store.require_usable()

    def use_config(self, config: GalleryConfig) -> None:
        """Use other parameters from the next change on; commands without any follow the undo window."""
        with self.lock:
            self.require_open()
            if self.store.setting(UNDO_WINDOW) != config.undo_window_s:
                with self.store.transaction() as transaction:
                    statement = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
                    transaction.connection.execute(statement, (UNDO_WINDOW, config.undo_window_s))
            self.config = config
            self._history.use_limits(config.undo_window_s, config.history_length)

    def commit(self, plan: Plan, *, is_final: bool = False) -> Edit:
        """Make the change that ``plan`` finds for the present snapshot; it is durable and visible on return.

        Args:
            plan: Called inside the transaction; what it raises leaves everything as it was.
            is_final: Nothing is kept to undo it, nor earlier changes of the same persons.
        """

        def work(transaction: Transaction) -> tuple[list[Change], Edit]:
            edit = plan(self._context(transaction))
            inverse = transaction.apply(edit.changes)
            if is_final:
                self._history.forget(transaction, edit.persons)
                transaction.note_removed(inverse)
            elif edit.is_recorded and edit.changes:
                self._history.record(transaction, edit.sentence, edit.persons, inverse, self.clock())
            return inverse, edit

        return self._change(work)

    def step(self, steps: int, is_redo: bool) -> tuple[str, ...]:
        """Undo or redo changes, all asked for or none, and return what each did."""
        if steps < 1:
            raise InputError(f"steps: expected at least 1, got {steps}")

        def work(transaction: Transaction) -> tuple[list[Change], tuple[str, ...]]:
            removed: list[Change] = []
            sentences: list[str] = []
            n_able = sum(entry.is_done != is_redo for entry in self._history.entries(transaction))
            if 0 < n_able < steps:
                done = "done again" if is_redo else "undone"
                raise GalleryConflictError(f"only {n_able} changes can be {done}, {steps} were asked for")
            for _ in range(steps):
                entry, inverse = self._history.step(transaction, is_redo, self.clock())
                sentences.append(entry.sentence)
                removed += inverse
                transaction.apply(retention.revive(self._context(transaction), entry.persons))
            return removed, tuple(sentences)

        return self._change(work)

    def history(self) -> list[HistoryEntry]:
        """Return the changes that can be undone or done again, oldest first."""
        with self.lock:
            self.require_open()
            entries = self._history.entries(Transaction(self.store.connection))
            ended = ended_by(entries, self.clock())
            return [entry for entry in entries if entry not in ended]

    def end_removals(self, now: float) -> None:
        """Destroy what could bring back removals whose undo window is over."""
        with self.lock:
            self.require_open()
            with self.store.transaction() as transaction:
                left = self.store.residue()
                note = self.store.note_residue() if self._history.expire(transaction, now) else 0
                texts = transaction.erase_texts()
                if texts:  # of a session, too, perhaps
                    transaction.bump_version()
                self._next_deadline = self._history.next_deadline(transaction)
            self._after(note, left > 0 or transaction.is_text_lost, texts)

    def _context(self, transaction: Transaction) -> Context:
        return Context(self.snapshot, transaction, self.config, self.clock(), self._seal_crop, self._has_crop)

    def _seal_crop(self, template_id: int, template: NewTemplate) -> bytes | None:
        if not self.config.keep_crops or template.crop_bgr is None:
            return None
        return self.crops.seal(template_id, template.crop_bgr)

    def _has_crop(self, template_id: int) -> bool:
        query = "SELECT 1 FROM crops WHERE template_id = ?"
        return self.store.connection.execute(query, (template_id,)).fetchone() is not None

    def _change(self, work: Callable[[Transaction], tuple[list[Change], Answer]]) -> Answer:
        """Do ``work``, which returns what would take it back and an answer, in one transaction."""
        with self.lock:
            self.require_open()
            try:
                with self.store.transaction() as transaction:
                    self.catch_up()
                    left = self.store.residue()
                    ended = self._history.expire(transaction, self.clock())
                    inverse, answer = work(transaction)
                    removed, texts = _removed_embeddings(inverse), transaction.erase_texts()
                    note = self.store.note_residue() if removed or ended or texts else 0
                    transaction.bump_version()
                    self._next_deadline = self._history.next_deadline(transaction)
            except BaseException as error:
                self._history.abandon_keys()
                if isinstance(error, GalleryUnavailableError | GalleryMismatchError):
                    self._note_trouble("write", str(error))
                    self._write_trouble_ends = time.monotonic() + WRITE_TROUBLE_S
                raise
            self._note_trouble("write", "")
            self._after(note, left > 0 or transaction.is_text_lost, [*removed, *texts])
            return answer

    def _after(self, note: int, must_rewrite: bool, removed: Sequence[bytes | str]) -> None:
        """Show a change that is durable, and clear what it removed."""
        try:
            self.catch_up()
        except GalleryUnavailableError as error:
            raise GalleryUnavailableError(
                f"the change is stored, but cannot be read back: {error}"
            ) from error
        if note:
            self.scrub(note, must_rewrite, removed)
        self._history.destroy_keys()

    @property
    def trouble(self) -> str:
        """What is wrong with the file at present, in words, or empty."""
        return "; ".join(dict.fromkeys(self._troubles.values()))

    @property
    def unfinished(self) -> str:
        """What is still to be done for a removal, in words, or empty."""
        return self._troubles.get("scrub", "")

    def _note_trouble(self, kind: str, sentence: str) -> None:
        """Remember what is wrong with the file, for diagnostics; log it when it begins and ends."""
        if sentence and sentence not in self._troubles.values():
            LOGGER.warning("%s", sentence)
        before = self._troubles.pop(kind, "")
        if sentence:
            self._troubles[kind] = sentence
        elif before and not self._troubles:
            LOGGER.info("the gallery %s can be used again", self.store.path)

    def catch_up(self) -> Snapshot:
        """Bring the snapshot to the version in the file and return it; call it with the lock held."""
        before = self.snapshot
        rows = self.store.read_since(before.version)
        if rows.version == before.version:
            return before
        ids = set(rows.templates.template_ids.tolist())
        if rows.is_everything:
            self.store.check_fingerprint(before.fingerprint, before.dimension)
            after = first_snapshot(rows, before.fingerprint, before.dimension, self.config)
            gone = set(before.columns.template_ids.tolist()) - ids
        else:
            after = next_snapshot(before, rows, self.config)
            gone = set(rows.touched_templates) - ids
        self._install(after, gone)
        return after

    def read_everything(self) -> None:
        """Make the snapshot anew from the file."""
        rows = self.store.read_since(-1)
        fingerprint, dimension = str(self.store.meta("fingerprint")), int(self.store.meta("dimension"))
        self._install(first_snapshot(rows, fingerprint, dimension, self.config), frozenset())

    def _install(self, snapshot: Snapshot, gone: Set[int]) -> None:
        """Show a snapshot to readers, and wipe templates that are gone wherever they are still held."""
        self.snapshot = snapshot
        self._indexes.add(snapshot.index)
        for index in list(self._indexes) if gone else ():
            index.wipe(np.array(sorted(gone), np.int64))

    def follow(self) -> None:
        """Look for changes made by another process, and end what has to end; skipped while one is made."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            if not self._is_open:
                return
            self.store.require_same_file()
            data_version = self.store.data_version()
            if data_version != self._data_version:
                self.catch_up()
                self._data_version = data_version
                # The other may have begun an undo window.
                self._next_deadline = self._history.next_deadline(Transaction(self.store.connection))
            self._end_what_is_late()
            self._clear_residue()
            self._note_trouble("read", "")
            is_over = "check the disk" not in self._troubles.get("write", "")
            if (is_over or time.monotonic() > self._write_trouble_ends) and not self.store.is_locked():
                self._note_trouble("write", "")
        except FaceRecognitionError as error:
            self._note_trouble("read", str(error))
            raise
        finally:
            self.lock.release()

    def destroy_orphans(self) -> None:
        """Destroy keys of changes that are not in the history any more."""
        with self.lock:
            transaction = Transaction(self.store.connection)
            self._history.destroy_orphans(transaction)
            self._next_deadline = self._history.next_deadline(transaction)

    def _end_what_is_late(self) -> None:
        if self._next_deadline is not None and self._next_deadline <= self.clock():
            self.end_removals(self.clock())

    def _clear_residue(self) -> None:
        """Scrub what is left to do, here or by another process; who is at it has until the second look."""
        note = self.store.residue()
        is_due = self._owes_scrub or (note > 0 and note == self._seen_residue)
        self._seen_residue = note
        if not note:  # another process has done it
            self._owes_scrub = False
            self._note_trouble("scrub", "")
        elif is_due and time.monotonic() >= self._scrub_again and not self.scrub(note):
            self._scrub_again = time.monotonic() + SCRUB_AGAIN_S

    def scrub(self, note: int, must_rewrite: bool = True, removed: Sequence[bytes | str] = ()) -> bool:
        """Clear the files of what was removed, or of all there may be; later, if it cannot be done now."""
        reason = self.store.scrub(removed, must_rewrite)
        self._owes_scrub = bool(reason)
        if not reason:
            self.store.end_residue(note)
        sentence = (
            f"{self.store.path}: what was removed is found no more, but its bytes leave the file or its log "
            f"only a little later ({reason}); it is tried again by itself"
        )
        self._note_trouble("scrub", sentence if reason else "")
        return not reason

    def _make_history(self) -> History:
        gallery_id, config = str(self.store.meta("gallery_id")), self.config
        return History(gallery_id, self.keys, config.undo_window_s, config.history_length)


def _removed_embeddings(inverse: Iterable[Change]) -> list[bytes]:
    values = (change.values.get("embedding") for change in inverse if change.kind == "insert")
    return [value for value in values if isinstance(value, bytes)]


def _follow(reference: weakref.ref[GalleryEngine], stop: threading.Event, interval_s: float) -> None:
    while not stop.wait(interval_s):
        engine = reference()
        if engine is None:
            return
        try:
            engine.follow()
        except FaceRecognitionError:
            pass  # noted, and logged once
        except Exception:  # the thread must outlive a full disk, a lock, a file of another model
            LOGGER.exception("could not follow changes of the gallery %s", engine.store.path)
        del engine

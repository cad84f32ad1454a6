"""The gallery: who is known, found by face, changed while the robot runs.

An SQLite file is the truth (:mod:`store`); readers work on immutable snapshots and never wait for a writer.
Every change is durable before its method returns, and the next :meth:`Gallery.snapshot` shows it.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path

from face_recognition_node.core import edits
from face_recognition_node.core.cell_search import CellIndex
from face_recognition_node.core.edits import Edit
from face_recognition_node.core.errors import GalleryConflictError, GalleryUnavailableError, InputError
from face_recognition_node.core.gallery_config import GalleryConfig
from face_recognition_node.core.gallery_files import default_keys_folder
from face_recognition_node.core.gallery_values import (
    Match,
    NewTemplate,
    Person,
    Provenance,
    Session,
    SessionKind,
    Template,
)
from face_recognition_node.core.history import History, HistoryEntry
from face_recognition_node.core.row_changes import Change
from face_recognition_node.core.sealing import KeyRing
from face_recognition_node.core.snapshot import Snapshot
from face_recognition_node.core.snapshot_builder import compacted, first_snapshot, next_snapshot
from face_recognition_node.core.store import Store, Transaction
from face_recognition_node.core.template_block import TemplateBlock

__all__ = [
    "Gallery", "GalleryConfig", "Match", "NewTemplate", "Person", "Provenance", "Session", "SessionKind",
    "Snapshot", "Template",
]  # fmt: skip

LOGGER = logging.getLogger(__name__)
SEEN_INTERVAL_S = 60.0
"""``last_seen`` is written at most this often for one person."""
INLINE_ROWS = 20000
"""Up to this many templates are joined within the change that made it necessary, else in the background."""
Plan = Callable[[Snapshot, Transaction], Edit]


class Gallery:
    """Persons and their templates; safe to use from several threads, and from several processes on one file.

    Open one with :meth:`open`; use it as a context manager or call :meth:`close`.
    """

    def __init__(
        self, store: Store, keys: KeyRing, config: GalleryConfig, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._keys = keys
        self._config = config
        self._clock = clock
        self._writing = threading.RLock()
        self._is_open = True
        self._bases: weakref.WeakKeyDictionary[TemplateBlock, CellIndex | None] = weakref.WeakKeyDictionary()
        self._is_compacting = False
        self._scrub_due = False
        self._history = self._make_history()
        self._data_version = store.data_version()
        rows = store.read_since(-1)
        fingerprint, dimension = str(store.meta("fingerprint")), int(store.meta("dimension"))
        self._install(first_snapshot(rows, fingerprint, dimension, config), frozenset())
        with store.transaction() as transaction:
            self._history.destroy_orphans(transaction)
            self._next_deadline = self._history.next_deadline(transaction)
        self._stop_following = threading.Event()
        if store.path is not None and config.poll_interval_s > 0:
            threading.Thread(
                target=_follow,
                args=(weakref.ref(self), self._stop_following, config.poll_interval_s),
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
        keys_folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Gallery:
        """Open a gallery file, or create it.

        Args:
            path: The file; None keeps everything in memory.
            fingerprint: Of the model and alignment in use; None takes what the file says (to administer it).
            config: Parameters.
            dimension: Length of an embedding.
            must_exist: Do not create a missing file.
            keys_folder: Where keys are kept; by default the user's state folder. Never the gallery's folder.
            clock: Returns Unix seconds.

        Raises:
            GalleryUnavailableError: It cannot be opened, is damaged, of a newer format, or no gallery.
            GalleryMismatchError: Its embeddings come from another model or alignment.
        """
        file = None if path is None else Path(path).expanduser().absolute()
        store = Store(file, fingerprint or ("" if file is None else None), dimension, must_exist)
        try:
            folder = None
            if file is not None:
                folder = (keys_folder or default_keys_folder()).absolute() / str(store.meta("gallery_id"))
                if file.parent in (folder, *folder.parents) and keys_folder is not None:
                    raise GalleryUnavailableError(
                        f"keys must not lie with what they seal: choose a keys folder outside {file.parent}"
                    )
            return cls(store, KeyRing(folder), config or GalleryConfig(), clock)
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; snapshots already taken stay usable."""
        self._stop_following.set()
        with self._writing:
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
        return self._snapshot.fingerprint

    @property
    def config(self) -> GalleryConfig:
        """The parameters in force."""
        return self._config

    def update_config(self, config: GalleryConfig) -> None:
        """Use other parameters from the next change on (those that may change while running)."""
        with self._writing:
            self._config = config
            self._history = self._make_history()

    def snapshot(self) -> Snapshot:
        """Return the present version; never waits."""
        return self._snapshot

    @property
    def session(self) -> Session:
        """The session under which newcomers are stored."""
        snapshot = self._snapshot
        return snapshot.sessions[snapshot.session]

    # Changes. Each returns when it is durable, or raises and has changed nothing.

    def add_person(
        self,
        name: str,
        templates: Sequence[NewTemplate],
        *,
        is_stranger: bool = False,
        expires: float | None = None,
    ) -> Person:
        """Store a new person, or a stranger (whose name may be empty), in the current session."""

        def plan(snapshot: Snapshot, transaction: Transaction) -> Edit:
            now, end, config = self._clock(), expires, self._config
            if is_stranger and end is None and config.stranger_time_to_live_s:
                end = now + config.stranger_time_to_live_s
            return edits.add_person(
                snapshot, transaction, name, templates, is_stranger=is_stranger, now=now, expires=end,
                limit=config.max_templates_per_person, seal_crop=self._seal_crop,
            )  # fmt: skip

        return self._person_after(self._commit(plan))

    def add_templates(self, person_id: str, templates: Sequence[NewTemplate]) -> Person:
        """Store more templates of a person."""

        def plan(snapshot: Snapshot, transaction: Transaction) -> Edit:
            return edits.add_templates(
                snapshot,
                transaction,
                person_id,
                templates,
                now=self._clock(),
                limit=self._config.max_templates_per_person,
                seal_crop=self._seal_crop,
            )

        return self._person_after(self._commit(plan))

    def rename(self, person_id: str, name: str) -> Person:
        """Give a person another name; a stranger becomes a person and keeps its id."""
        return self._person_after(self._commit(lambda snapshot, _: edits.rename(snapshot, person_id, name)))

    def merge(self, keep_id: str, other_id: str | Sequence[str]) -> Person:
        """Give all templates of the other person(s) to one; the other ids lead to it from now on."""
        others = [other_id] if isinstance(other_id, str) else list(other_id)
        limit = self._config.max_templates_per_person
        return self._person_after(
            self._commit(lambda snapshot, _: edits.merge(snapshot, keep_id, others, limit))
        )

    def split(self, template_ids: Iterable[int], name: str = "") -> Person:
        """Make a person of its own of some templates of one person; without a name it is a stranger."""
        ids = list(template_ids)
        return self._person_after(
            self._commit(
                lambda snapshot, transaction: edits.split(snapshot, transaction, ids, name, self._clock())
            )
        )

    def remove_templates(self, template_ids: Iterable[int]) -> tuple[Person, ...]:
        """Remove templates and return their owners as they are now; each must keep at least one."""
        ids = list(template_ids)
        edit = self._commit(lambda snapshot, _: edits.remove_templates(snapshot, ids, self._has_crop))
        return tuple(self._snapshot.persons[person_id] for person_id in edit.persons)

    def set_aside(self, template_ids: Iterable[int], is_set_aside: bool = True) -> tuple[Person, ...]:
        """Keep templates out of the search (or let them in again) and return their owners."""
        ids = list(template_ids)
        edit = self._commit(lambda snapshot, _: edits.set_aside(snapshot, ids, is_set_aside))
        return tuple(self._snapshot.persons[person_id] for person_id in edit.persons)

    def rollback_adaptation(self, person_id: str | None = None) -> int:
        """Remove the templates the node added by itself, of one person or of all; return how many."""

        def plan(snapshot: Snapshot, _: Transaction) -> Edit:
            people = list(snapshot.persons.values()) if person_id is None else [snapshot.person(person_id)]
            return edits.rollback_adaptation(snapshot, people, self._has_crop)

        return sum(change.table == "templates" for change in self._commit(plan).changes)

    def forget(self, person_ids: str | Iterable[str], final: bool = False) -> tuple[Person, ...]:
        """Remove persons with everything known of them, and return them as they were.

        No embedding is left in the file, its log or memory. Until the undo window ends they can be brought
        back from a sealed copy, unless ``final``.
        """
        wanted = [person_ids] if isinstance(person_ids, str) else list(person_ids)
        return self._forget(lambda snapshot: wanted, final)

    def forget_session(self, session: str, final: bool = False) -> tuple[Person, ...]:
        """Forget everybody of a session."""

        def members(snapshot: Snapshot) -> list[str]:
            if session not in snapshot.sessions:
                known = ", ".join(repr(name) for name in sorted(snapshot.sessions))
                raise GalleryConflictError(f"there is no session {session!r}; known are {known}")
            return [key for key, person in snapshot.persons.items() if person.session == session]

        return self._forget(members, final)

    def forget_all(self, final: bool = False) -> tuple[Person, ...]:
        """Forget everybody."""
        return self._forget(lambda snapshot: list(snapshot.persons), final)

    def start_run(self) -> tuple[Person, ...]:
        """Forget for good who was stored for an earlier run of the node only; the node calls it at start."""

        def members(snapshot: Snapshot) -> list[str]:
            runs = {session.name for session in snapshot.sessions.values() if session.kind is SessionKind.RUN}
            return [key for key, person in snapshot.persons.items() if person.session in runs]

        return self._forget(members, final=True)

    def expire(self, now: float | None = None) -> tuple[Person, ...]:
        """Forget, for good, persons and undoable removals whose time is over; return the persons."""
        moment = self._clock() if now is None else now

        def late(snapshot: Snapshot) -> list[str]:
            return [
                key for key, person in snapshot.persons.items()
                if person.expires is not None and person.expires <= moment
            ]  # fmt: skip

        gone = self._forget(late, final=True) if late(self._snapshot) else ()
        self._expire_history(moment)
        return gone

    def set_session(
        self, name: str, kind: SessionKind | None = None, time_to_live_s: float | None = None
    ) -> Session:
        """Store newcomers under this session from now on; without a kind a known session is continued."""
        if time_to_live_s is not None and not time_to_live_s > 0:
            raise InputError(f"time_to_live_s: expected more than 0, got {time_to_live_s}")

        def plan(snapshot: Snapshot, transaction: Transaction) -> Edit:
            checked = edits.checked_name(name, may_be_empty=True)
            known = snapshot.sessions.get(checked)
            session = Session(checked, kind or SessionKind.PERMANENT, time_to_live_s)
            if kind is None and known is not None:
                session = known
            if not checked and session != Session():
                raise GalleryConflictError("the default session is permanent; give the session a name")
            transaction.set_meta("session", checked)
            return edits.session_change(snapshot, session)

        self._commit(plan)
        return self.session

    def mark_seen(self, person_ids: Iterable[str], now: float | None = None) -> None:
        """Note that persons were recognised; written once a minute each, and lets strangers live on."""
        moment = self._clock() if now is None else now
        ids = list(person_ids)

        def due(snapshot: Snapshot) -> list[Person]:
            people = [snapshot.persons[key] for key in ids if key in snapshot.persons]
            return [p for p in people if p.last_seen is None or moment - p.last_seen >= SEEN_INTERVAL_S]

        def plan(snapshot: Snapshot, _: Transaction) -> Edit:
            changes = []
            for person in due(snapshot):
                values: dict[str, float | str | int | None] = {"last_seen": moment}
                if person.is_stranger and person.expires is not None and self._config.stranger_time_to_live_s:
                    values["expires"] = max(person.expires, moment + self._config.stranger_time_to_live_s)
                changes.append(Change("update", "persons", person.person_id, values))
            return Edit("seen", tuple(changes), (), is_recorded=False)

        if due(self._snapshot):
            self._commit(plan)

    def undo(self, steps: int = 1) -> tuple[str, ...]:
        """Take back the latest changes, all asked for or none, and return a sentence for each.

        Raises:
            GalleryConflictError: There are not so many, or a later change stands in the way.
        """
        return self._step(steps, redo=False)

    def redo(self, steps: int = 1) -> tuple[str, ...]:
        """Do again what was undone last, like :meth:`undo`."""
        return self._step(steps, redo=True)

    def history(self) -> list[HistoryEntry]:
        """Return the changes that can be undone or done again, oldest first."""
        with self._writing, self._writable_store().transaction() as transaction:
            return self._history.entries(transaction)

    # How a change happens.

    def _commit(self, plan: Plan, *, final: bool = False) -> Edit:
        with self._writing:
            store = self._writable_store()
            history = self._history
            try:
                with store.transaction() as transaction:
                    self._catch_up()
                    edit = plan(self._snapshot, transaction)
                    inverse = transaction.apply(edit.changes)
                    if final:
                        history.forget(transaction, edit.persons)
                    elif edit.is_recorded and edit.changes:
                        history.record(transaction, edit.sentence, edit.persons, inverse, self._clock())
                    transaction.bump_version()
                    self._next_deadline = history.next_deadline(transaction)
            except BaseException:
                history.abandon_keys()
                raise
            self._finish(inverse)
        return edit

    def _step(self, steps: int, redo: bool) -> tuple[str, ...]:
        if steps < 1:
            raise InputError(f"steps: expected at least 1, got {steps}")
        with self._writing:
            store = self._writable_store()
            sentences = []
            removed: list[Change] = []
            try:
                with store.transaction() as transaction:
                    self._catch_up()
                    for _ in range(steps):
                        entry, inverse = self._history.step(transaction, redo, self._clock())
                        sentences.append(entry.sentence)
                        removed += inverse
                    transaction.bump_version()
                    self._next_deadline = self._history.next_deadline(transaction)
            except BaseException:
                self._history.abandon_keys()
                raise
            self._finish(removed)
        return tuple(sentences)

    def _finish(self, inverse: Sequence[Change]) -> None:
        self._history.destroy_keys()
        self._catch_up()
        removed = (
            c.values.get("embedding") for c in inverse if c.kind == "insert" and c.table == "templates"
        )
        needles = [embedding for embedding in removed if isinstance(embedding, bytes)]
        if needles:
            self._scrub(needles)

    def _forget(self, choose: Callable[[Snapshot], list[str]], final: bool) -> tuple[Person, ...]:
        before: list[Person] = []
        final = final or self._config.undo_window_s == 0

        def plan(snapshot: Snapshot, _: Transaction) -> Edit:
            edit = edits.forget(snapshot, choose(snapshot), self._has_crop)
            before.extend(snapshot.persons[person_id] for person_id in edit.persons)
            return edit

        self._commit(plan, final=final)
        return tuple(before)

    def _scrub(self, needles: Sequence[bytes]) -> None:
        self._scrub_due = not self._store.scrub(needles)
        if self._scrub_due:
            LOGGER.warning(
                "another process is reading %s: removed faces leave its log a little later", self.path
            )

    def _catch_up(self) -> None:
        """Bring the snapshot to the version in the file."""
        before = self._snapshot
        rows = self._store.read_since(before.version)
        if rows.version == before.version:
            return
        present = {int(row[0]) for row in rows.templates}  # type: ignore[arg-type]
        if rows.is_everything:
            after = first_snapshot(rows, before.fingerprint, before.dimension, self._config)
            gone: Set[int] = before.template_ids() - present
        else:
            after = next_snapshot(before, rows)
            gone = rows.touched_templates - present
        if after.is_scattered and len(after.base) <= INLINE_ROWS:
            after = compacted(after, self._config)
        self._install(after, gone)
        if after.is_scattered and not self._is_compacting:
            self._is_compacting = True
            threading.Thread(target=self._compact, args=(after,), name="gallery-compact", daemon=True).start()

    def _install(self, snapshot: Snapshot, gone: Set[int]) -> None:
        """Show a snapshot to readers, and wipe templates that are gone wherever they are still held."""
        self._snapshot = snapshot
        self._bases[snapshot.base] = snapshot.cells
        self._bases[snapshot.tail] = None
        wanted = sorted(gone)
        for block, cells in list(self._bases.items()) if wanted else ():
            rows = block.rows_of(wanted)
            block.wipe(rows)
            if cells is not None and len(rows):
                cells.renew(block, rows)

    def _compact(self, scattered: Snapshot) -> None:
        """Join base and tail of a large gallery while readers and writers go on."""
        try:
            joined = compacted(scattered, self._config)
            with self._writing:
                self._bases[joined.base] = joined.cells
                if not self._is_open:
                    return
                rows = self._store.read_since(joined.version)
                if not rows.is_everything:
                    present = {int(row[0]) for row in rows.templates}  # type: ignore[arg-type]
                    self._install(next_snapshot(joined, rows), rows.touched_templates - present)
        finally:
            self._is_compacting = False

    def follow(self) -> None:
        """Look for changes made by another process now, and end what has to end."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            if not self._is_open:
                return
            data_version = self._store.data_version()
            if data_version != self._data_version:
                self._data_version = data_version
                self._catch_up()
            if self._next_deadline is not None and self._next_deadline <= self._clock():
                self._expire_history(self._clock())
            if self._scrub_due:
                self._scrub_due = not self._store.scrub()
        finally:
            self._writing.release()

    def _expire_history(self, now: float) -> None:
        with self._writing:
            with self._writable_store().transaction() as transaction:
                dropped = self._history.expire(transaction, now)
                self._next_deadline = self._history.next_deadline(transaction)
            self._history.destroy_keys()
            if dropped:
                self._scrub(())

    def _make_history(self) -> History:
        return History(
            str(self._store.meta("gallery_id")),
            self._keys,
            self._config.undo_window_s,
            self._config.history_length,
        )

    def _writable_store(self) -> Store:
        if not self._is_open:
            raise GalleryUnavailableError(f"the gallery {self.path} was closed; open it again")
        return self._store

    def _person_after(self, edit: Edit) -> Person:
        return self._snapshot.person(edit.persons[0])

    def _has_crop(self, template_id: int) -> bool:
        query = "SELECT 1 FROM crops WHERE template_id = ?"
        return self._store.connection.execute(query, (template_id,)).fetchone() is not None

    def _seal_crop(self, template_id: int, template: NewTemplate) -> bytes | None:
        return None


def _follow(reference: weakref.ref[Gallery], stop: threading.Event, interval_s: float) -> None:
    while not stop.wait(interval_s):
        gallery = reference()
        if gallery is None:
            return
        try:
            gallery.follow()
        except Exception:
            LOGGER.exception("could not follow changes of the gallery %s", gallery.path)
        del gallery

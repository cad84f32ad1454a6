"""The gallery: who is known, found by face, changed while the robot runs.

An SQLite file is the truth (:mod:`store`); readers work on immutable snapshots and never wait for a writer.
Every change is durable before its method returns, and the next :meth:`Gallery.snapshot` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from face_recognition_node.gallery import edits, retention
from face_recognition_node.gallery.check import VerificationReport, verify
from face_recognition_node.gallery.config import GalleryConfig
from face_recognition_node.gallery.edits import Context, Edit
from face_recognition_node.gallery.engine import UNDO_WINDOW, GalleryEngine, Plan
from face_recognition_node.gallery.files import choose_keys_folder
from face_recognition_node.gallery.history import HistoryEntry
from face_recognition_node.gallery.keys import KeyRing
from face_recognition_node.gallery.reembedding import ReembeddingReport, reembed
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.store import Store
from face_recognition_node.gallery.transfer import (
    ExportReport,
    ImportConflict,
    ImportReport,
    import_report,
    plan_import,
    read_export,
    write_export,
)
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

Check = Callable[[Snapshot], None]
"""Refuses a change by raising, given the gallery as it is in the transaction."""


class Gallery:
    """Persons and their templates; safe to use from several threads, and from several processes on one file.

    Open one with :meth:`open`; use it as a context manager or call :meth:`close`.
    """

    def __init__(self, engine: GalleryEngine) -> None:
        self._engine = engine

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
        file = None if path is None else Path(path).expanduser().absolute()
        store = Store(file, fingerprint or ("" if file is None else None), dimension, must_exist, read_only)
        try:
            folder = (
                None if file is None else choose_keys_folder(file, str(store.meta("gallery_id")), keys_folder)
            )
            if config is None:
                window_s = store.setting(UNDO_WINDOW)
                config = GalleryConfig() if window_s is None else GalleryConfig(undo_window_s=window_s)
            return cls(GalleryEngine(store, KeyRing(folder), config, clock, read_only))
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; snapshots already taken stay usable."""
        self._engine.close()

    @property
    def path(self) -> Path | None:
        """The file, or None in memory."""
        return self._engine.store.path

    @property
    def fingerprint(self) -> str:
        """Of the model and alignment the embeddings come from."""
        return self._engine.snapshot.fingerprint

    @property
    def config(self) -> GalleryConfig:
        """The parameters in force."""
        return self._engine.config

    @property
    def trouble(self) -> str:
        """What is wrong with the file at present, in words; empty if nothing is known to be."""
        return self._engine.trouble

    @property
    def unfinished(self) -> str:
        """What is still to be done after people were removed, in words; empty if no byte of them is left."""
        return self._engine.unfinished

    def follow(self) -> None:
        """Take over now what another process has changed; the gallery's own thread does it now and then."""
        self._engine.follow()

    def update_config(self, config: GalleryConfig) -> None:
        """Use other parameters from the next change on (those that may change while running)."""
        self._engine.use_config(config)

    def snapshot(self) -> Snapshot:
        """Return the present version; never waits."""
        return self._engine.snapshot

    @property
    def session(self) -> Session:
        """The session under which newcomers are stored."""
        snapshot = self._engine.snapshot
        return snapshot.sessions[snapshot.session]

    # Changes. Each returns when it is durable, or raises and has changed nothing.

    def add_person(
        self,
        name: str,
        templates: Sequence[NewTemplate],
        *,
        is_stranger: bool = False,
        expires: float | None = None,
        check: Check | None = None,
    ) -> Person:
        """Store a new person, or a stranger (whose name may be empty), in the current session.

        Another process may have stored the same person since the caller looked: ``check`` is given the
        gallery as it is when the change is made, and refuses the change by raising.
        """
        return self._person(
            lambda at: edits.add_person(at, name, templates, is_stranger=is_stranger, expires=expires), check
        )

    def enroll(
        self,
        name: str,
        templates: Sequence[NewTemplate],
        absorb: Sequence[str] = (),
        *,
        check: Check | None = None,
    ) -> Person:
        """Store a person, with all that is stored of the strangers this person was known as, in one step.

        Args:
            name: The person's name.
            templates: Their new views.
            absorb: Ids of strangers. The person keeps the first one's id and the others lead to it.
            check: As of :meth:`add_person`.

        Raises:
            PersonNotFoundError: A stranger was forgotten meanwhile.
            GalleryConflictError: One got a name meanwhile, or there would be too many templates.
        """
        if not absorb:
            return self.add_person(name, templates, check=check)
        return self._person(lambda at: edits.enroll(at, name, templates, absorb), check)

    def learn(
        self, person_id: str, templates: Sequence[NewTemplate], replaced_ids: Iterable[int] = ()
    ) -> Person:
        """Store templates that the node found by itself, in place of others it had found.

        It is no step of the operator's history; :meth:`rollback_adaptation` takes it back.
        """
        ids = list(replaced_ids)
        return self._person(lambda at: edits.learn(at, person_id, templates, ids))

    def add_templates(self, person_id: str, templates: Sequence[NewTemplate]) -> Person:
        """Store more templates of a person."""
        return self._person(lambda at: edits.add_templates(at, person_id, templates))

    def rename(self, person_id: str, name: str) -> Person:
        """Give a person another name; a stranger becomes a person and keeps its id."""
        return self._person(lambda at: edits.rename(at, person_id, name))

    def merge(self, keep_id: str, other_id: str | Sequence[str]) -> Person:
        """Give all templates of the other person(s) to one; the other ids lead to it from now on."""
        others = [other_id] if isinstance(other_id, str) else list(other_id)
        return self._person(lambda at: edits.merge(at, keep_id, others))

    def split(self, template_ids: Iterable[int], name: str = "") -> Person:
        """Make a person of its own of some templates of one person; without a name it is a stranger."""
        ids = list(template_ids)
        return self._person(lambda at: edits.split(at, ids, name))

    def remove_templates(self, template_ids: Iterable[int]) -> tuple[Person, ...]:
        """Remove templates and return their owners as they are now; each must keep at least one."""
        ids = list(template_ids)
        return self._owners(lambda at: edits.remove_templates(at, ids))

    def set_aside(
        self, template_ids: Iterable[int], is_set_aside: bool = True, *, is_recorded: bool = True
    ) -> tuple[Person, ...]:
        """Keep templates out of the search (or let them in again) and return their owners.

        What the node does by itself is not recorded: undone, it would only be done again.
        """
        ids = list(template_ids)
        return self._owners(lambda at: edits.set_aside(at, ids, is_set_aside, is_recorded))

    def rollback_adaptation(self, person_id: str | None = None) -> int:
        """Remove the templates the node added by itself, of one person or of all; return how many."""
        edit = self._engine.commit(lambda at: edits.rollback_adaptation(at, person_id))
        return sum(change.table == "templates" for change in edit.changes)

    def forget(
        self, person_ids: str | Iterable[str], final: bool = False, *, session: str | None = None
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
        if not retention.strangers_among(self._engine.snapshot, wanted):
            return ()
        return self._forget(lambda snapshot: retention.strangers_among(snapshot, wanted), final=True)

    def forget_session(self, session: str, final: bool = False) -> tuple[Person, ...]:
        """Forget everybody of a session."""
        return self.forget((), final, session=session)

    def forget_all(self, final: bool = False) -> tuple[Person, ...]:
        """Forget everybody."""
        return self._forget(lambda snapshot: list(snapshot.persons), final)

    def start_run(self) -> tuple[Person, ...]:
        """Forget for good who was stored for an earlier run of the node only; the node calls it at start."""
        return self._forget(retention.members_of_runs, final=True)

    def expire(self, now: float | None = None) -> tuple[Person, ...]:
        """Forget, for good, persons and undoable removals whose time is over; return the persons."""
        moment = self._engine.clock() if now is None else now
        gone: tuple[Person, ...] = ()
        if retention.expired(self._engine.snapshot, moment):
            gone = self._forget(lambda snapshot: retention.expired(snapshot, moment), final=True)
        self._engine.end_removals(moment)
        return gone

    def set_session(
        self, name: str, kind: SessionKind | None = None, time_to_live_s: float | None = None
    ) -> Session:
        """Store newcomers under this session from now on; without a kind a known session is continued."""
        self._engine.commit(lambda at: retention.set_session(at, name, kind, time_to_live_s))
        return self.session

    def mark_seen(self, person_ids: Iterable[str], now: float | None = None) -> None:
        """Note that persons were recognised; written once a minute each, and lets strangers live on."""
        moment = self._engine.clock() if now is None else now
        ids = list(person_ids)
        if retention.due_to_be_seen(self._engine.snapshot, ids, moment, self._engine.config):
            self._engine.commit(lambda at: retention.mark_seen(at, ids, moment))

    def import_from(
        self,
        path: str | Path,
        *,
        session: str | None = None,
        on_conflict: ImportConflict = ImportConflict.MERGE,
    ) -> ImportReport:
        """Store the people of an exported file, all or none, under a session (by default the current one).

        Raises:
            GalleryUnavailableError: The file is missing, damaged or no gallery.
            GalleryMismatchError: Its embeddings come from another model or alignment.
            GalleryConflictError: Somebody is here already and that is to be refused; or an unknown session.
        """
        export = read_export(Path(path).expanduser(), self.fingerprint)
        gallery_id = str(self._engine.store.meta("gallery_id"))
        edit = self._engine.commit(lambda at: plan_import(at, export, gallery_id, session, on_conflict))
        return import_report(edit, export)

    def export_to(
        self, path: str | Path, *, person_ids: Iterable[str] | None = None, overwrite: bool = False
    ) -> ExportReport:
        """Write everybody, or some persons, to a file that :meth:`import_from` reads; whole or not at all."""
        engine = self._engine
        with engine.lock:
            engine.require_open()
            rows = engine.store.read_since(-1)
            wanted = None if person_ids is None else {self.snapshot().resolve(key) for key in person_ids}
            return write_export(engine.store, rows, Path(path).expanduser().absolute(), wanted, overwrite)

    def crop(self, template_id: int) -> ImageArray | None:
        """Return the (112, 112, 3) BGR crop of a template, or None if none is kept.

        Raises:
            GalleryUnavailableError: Its key is not on this machine, or it is damaged.
        """
        engine = self._engine
        with engine.lock:
            engine.require_open()
            query = "SELECT sealed FROM crops WHERE template_id = ?"
            row = engine.store.connection.execute(query, (template_id,)).fetchone()
        return None if row is None else engine.crops.open(template_id, row[0])

    def verify(self) -> VerificationReport:
        """Check the file, its rows, the keys and the search index; changes nothing."""
        engine = self._engine
        with engine.lock:
            engine.require_open(may_be_lost=True)
            return verify(engine.store, engine.snapshot, engine.catch_up, engine.keys)

    def reembed(
        self,
        embedder: Embedder,
        *,
        remove_without_crop: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ReembeddingReport:
        """Carry the gallery over to another model (see :func:`reembedding.reembed`); this ends undo."""
        engine = self._engine
        report = reembed(
            engine.store,
            engine.crops,
            embedder,
            engine.lock,
            remove_without_crop=remove_without_crop,
            progress=progress,
        )
        with engine.lock:
            engine.require_open()
            engine.read_everything()
            engine.destroy_orphans()
            engine.scrub(engine.store.residue())
        return report

    def undo(self, steps: int = 1) -> tuple[str, ...]:
        """Take back the latest changes, all asked for or none, and return a sentence for each.

        Raises:
            GalleryConflictError: There are not so many, or a later change stands in the way.
        """
        return self._engine.step(steps, is_redo=False)

    def redo(self, steps: int = 1) -> tuple[str, ...]:
        """Do again what was undone last, like :meth:`undo`."""
        return self._engine.step(steps, is_redo=True)

    def history(self) -> list[HistoryEntry]:
        """Return the changes that can be undone or done again, oldest first."""
        return self._engine.history()

    def _forget(self, choose: Callable[[Snapshot], list[str]], final: bool) -> tuple[Person, ...]:
        is_final = final or self._engine.config.undo_window_s == 0
        edit = self._engine.commit(lambda at: edits.forget(at, choose(at.snapshot)), is_final=is_final)
        return edit.forgotten

    def _person(self, plan: Plan, check: Check | None = None) -> Person:
        """Make a change and return the person that it is about, as it is then."""

        def checked(at: Context) -> Edit:
            if check is not None:
                check(at.snapshot)
            return plan(at)

        edit = self._engine.commit(checked)
        return self._engine.snapshot.person(edit.persons[0])

    def _owners(self, plan: Plan) -> tuple[Person, ...]:
        persons = self._engine.commit(plan).persons
        return tuple(self._engine.snapshot.persons[person_id] for person_id in persons)

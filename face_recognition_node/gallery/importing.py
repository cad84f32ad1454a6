"""Turn the content of an exported file into one change of the gallery: all of it or nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from face_recognition_node.common.errors import GalleryConflictError, GalleryMismatchError
from face_recognition_node.gallery.columns import Row
from face_recognition_node.gallery.edits import Edit, checked_name, naming, new_person_id, person_row
from face_recognition_node.gallery.row_changes import Cell, Change
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.store_schema import COLUMNS
from face_recognition_node.gallery.transaction import Transaction
from face_recognition_node.gallery.transfer import ExportFile
from face_recognition_node.gallery.values import Provenance


class ImportConflict(str, Enum):
    """What to do with a person whose id is in the gallery already.

    ``merge`` adds the templates that are new and keeps the name used here, if there is one, ``skip`` leaves
    the person as it is, ``copy`` stores it as another person, ``refuse`` imports nothing at all.
    """

    MERGE = "merge"
    SKIP = "skip"
    COPY = "copy"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import stored.

    Attributes:
        person_ids: Everybody in the file who is in the gallery now, as called here.
        n_persons: Persons who were not here before.
        n_templates: Templates stored.
        n_skipped: Templates that were here already, or belong to a person skipped.
    """

    person_ids: tuple[str, ...]
    n_persons: int
    n_templates: int
    n_skipped: int


def plan_import(
    snapshot: Snapshot,
    transaction: Transaction,
    export: ExportFile,
    *,
    gallery_id: str,
    session: str,
    on_conflict: ImportConflict,
    now: float,
    stranger_ends: float | None,
    limit: int,
) -> tuple[Edit, ImportReport]:
    """Return the change that stores the people of a file under a session, and what it amounts to.

    A stranger of another gallery gets a new number here: "stranger-7" there is not "stranger-7" here. Whoever
    has a view that is stored here already, to the last bit, is the person who has it here, whatever the ids
    say: two entries with the same views could never be told apart.

    Raises:
        GalleryConflictError: A person is here already and that is to be refused, or would have too many
            templates.
        GalleryMismatchError: Embeddings of another length.
    """
    if export.dimension != snapshot.dimension:
        raise GalleryMismatchError(
            f"expected embeddings of {snapshot.dimension} numbers, got {export.dimension}"
        )
    importer = _Import(
        snapshot, transaction, export.gallery_id == gallery_id, session, now, stranger_ends, limit
    )
    templates: dict[str, list[Row]] = {}
    for row in export.templates:
        templates.setdefault(str(row[1]), []).append(row)
    for person in export.persons:
        importer.add(person, templates.get(str(person[0]), []), on_conflict)
    for alias, person_id in export.aliases:
        importer.add_alias(str(alias), str(person_id))
    ids = tuple(dict.fromkeys(importer.ids.values()))
    sentence = f"import {len(ids)} persons with {importer.n_templates} templates"
    report = ImportReport(ids, importer.n_persons, importer.n_templates, importer.n_skipped)
    return Edit(sentence, tuple(importer.changes), ids), report


class _Import:
    def __init__(
        self,
        snapshot: Snapshot,
        transaction: Transaction,
        is_same_gallery: bool,
        session: str,
        now: float,
        stranger_ends: float | None,
        limit: int,
    ) -> None:
        self._snapshot, self._transaction = snapshot, transaction
        self._is_same_gallery = is_same_gallery
        self._session, self._now, self._stranger_ends = session, now, stranger_ends
        self._limit = limit
        self.changes: list[Change] = []
        self.ids: dict[str, str] = {}
        self.n_persons = self.n_templates = self.n_skipped = 0
        self._named: set[str] = set()
        self._owners: dict[object, str] = {
            template.embedding.tobytes(): person_id
            for person_id in snapshot.persons
            for template in snapshot.templates_of(person_id)
        }

    def add(self, row: Row, templates: list[Row], on_conflict: ImportConflict) -> None:
        person = dict(zip(COLUMNS["persons"], row, strict=True))
        old_id, is_stranger = str(person["person_id"]), bool(person["is_stranger"])
        name = checked_name(str(person["name"]), may_be_empty=True)
        label = name or old_id
        is_foreign_number = old_id.startswith("stranger-") and not self._is_same_gallery
        here = None if is_foreign_number else self._snapshot.aliases.get(old_id, old_id)
        if here not in self._snapshot.persons:
            owners = [owner for row in templates if (owner := self._owners.get(row[2]))]
            here = max(owners, key=owners.count, default=here)
        if here in self._snapshot.persons and here is not None:
            if on_conflict is ImportConflict.REFUSE:
                raise GalleryConflictError(
                    f"{label} ({old_id}) is here already; import with merge, skip or copy"
                )
            if on_conflict is ImportConflict.SKIP:
                self.n_skipped += len(templates)
                return
            if on_conflict is ImportConflict.MERGE:
                known = self._snapshot.persons[here]
                if known.is_stranger and not is_stranger and here not in self._named:
                    self._named.add(here)
                    self.changes += naming(self._snapshot, known, name)
                self._add_templates(old_id, here, templates, self._owners)
                return
        if here is None or here in self._snapshot.persons or here in self._snapshot.aliases:
            here = new_person_id(self._snapshot, self._transaction, is_stranger)
        session = self._snapshot.sessions[self._session]
        ends = [session.expiry(self._now), self._stranger_ends if is_stranger else None]
        expires = min((end for end in ends if end is not None), default=None)
        values = person_row(name, is_stranger, session.name, self._now, expires)
        self.changes.append(Change("insert", "persons", here, values))
        self.n_persons += 1
        self._add_templates(old_id, here, templates, {})

    def _add_templates(
        self, old_id: str, here: str, templates: list[Row], present: Collection[object]
    ) -> None:
        known = self._snapshot.persons.get(here)
        new = [row for row in templates if row[2] not in present]
        self.n_skipped += len(templates) - len(new)
        n_after = len(new) + (0 if known is None else known.n_templates)
        if n_after > self._limit:
            raise GalleryConflictError(
                f"{here} would have {n_after} templates, at most {self._limit} are allowed "
                "(gallery.max_templates_per_person)"
            )
        for template_id, row in zip(self._transaction.allocate("next_template", len(new)), new, strict=True):
            values: dict[str, Cell] = dict(zip(COLUMNS["templates"], row, strict=True))
            del values["template_id"]
            values |= {"person_id": here, "provenance": Provenance.IMPORTED.value}
            self.changes.append(Change("insert", "templates", template_id, values))
        self.n_templates += len(new)
        self.ids[old_id] = here

    def add_alias(self, alias: str, old_id: str) -> None:
        here = self.ids.get(old_id)
        is_foreign_number = alias.startswith("stranger-") and not self._is_same_gallery
        if here and not is_foreign_number and alias not in {*self._snapshot.persons, *self._snapshot.aliases}:
            self.changes.append(Change("insert", "aliases", alias, {"person_id": here}))

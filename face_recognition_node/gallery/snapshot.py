"""One version of the gallery, to be read without locks for as long as it is needed."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.common.errors import GalleryConflictError, InputError, PersonNotFoundError
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery.index import CellIndex, FlatIndex
from face_recognition_node.gallery.schema import PRECISIONS, PROVENANCES, Rows, Table, rows_of, with_changed
from face_recognition_node.gallery.values import Person, Provenance, SearchHit, Session, SessionKind, Template
from face_recognition_node.vision.faces import FloatArray, HeadPose, IntArray

if TYPE_CHECKING:
    from face_recognition_node.gallery.store import Store

# the index is asked for so many templates for each person wanted, for more if these are of fewer
TEMPLATES_PER_PERSON = 4


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The gallery as of one version; immutable, but forgotten embeddings are zeroed in older ones too."""

    version: int  # grows with every change
    # persons and strangers by id, in the order in which they were created, then by id
    persons: MappingProxyType[str, Person]
    sessions: Mapping[str, Session]
    session: str  # name of the current session
    fingerprint: str  # of the model and alignment the embeddings come from
    dimension: int
    table: Table  # the templates but for their embeddings, ascending id
    # the embeddings. It may hold more templates than `table`: a later version's, forgotten ones
    index: FlatIndex | CellIndex
    # former ids of merged persons, and the ids they lead to
    aliases: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def n_templates(self) -> int:
        """Number of stored templates, also those set aside."""
        return len(self.table)

    @property
    def current_session(self) -> Session:
        """The session under which newcomers are stored."""
        return self.sessions[self.session]

    @property
    def is_exact(self) -> bool:
        """Whether a search compares every template."""
        return isinstance(self.index, FlatIndex)

    def embeddings(self) -> FloatArray:
        """Return the (n, D) embeddings of all templates, ascending id; a copy."""
        return self.index.embeddings(self.table["template_id"])

    def resolve(self, person_id: str) -> str:
        """Return the id under which a person is known today (after merges), or raise PersonNotFoundError."""
        person_id = self.aliases.get(person_id, person_id)
        if person_id not in self.persons:
            raise PersonNotFoundError(f"nobody has the id {person_id!r}; see the list of persons")
        return person_id

    def person(self, person_id: str) -> Person:
        """Return a person by present or former id, or raise PersonNotFoundError."""
        return self.persons[self.resolve(person_id)]

    def templates_of(self, person_id: str) -> tuple[Template, ...]:
        """Return the templates of a person, ascending id, or raise PersonNotFoundError."""
        return self.templates(self.person(person_id).template_ids)

    def templates(self, template_ids: Iterable[int]) -> tuple[Template, ...]:
        """Return templates by id, ascending; GalleryConflictError if one of them is not there."""
        asked = set(template_ids)
        wanted = np.array(sorted(number for number in asked if 0 < number < 1 << 63), np.int64)
        rows = self.table[rows_of(self.table, wanted)]
        if len(rows) < len(asked):
            missing = sorted(asked - set(rows["template_id"].tolist()))
            raise GalleryConflictError(f"there are no templates with the ids {missing}")
        return tuple(
            Template(
                template_id=int(row["template_id"]),
                person_id=row["person_id"],
                embedding=embedding,
                quality=float(row["quality"]),
                pose=HeadPose(*row["pose"].tolist()),
                provenance=Provenance(PROVENANCES[row["provenance"]]),
                created=float(row["created"]),
                precision=PRECISIONS[row["precision"]],
                is_set_aside=bool(row["is_set_aside"]),
            )
            for row, embedding in zip(rows, self.index.embeddings(wanted), strict=True)
        )

    def search(self, queries: ArrayLike, per_query: int = 32) -> list[tuple[SearchHit, ...]]:
        """Return for each query the ``per_query`` most similar persons, each once with the best template.

        Queries are (Q, D) unit vectors, Q >= 0; the Q tuples are in descending order of similarity.

        Raises:
            InputError: Of the wrong shape, or not finite.
        """
        array = np.asarray(queries, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != self.dimension:
            raise InputError(f"queries: expected shape (Q, {self.dimension}), got {array.shape}")
        if not np.isfinite(array).all():
            raise InputError("queries: expected finite numbers, got NaN or infinity")
        if per_query < 1:
            raise InputError(f"per_query: expected at least 1, got {per_query}")
        if len(array) == 0 or self.n_templates == 0:
            return [()] * len(array)
        array, k = np.ascontiguousarray(array), TEMPLATES_PER_PERSON * per_query
        while True:
            similarities, ids = self.index.search(array, k, per_query)
            found = [
                self._persons(values, these, per_query)
                for values, these in zip(similarities.tolist(), ids, strict=True)
            ]
            if all(len(one) == per_query or these[-1] < 0 for one, these in zip(found, ids, strict=True)):
                return found
            k *= 4  # many templates of few people are in front

    def _persons(self, similarities: list[float], template_ids: IntArray, n: int) -> tuple[SearchHit, ...]:
        """Return the first template of each of the first n persons, of those that this version shows."""
        places = np.minimum(np.searchsorted(self.table["template_id"], template_ids), len(self.table) - 1)
        rows = self.table[places]
        is_shown = (rows["template_id"] == template_ids) & (rows["is_set_aside"] == 0)
        best: dict[str, SearchHit] = {}
        for at in np.flatnonzero(is_shown).tolist():
            row = rows[at]
            person_id = row["person_id"]
            if person_id not in best:
                quality = float(row["quality"])
                best[person_id] = SearchHit(person_id, similarities[at], int(template_ids[at]), quality)
                if len(best) == n:
                    break
        return tuple(best.values())


class LiveSnapshot:
    """The snapshot that readers see, which follows the file."""

    def __init__(self, store: Store, config: GalleryConfig) -> None:
        self._store, self._config = store, config
        self._indexes: weakref.WeakSet[FlatIndex | CellIndex] = weakref.WeakSet()
        self.snapshot: Snapshot
        self.read_everything()

    def read_everything(self) -> None:
        """Make the snapshot anew from the file."""
        self._show(_first(self._store.read_since(-1), self._store, self._config), frozenset())

    def catch_up(self) -> Snapshot:
        """Bring the snapshot to the version in the file and return it."""
        before = self.snapshot
        rows = self._store.read_since(before.version)
        if rows.version == before.version:
            return before
        ids = set(rows.templates["template_id"].tolist())
        if rows.is_everything:
            self._store.check_fingerprint(before.fingerprint, before.dimension)
            self._show(
                _first(rows, self._store, self._config), set(before.table["template_id"].tolist()) - ids
            )
        else:
            self._show(_next(before, rows, self._config), set(rows.touched_templates) - ids)
        return self.snapshot

    def _show(self, snapshot: Snapshot, gone: Set[int]) -> None:
        """Show a snapshot to readers, and wipe templates that are gone wherever they are still held."""
        self.snapshot = snapshot
        self._indexes.add(snapshot.index)
        for index in list(self._indexes) if gone else ():
            index.wipe(np.array(sorted(gone), np.int64))


def _first(rows: Rows, store: Store, config: GalleryConfig) -> Snapshot:
    """Return the snapshot of a whole gallery."""
    return Snapshot(
        version=rows.version,
        persons=MappingProxyType(_persons(rows)),
        sessions=MappingProxyType(_sessions(rows)),
        session=rows.session,
        fingerprint=str(store.meta("fingerprint")),
        dimension=int(store.meta("dimension")),
        table=rows.templates,
        index=_index(rows.templates, rows.embeddings, config),
        aliases=MappingProxyType({str(alias): str(person_id) for alias, person_id in rows.aliases}),
    )


def _next(before: Snapshot, rows: Rows, config: GalleryConfig) -> Snapshot:
    """Return ``before`` with the touched rows replaced."""
    table, index = before.table, before.index
    touched = np.array(sorted(rows.touched_templates), np.int64)
    if len(touched):
        # People forgotten for good are not in the log; their templates are gone or somebody else's.
        whose = ["template_id", "person_id"]
        owners = dict(rows.templates[whose].tolist())
        earlier = before.table[rows_of(before.table, touched)][whose].tolist()
        lost = {owner for template_id, owner in earlier if owners.get(template_id) != owner}
        rows = replace(rows, touched_persons=rows.touched_persons | lost)
    aliases = before.aliases.copy()
    for alias in (alias for alias, owner in before.aliases.items() if owner in rows.touched_persons):
        del aliases[alias]
    aliases.update((str(alias), str(person_id)) for alias, person_id in rows.aliases)
    if len(touched):
        table = with_changed(before.table, touched, rows.templates)
        index = _next_index(before, table, touched, rows, config)
    return replace(
        before,
        version=rows.version,
        persons=MappingProxyType(_persons_after(before.persons, rows)),
        sessions=MappingProxyType(_sessions(rows)),
        session=rows.session,
        table=table,
        index=index,
        aliases=MappingProxyType(aliases),
    )


def _index(table: Table, embeddings: FloatArray, config: GalleryConfig) -> FlatIndex | CellIndex:
    ids = np.ascontiguousarray(table["template_id"])
    if len(table) > config.exact_limit:
        return CellIndex(ids, table["person_id"], embeddings, config.index_threads)
    return FlatIndex(ids, embeddings, config.index_threads)


def _next_index(
    before: Snapshot, table: Table, touched: IntArray, rows: Rows, config: GalleryConfig
) -> FlatIndex | CellIndex:
    """Return the index of the next version: a flat one is copied, cells grow in place while there is room."""
    new = rows.templates
    present = before.table["template_id"]
    is_added = ~np.isin(new["template_id"], present)
    added, embeddings = new["template_id"][is_added], rows.embeddings[is_added]
    gone = rows_of(before.table, np.setdiff1d(touched, new["template_id"]))
    if not len(added) and not len(gone):
        return before.index
    if isinstance(before.index, CellIndex) and (
        not len(added) or before.index.add(added, new["person_id"][is_added], embeddings)
    ):
        return before.index
    kept = np.delete(present, gone)
    everything = np.insert(before.index.embeddings(kept), np.searchsorted(kept, added), embeddings, axis=0)
    return _index(table, everything, config)


def _persons_after(before: Mapping[str, Person], rows: Rows) -> dict[str, Person]:
    """Return the persons with the touched ones replaced, in the order of :attr:`Snapshot.persons`."""
    persons, touched = dict(before), _persons(rows)
    for person_id in rows.touched_persons - touched.keys():
        persons.pop(person_id, None)
    last = _rank(persons[next(reversed(persons))]) if persons else (-math.inf, "")
    persons.update(touched)
    # Who was there keeps the place, a newcomer is the last: sorting is for those who come back (undo, import)
    # and for merged persons, who take over the earlier date.
    is_in_order = all(
        person.created == before[person_id].created if person_id in before else _rank(person) > last
        for person_id, person in touched.items()
    )
    return persons if is_in_order else dict(sorted(persons.items(), key=lambda item: _rank(item[1])))


def _rank(person: Person) -> tuple[float, str]:
    return person.created, person.person_id


def _persons(rows: Rows) -> dict[str, Person]:
    templates: dict[str, list[int]] = {}
    counts: Counter[tuple[str, int]] = Counter()
    for template_id, owner, provenance in rows.templates[["template_id", "person_id", "provenance"]].tolist():
        templates.setdefault(owner, []).append(template_id)
        counts[owner, provenance] += 1
    aliases: dict[str, list[str]] = {}
    for alias, person_id in rows.aliases:
        aliases.setdefault(str(person_id), []).append(str(alias))
    persons = {}
    for person_id, name, is_stranger, session, created, expires, last_seen in rows.persons:
        persons[str(person_id)] = Person(
            person_id=str(person_id),
            name=str(name),
            is_stranger=bool(is_stranger),
            session=str(session),
            created=float(created),  # type: ignore[arg-type]
            expires=None if expires is None else float(expires),
            last_seen=None if last_seen is None else float(last_seen),
            template_ids=tuple(templates.get(str(person_id), ())),
            n_enrolled=counts[str(person_id), PROVENANCES.index("enrolled")],
            n_adapted=counts[str(person_id), PROVENANCES.index("adapted")],
            n_imported=counts[str(person_id), PROVENANCES.index("imported")],
            aliases=tuple(sorted(aliases.get(str(person_id), ()))),
        )
    return persons


def _sessions(rows: Rows) -> dict[str, Session]:
    return {
        str(name): Session(str(name), SessionKind(kind), None if seconds is None else float(seconds))
        for name, kind, seconds in rows.sessions
    }

"""Make the next snapshot from the present one and the rows that were touched."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from face_recognition_node.gallery.cell_search import CellIndex, CellSearch
from face_recognition_node.gallery.columns import PROVENANCES, Columns, IntArray
from face_recognition_node.gallery.config import GalleryConfig
from face_recognition_node.gallery.exact_search import ExactSearch
from face_recognition_node.gallery.snapshot import Searcher, Snapshot
from face_recognition_node.gallery.store_reading import Rows
from face_recognition_node.gallery.template_block import TemplateBlock
from face_recognition_node.gallery.values import Person, Provenance, Session, SessionKind


def first_snapshot(rows: Rows, fingerprint: str, dimension: int, config: GalleryConfig) -> Snapshot:
    """Return the snapshot of a whole gallery."""
    base, cells = _base(rows.templates, config)
    tail, dead = base.nothing(), np.zeros(0, np.int64)
    return Snapshot(
        version=rows.version,
        persons=MappingProxyType(_persons(rows)),
        sessions=MappingProxyType(_sessions(rows)),
        session=rows.session,
        fingerprint=fingerprint,
        dimension=dimension,
        base=base,
        tail=tail,
        dead=dead,
        cells=cells,
        searcher=_searcher(base, cells, tail, dead),
        aliases=MappingProxyType({str(alias): str(person_id) for alias, person_id in rows.aliases}),
    )


def next_snapshot(before: Snapshot, rows: Rows) -> Snapshot:
    """Return ``before`` with the touched rows replaced; the base is shared, so that the cost stays small."""
    persons = _persons_after(before.persons, rows)
    aliases = before.aliases.copy()
    for alias in (alias for alias, owner in before.aliases.items() if owner in rows.touched_persons):
        del aliases[alias]
    aliases.update((str(alias), str(person_id)) for alias, person_id in rows.aliases)
    touched = sorted(rows.touched_templates)
    tail, dead, searcher = before.tail, before.dead, before.searcher
    if touched:
        dead = np.union1d(dead, before.base.rows_of(touched))
        kept = np.delete(np.arange(len(tail)), tail.rows_of(touched))
        columns = tail.columns.take(kept).joined(rows.templates)
        tail = TemplateBlock(columns)
        searcher = _searcher(before.base, before.cells, tail, dead)
    return replace(
        before,
        version=rows.version,
        persons=MappingProxyType(persons),
        sessions=MappingProxyType(_sessions(rows)),
        session=rows.session,
        tail=tail,
        dead=dead,
        searcher=searcher,
        aliases=MappingProxyType(aliases),
    )


def compacted(snapshot: Snapshot, config: GalleryConfig) -> Snapshot:
    """Return the same content with an empty tail and nothing dead."""
    alive = np.delete(np.arange(len(snapshot.base)), snapshot.dead)
    columns = snapshot.base.columns.take(alive).joined(snapshot.tail.columns)
    base, cells = _base(columns, config)
    tail, dead = base.nothing(), np.zeros(0, np.int64)
    searcher = _searcher(base, cells, tail, dead)
    return replace(snapshot, base=base, tail=tail, dead=dead, cells=cells, searcher=searcher)


def _base(columns: Columns, config: GalleryConfig) -> tuple[TemplateBlock, CellIndex | None]:
    is_large = len(columns) > config.exact_limit
    block = TemplateBlock(columns, is_column_major=not is_large)
    return block, CellIndex(block, config.index_threads) if is_large else None


def _searcher(base: TemplateBlock, cells: CellIndex | None, tail: TemplateBlock, dead: IntArray) -> Searcher:
    return ExactSearch(base, tail, dead) if cells is None else CellSearch(base, cells, tail, dead)


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
    counts: Counter[tuple[str, str]] = Counter()
    for owners, ids, provenances in _memberships(rows):
        for owner, template_id in zip(owners, ids, strict=True):
            templates.setdefault(owner, []).append(template_id)
        counts.update(zip(owners, provenances, strict=True))
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
            n_enrolled=counts[str(person_id), Provenance.ENROLLED.value],
            n_adapted=counts[str(person_id), Provenance.ADAPTED.value],
            n_imported=counts[str(person_id), Provenance.IMPORTED.value],
            aliases=tuple(sorted(aliases.get(str(person_id), ()))),
        )
    return persons


def _memberships(rows: Rows) -> Iterator[tuple[list[str], list[int], list[str]]]:
    """Yield persons, template ids and provenances, of equal length, in pieces."""
    if not rows.is_everything:
        yield (
            [str(row[0]) for row in rows.memberships],
            [int(row[1]) for row in rows.memberships],  # type: ignore[arg-type]  # an integer key
            [str(row[2]) for row in rows.memberships],
        )
        return
    names = [provenance.value for provenance in PROVENANCES]
    for start in range(0, len(rows.templates), 20000):
        part = slice(start, start + 20000)
        provenances = [names[code] for code in rows.templates.codes[part, 0].tolist()]
        yield (
            rows.templates.person_ids[part].tolist(),
            rows.templates.template_ids[part].tolist(),
            provenances,
        )


def _sessions(rows: Rows) -> dict[str, Session]:
    return {
        str(name): Session(str(name), SessionKind(kind), None if seconds is None else float(seconds))
        for name, kind, seconds in rows.sessions
    }

"""One version of the gallery, to be read without locks for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.core.errors import GalleryConflictError, InputError, PersonNotFoundError
from face_recognition_node.core.faces import FloatArray
from face_recognition_node.core.gallery_values import Match, Person, Session, Template
from face_recognition_node.core.template_block import HIDDEN, IntArray, TemplateBlock


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The gallery as of one version; immutable, but forgotten embeddings are zeroed in older snapshots too.

    Templates lie in a large ``base`` and a small ``tail``. A change makes a new tail and marks what it
    replaces in the base as dead, so that its cost does not grow with the gallery; now and then the gallery
    joins the two.

    Attributes:
        version: Grows with every change.
        persons: Persons and strangers by id.
        sessions: Sessions by name.
        session: Name of the current session.
        fingerprint: Of the model and alignment the embeddings come from.
        dimension: Length of an embedding.
        base: Most templates.
        tail: Templates stored or changed since the base was made; they replace rows of the base.
        dead: Rows of the base that are no longer there, ascending.
    """

    version: int
    persons: Mapping[str, Person]
    sessions: Mapping[str, Session]
    session: str
    fingerprint: str
    dimension: int
    base: TemplateBlock
    tail: TemplateBlock
    dead: IntArray
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def n_templates(self) -> int:
        """Number of stored templates, also those set aside."""
        return len(self.base) - len(self.dead) + len(self.tail)

    def resolve(self, person_id: str) -> str:
        """Return the id under which a person is known today (after merges).

        Raises:
            PersonNotFoundError: There is no such person.
        """
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
        """Return templates by id, ascending.

        Raises:
            GalleryConflictError: One of them is not there.
        """
        wanted = sorted(set(template_ids))
        found = {}
        for block, rows in self._locate(wanted):
            for row in rows.tolist():
                template = block.template(row)
                found[template.template_id] = template
        missing = [template_id for template_id in wanted if template_id not in found]
        if missing:
            raise GalleryConflictError(f"there are no templates with the ids {missing}")
        return tuple(found[template_id] for template_id in wanted)

    def _locate(self, template_ids: Sequence[int]) -> list[tuple[TemplateBlock, IntArray]]:
        rows = self.base.rows_of(template_ids)
        return [
            (self.base, rows[~np.isin(rows, self.dead)]),
            (self.tail, self.tail.rows_of(template_ids)),
        ]

    def search(self, queries: ArrayLike, per_query: int = 32) -> list[tuple[Match, ...]]:
        """Return for each query the most similar persons, each with its best template.

        Args:
            queries: (Q, D) unit vectors; Q may be 0.
            per_query: How many persons at most.

        Returns:
            Q tuples, descending similarity, every person at most once.

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
        if len(array) == 0:
            return []
        return self._search_exactly(np.ascontiguousarray(array), per_query)

    def _search_exactly(self, queries: FloatArray, per_query: int) -> list[tuple[Match, ...]]:
        found: list[list[Match]] = [[] for _ in range(len(queries))]
        for block, hidden in (
            (self.base, np.union1d(self.dead, self.base.set_aside)),
            (self.tail, self.tail.set_aside),
        ):
            if len(block) == 0:
                continue
            for matches, new in zip(found, _search_block(block, hidden, queries, per_query), strict=True):
                matches += new
        return [_distinct(matches, per_query) for matches in found]


def _search_block(
    block: TemplateBlock, hidden: IntArray, queries: FloatArray, per_query: int
) -> list[list[Match]]:
    similarities = block.similarities(queries)
    similarities[:, hidden] = HIDDEN
    best = block.best_of_persons(similarities)
    n_queries, n_persons = best.shape
    k = min(per_query, n_persons)
    slots = np.argpartition(best, n_persons - k, axis=1)[:, n_persons - k :] if k < n_persons else None
    if slots is None:
        slots = np.broadcast_to(np.arange(n_persons), best.shape)
    query = np.repeat(np.arange(n_queries), k)
    slot = slots.ravel()
    value = best[query, slot]
    rows = block.find_rows(similarities, query, slot, value)
    ids, quality = block.columns.template_ids[rows].tolist(), block.columns.quality[rows].tolist()
    matches = [
        Match(block.person_ids[s], v, template_id, q)
        for s, v, template_id, q in zip(slot.tolist(), value.tolist(), ids, quality, strict=True)
    ]
    return [
        [match for match in matches[start : start + k] if match.similarity > HIDDEN]
        for start in range(0, n_queries * k, k)
    ]


def _distinct(matches: list[Match], per_query: int) -> tuple[Match, ...]:
    best: dict[str, Match] = {}
    for match in sorted(matches, key=lambda match: (-match.similarity, match.person_id, match.template_id)):
        best.setdefault(match.person_id, match)
    return tuple(list(best.values())[:per_query])

"""One version of the gallery, to be read without locks for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.common.errors import GalleryConflictError, InputError, PersonNotFoundError
from face_recognition_node.gallery.cell_search import CellIndex
from face_recognition_node.gallery.columns import Columns, IntArray
from face_recognition_node.gallery.template_block import TemplateBlock
from face_recognition_node.gallery.values import Match, Person, Session, Template
from face_recognition_node.vision.faces import FloatArray


class Searcher(Protocol):
    """Finds the persons most similar to queries in one version of the gallery."""

    def search(self, queries: FloatArray, per_query: int) -> list[tuple[Match, ...]]:
        """Return the best persons for (Q, D) unit vectors, Q > 0, each at most once, best first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The gallery as of one version; immutable, but forgotten embeddings are zeroed in older snapshots too.

    Templates lie in a large ``base`` and a small ``tail``. A change makes a new tail and marks what it
    replaces in the base as dead, so that its cost does not grow with the gallery; now and then the gallery
    joins the two.

    Attributes:
        version: Grows with every change.
        persons: Persons and strangers by id, in the order in which they were created, then by id.
        sessions: Sessions by name.
        session: Name of the current session.
        fingerprint: Of the model and alignment the embeddings come from.
        dimension: Length of an embedding.
        base: Most templates.
        tail: Templates stored or changed since the base was made; they replace rows of the base.
        dead: Rows of the base that are no longer there, ascending.
        cells: Index of a large base, or None.
        searcher: Finds persons in base and tail.
        aliases: Former ids of merged persons, and the ids they lead to.
    """

    version: int
    persons: MappingProxyType[str, Person]
    sessions: Mapping[str, Session]
    session: str
    fingerprint: str
    dimension: int
    base: TemplateBlock
    tail: TemplateBlock
    dead: IntArray
    cells: CellIndex | None
    searcher: Searcher
    aliases: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def n_templates(self) -> int:
        """Number of stored templates, also those set aside."""
        return len(self.base) - len(self.dead) + len(self.tail)

    @property
    def is_scattered(self) -> bool:
        """Whether tail and dead rows have grown so much that joining them with the base pays."""
        return len(self.tail) + len(self.dead) > min(4096, max(256, len(self.base) // 20))

    def template_ids(self) -> set[int]:
        """Return the ids of all templates."""
        alive = np.delete(self.base.columns.template_ids, self.dead)
        return set(alive.tolist()) | set(self.tail.columns.template_ids.tolist())

    def all_columns(self) -> Columns:
        """Return a copy of all templates, ascending id."""
        alive = np.delete(np.arange(len(self.base)), self.dead)
        columns = self.base.columns.take(alive).joined(self.tail.columns)
        return columns.take(np.argsort(columns.template_ids))

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
        return self.searcher.search(np.ascontiguousarray(array), per_query)

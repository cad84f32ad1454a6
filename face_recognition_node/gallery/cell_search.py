"""Search among very many templates: first the likely persons, then all templates of those.

An inverted-file index (Jégou, Douze, Schmid, "Product quantization for nearest neighbor search", 2011) whose
cells are not learnt by k-means but given: a cell holds the templates of one person, and its centroid is
their normalised mean. A query is compared with all centroids (FAISS) and then with every template of the
best cells. Embeddings of different people are spread evenly over the sphere: k-means cells would have to be
visited by the hundreds for the recall that person cells reach with dozens, and these need no training.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from face_recognition_node.gallery.columns import IntArray, unit_rows
from face_recognition_node.gallery.exact_search import HIDDEN, ExactSearch
from face_recognition_node.gallery.template_block import TemplateBlock
from face_recognition_node.gallery.values import Match
from face_recognition_node.vision.faces import FloatArray

# FAISS takes 14 MB, for which a gallery of ordinary size has no use: the first CellIndex imports it. That it
# is not installed must be told at the start, not at template 50,001.
if importlib.util.find_spec("faiss") is None:
    raise ModuleNotFoundError("No module named 'faiss'", name="faiss")

CELL_ROWS = 32
"""A person with more templates than this gets several cells, in the order they were stored."""

MINIMUM_CELLS = 96
"""So many cells are opened for a query, or three for every person asked for if that is more."""


class CellIndex:
    """The centroids of the cells of a block.

    Args:
        block: The templates.
        threads: FAISS compares with so many threads.
    """

    def __init__(self, block: TemplateBlock, threads: int) -> None:
        import faiss

        self._faiss, self._threads = faiss, threads
        counts = np.diff(block.starts)
        cells_of_slot = -(-counts // CELL_ROWS)
        self.slots: IntArray = np.repeat(np.arange(len(counts)), cells_of_slot)
        first_cell = np.concatenate([[0], np.cumsum(cells_of_slot)[:-1]])
        within = np.arange(len(self.slots)) - first_cell[self.slots]
        self.starts: IntArray = block.starts[:-1][self.slots] + within * CELL_ROWS
        self.lengths: IntArray = np.minimum(counts[self.slots] - within * CELL_ROWS, CELL_ROWS)
        sums = np.add.reduceat(block.columns.embeddings, self.starts, axis=0)
        self._index = faiss.IndexFlatIP(sums.shape[1])
        self._index.add(unit_rows(sums))

    def nearest(self, queries: FloatArray, n: int) -> IntArray:
        """Return the (Q, n) cells whose centroids are most similar, best first; n is cut to what there is."""
        # The number is a setting of the calling thread, and other users of FAISS may have set it.
        self._faiss.omp_set_num_threads(self._threads)
        _, cells = self._index.search(queries, min(n, len(self.starts)))
        return np.asarray(cells, np.int64)

    def renew(self, block: TemplateBlock, rows: IntArray) -> None:
        """Compute anew, in place, the centroids of the cells that hold ``rows``, which were wiped."""
        centroids = self._faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._index.d)
        centroids = centroids.reshape(self._index.ntotal, self._index.d)
        for cell in np.unique(np.searchsorted(self.starts, rows, side="right") - 1).tolist():
            start = int(self.starts[cell])
            members = block.columns.embeddings[start : start + int(self.lengths[cell])]
            centroids[cell] = unit_rows(members.sum(axis=0, keepdims=True))[0]


class CellSearch:
    """Finds persons in a base with a cell index and a small tail that is searched exactly.

    Args:
        base: Most templates, row by row.
        cells: Their index.
        tail: The others; they replace the dead rows of the base.
        dead: Rows of the base that are no longer there, ascending.
    """

    def __init__(self, base: TemplateBlock, cells: CellIndex, tail: TemplateBlock, dead: IntArray) -> None:
        self._base, self._cells, self._tail = base, cells, tail
        self._hidden = np.union1d(dead, base.set_aside)
        nothing = np.zeros(0, np.int64)
        self._tail_search = ExactSearch(tail, tail.nothing(), nothing)

    def search(self, queries: FloatArray, per_query: int) -> list[tuple[Match, ...]]:
        """Return the best persons for (Q, D) unit vectors, Q > 0, best first."""
        nearest = self._cells.nearest(queries, max(MINIMUM_CELLS, 3 * per_query))
        in_tail = self._tail_search.search(queries, per_query)
        return [
            _best_of_each([*self._best_of_cells(query, cells), *rest], per_query)
            for query, cells, rest in zip(queries, nearest, in_tail, strict=True)
        ]

    def _best_of_cells(self, query: FloatArray, cells: IntArray) -> list[Match]:
        """Return the best template of each cell; one query at a time, so that its rows stay in the cache."""
        columns, person_ids = self._base.columns, self._base.person_ids
        lengths = self._cells.lengths[cells]
        ends = np.cumsum(lengths)
        firsts = ends - lengths
        rows = np.arange(ends[-1]) + np.repeat(self._cells.starts[cells] - firsts, lengths)
        similarities = columns.embeddings.take(rows, axis=0) @ query
        if len(self._hidden):
            at = np.minimum(np.searchsorted(self._hidden, rows), len(self._hidden) - 1)
            similarities[self._hidden[at] == rows] = HIDDEN
        best = np.maximum.reduceat(similarities, firsts)
        hits = np.flatnonzero(similarities == np.repeat(best, lengths))
        rows = rows[hits[np.searchsorted(hits, firsts)]]  # the first hit of each cell
        return [
            Match(person_ids[slot], value, template_id, quality)
            for slot, value, template_id, quality in zip(
                self._cells.slots[cells].tolist(),
                best.tolist(),
                columns.template_ids[rows].tolist(),
                columns.quality[rows].tolist(),
                strict=True,
            )
            if value > HIDDEN
        ]


def _best_of_each(matches: Sequence[Match], n: int) -> tuple[Match, ...]:
    best: dict[str, Match] = {}
    for match in sorted(matches, key=lambda match: -match.similarity):
        best.setdefault(match.person_id, match)
    return tuple(best.values())[:n]

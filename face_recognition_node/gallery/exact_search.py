"""Compare queries with every template and keep the best of each person."""

from __future__ import annotations

import os
from functools import partial

import numpy as np

from face_recognition_node.gallery.columns import IntArray
from face_recognition_node.gallery.template_block import TemplateBlock
from face_recognition_node.gallery.values import Match
from face_recognition_node.vision.faces import FloatArray

HIDDEN = np.float32(-2.0)
"""Similarity of a row that must not be found; no cosine is that low."""

_CHUNK_PRODUCT = 10**6 if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 2**18
"""The matrix is visited in pieces of at most this many multiplications, for two reasons. OpenBLAS wakes its
pool of threads for products above 2**18, which on a busy two-core robot costs milliseconds for a job of
microseconds. And where it has kernels for small products (AVX-512), those take up to 10**6 without copying
the matrix first: half the time of one large product."""


class ExactSearch:
    """Finds the best template of every person by looking at all of them.

    FAISS's flat index returns templates, not persons, and would have to be asked for more and more of them
    until enough different persons are among them; one product and one grouped maximum cost less.

    Args:
        base: Most templates.
        tail: The others; they replace the dead rows of the base.
        dead: Rows of the base that are no longer there.
    """

    def __init__(self, base: TemplateBlock, tail: TemplateBlock, dead: IntArray) -> None:
        self._base, self._tail = base, tail
        n_base = len(base)
        self._hidden: IntArray = np.concatenate([dead, base.set_aside, n_base + tail.set_aside])
        self._starts: IntArray = np.concatenate([base.starts, n_base + tail.starts[1:]])
        self._person_ids = base.person_ids + tail.person_ids
        # A person with rows in both blocks forms two groups; only the better one may be answered.
        shared = [person_id for person_id in tail.person_ids if person_id in base.slots]
        self._in_base: IntArray = np.array([base.slots[person_id] for person_id in shared], np.int64)
        self._in_tail: IntArray = np.array(
            [len(base.person_ids) + tail.slots[person_id] for person_id in shared], np.int64
        )

    def search(self, queries: FloatArray, per_query: int) -> list[tuple[Match, ...]]:
        """Return the best persons for (Q, D) unit vectors, Q > 0, best first."""
        n_queries, n_groups = len(queries), len(self._person_ids)
        if n_groups == 0:
            return [()] * n_queries
        similarities = self._similarities(queries)
        if len(self._hidden):
            similarities[:, self._hidden] = HIDDEN
        best = np.maximum.reduceat(similarities, self._starts[:-1], axis=1)
        if len(self._in_base):
            self._keep_better_group(best)
        groups, values = _largest(best, min(per_query, n_groups))
        rows = self._find_rows(similarities, groups, values)
        return self._matches(groups, values, rows)

    def _similarities(self, queries: FloatArray) -> FloatArray:
        n_queries, dimension = queries.shape
        n_base = len(self._base)
        out = np.empty((n_queries, n_base + len(self._tail)), np.float32)
        step = max(64, _CHUNK_PRODUCT // (n_queries * dimension))
        for first, block in ((0, self._base), (n_base, self._tail)):
            columns = block.columns.embeddings.T
            for start in range(0, len(block), step):
                piece = columns[:, start : start + step]
                np.matmul(queries, piece, out=out[:, first + start : first + start + piece.shape[1]])
        return out

    def _keep_better_group(self, best: FloatArray) -> None:
        in_base, in_tail = best[:, self._in_base], best[:, self._in_tail]
        is_base = in_base >= in_tail
        best[:, self._in_base] = np.where(is_base, in_base, HIDDEN)
        best[:, self._in_tail] = np.where(is_base, HIDDEN, in_tail)

    def _find_rows(self, similarities: FloatArray, groups: IntArray, values: FloatArray) -> IntArray:
        """Return for each (query, group) the first row of the group that has the value."""
        starts = self._starts[groups]
        lengths = self._starts[groups + 1] - starts
        first = starts + (np.arange(len(groups)) * similarities.shape[1])[:, None]
        # Groups of different lengths are made equally long: short ones repeat their last row.
        candidates = first[..., None] + np.minimum(np.arange(lengths.max()), lengths[..., None] - 1)
        seen = similarities.ravel().take(candidates)
        found: IntArray = starts + (seen == values[..., None]).argmax(axis=2)
        return found

    def _matches(self, groups: IntArray, values: FloatArray, rows: IntArray) -> list[tuple[Match, ...]]:
        n_base = len(self._base)
        base, tail = self._base.columns, self._tail.columns
        if len(tail) == 0:
            ids, quality = base.template_ids[rows], base.quality[rows]
        else:
            is_tail = rows >= n_base
            ids = np.empty(rows.shape, np.int64)
            quality = np.empty(rows.shape, np.float32)
            ids[~is_tail], quality[~is_tail] = base.template_ids[rows[~is_tail]], base.quality[rows[~is_tail]]
            in_tail = rows[is_tail] - n_base
            ids[is_tail], quality[is_tail] = tail.template_ids[in_tail], tail.quality[in_tail]
        n_found = (values > HIDDEN).sum(axis=1).tolist()
        names = [self._person_ids[group] for group in groups.ravel().tolist()]
        fields = (names, values.ravel().tolist(), ids.ravel().tolist(), quality.ravel().tolist())
        matches = list(map(_match, zip(*fields, strict=True)))
        k = groups.shape[1]
        return [tuple(matches[query * k : query * k + n]) for query, n in enumerate(n_found)]


def _largest(best: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the (Q, k) columns of the largest numbers of each row and the numbers, largest first."""
    n_rows, n_columns = best.shape
    # finding the k-th number and comparing with it is twice as fast as np.argpartition
    flat = np.flatnonzero(best >= np.partition(best, -k, axis=1)[:, -k, None])
    first = (np.arange(n_rows) * n_columns)[:, None]  # flat positions are taken faster than pairs
    if len(flat) == n_rows * k:
        columns = flat.reshape(n_rows, k) - first
    else:  # equal numbers: more than k reach the k-th
        columns = np.argpartition(best, -k, axis=1)[:, -k:]
    values = best.ravel().take(columns + first)
    order = values.argsort(axis=1)[:, ::-1] + (np.arange(n_rows) * k)[:, None]
    return columns.ravel().take(order), values.ravel().take(order)


_match = partial(tuple.__new__, Match)
"""``Match._make`` without its own call: a third of the time of a search went into making the answers."""

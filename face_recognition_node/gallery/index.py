"""Search among templates with FAISS: all of them, or the cells of the likely persons."""

from __future__ import annotations

import importlib.util
import threading
import weakref
from typing import Any

import numpy as np

from face_recognition_node.vision.faces import FloatArray, IntArray

# FAISS is imported late, for it takes a while. That it is missing must be reported at the start.
if importlib.util.find_spec("faiss") is None:
    raise ModuleNotFoundError("No module named 'faiss'", name="faiss")

# so many cells are searched for a query, or three for every person asked for if that is more
MINIMUM_CELLS = 96
# a new cell index has room for so many persons more, or for a quarter more if that is more
SPARE_CELLS = 1000


class FlatIndex:
    """Compares a query with every template (``IndexFlatIP``): (n,) rising ids and (n, D) unit vectors."""

    def __init__(self, template_ids: IntArray, embeddings: FloatArray, threads: int) -> None:
        import faiss

        self.template_ids, self.threads = template_ids, threads
        self._faiss = faiss
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(np.ascontiguousarray(embeddings))
        # Memory that is given back may keep its content for long; faces must not stay there.
        weakref.finalize(self, _zero_flat, self._index).atexit = False

    def search(self, queries: FloatArray, k: int, n_persons: int) -> tuple[FloatArray, IntArray]:
        """Return (Q, k) similarities and template ids for (Q, D) unit vectors, best first; id -1: no more.

        ``n_persons`` is how many different persons are wanted.
        """
        self._faiss.omp_set_num_threads(self.threads)  # a setting of the calling thread
        similarities, rows = self._index.search(queries, k)
        ids = np.full(rows.shape, -1, np.int64)
        ids[rows >= 0] = self.template_ids[rows[rows >= 0]]
        return similarities, ids

    def vectors(self) -> FloatArray:
        """Return the (n, D) embeddings as they lie in memory, in the order of the ids."""
        return _flat_vectors(self._index)

    def embeddings(self, template_ids: IntArray) -> FloatArray:
        """Return the (n, D) embeddings of templates that are in the index; a copy."""
        return self.vectors()[np.searchsorted(self.template_ids, template_ids)]

    def wipe(self, template_ids: IntArray) -> None:
        """Zero the embeddings of those of the templates that are here, also for readers of older versions."""
        self.vectors()[np.isin(self.template_ids, template_ids)] = 0.0


class CellIndex:
    """Compares a query with the templates of the persons whose mean faces are nearest (``IndexIVFFlat``).

    An inverted file (Jégou, Douze, Schmid, "Product quantization for nearest neighbor search", 2011) whose
    cells are given: one a person, its centroid the normalized mean of the person's templates. Faces of
    different people are spread evenly over the sphere; cells learned by k-means would have to be opened by
    the hundreds for the recall that these reach with dozens (60,000 templates: 0.97 with 128 of 979 cells,
    against 1.0 with 32 of 3,000). It grows in place: later versions of the gallery share it, and leave out
    what they do not hold. Arguments as of :class:`FlatIndex`, n > 0, with whose each template is.
    """

    def __init__(self, template_ids: IntArray, person_ids: Any, embeddings: FloatArray, threads: int) -> None:
        import faiss

        self.threads = threads
        self._faiss: Any = faiss
        self._lock = threading.Lock()
        n_persons, dimension = len(set(person_ids.tolist())), embeddings.shape[1]
        self._n_cells = n_persons + max(SPARE_CELLS, n_persons // 4)
        self._centroids = faiss.IndexFlatIP(dimension)
        self._index = faiss.IndexIVFFlat(
            self._centroids, dimension, self._n_cells, faiss.METRIC_INNER_PRODUCT
        )
        self._index.is_trained = True
        self._index.set_direct_map_type(self._faiss.DirectMap.Hashtable)
        self._cells: dict[str, int] = {}
        self._n_wiped = 0
        weakref.finalize(self, _zero_cells, self._index, self._centroids).atexit = False
        self.add(template_ids, person_ids, embeddings)

    def add(self, template_ids: IntArray, person_ids: Any, embeddings: FloatArray) -> bool:
        """Store more templates; return False if there is no room and a new index must be made."""
        newcomers = dict.fromkeys(key for key in person_ids.tolist() if key not in self._cells)
        is_full = len(self._cells) + len(newcomers) > self._n_cells
        if is_full or self._n_wiped > self._index.ntotal // 4:
            return False
        swig_ptr = self._faiss.swig_ptr
        with self._lock:
            self._cells.update(zip(newcomers, range(len(self._cells), self._n_cells), strict=False))
            cells = np.array([self._cells[key] for key in person_ids.tolist()], np.int64)
            self._centroids.add(np.zeros((len(newcomers), embeddings.shape[1]), np.float32))
            vectors, ids = np.ascontiguousarray(embeddings), np.ascontiguousarray(template_ids)
            self._index.add_core(len(ids), swig_ptr(vectors), swig_ptr(ids), swig_ptr(cells))
            self._center(np.unique(cells))
        return True

    def search(self, queries: FloatArray, k: int, n_persons: int) -> tuple[FloatArray, IntArray]:
        """See :meth:`FlatIndex.search`; not exact, but for many times as many templates."""
        with self._lock:
            self._faiss.omp_set_num_threads(self.threads)
            self._index.nprobe = min(max(MINIMUM_CELLS, 3 * n_persons), len(self._cells))
            similarities, ids = self._index.search(queries, k)
        return similarities, ids

    def embeddings(self, template_ids: IntArray) -> FloatArray:
        """See :meth:`FlatIndex.embeddings`."""
        with self._lock:
            return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(template_ids)), np.float32)

    def wipe(self, template_ids: IntArray) -> None:
        """Zero embeddings as :meth:`FlatIndex.wipe` does, and compute the centroids anew without them."""
        with self._lock:
            cells = set()
            for template_id in template_ids.tolist():
                try:
                    place = self._index.direct_map.get(template_id)
                except RuntimeError:
                    continue  # not here
                cell, row = self._faiss.lo_listno(place), self._faiss.lo_offset(place)
                self._members(cell)[row] = 0.0
                cells.add(cell)
                self._n_wiped += 1
            self._center(np.array(sorted(cells), np.int64))

    def memory(self) -> bytes:
        """Return a copy of all embeddings and centroids, for checks that nothing is left of somebody."""
        with self._lock:
            parts = [self._members(cell).tobytes() for cell in range(len(self._cells))]
        return b"".join([*parts, _flat_vectors(self._centroids).tobytes()])

    def _members(self, cell: int) -> FloatArray:
        return _cell_vectors(self._index, cell)

    def _center(self, cells: IntArray) -> None:
        centroids = _flat_vectors(self._centroids)
        for cell in cells.tolist():
            centroids[cell] = unit_rows(self._members(cell).sum(axis=0, keepdims=True))[0]


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Return (n, D) vectors at unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def _flat_vectors(index: Any) -> FloatArray:
    import faiss

    if index.ntotal == 0:
        return np.zeros((0, index.d), np.float32)
    values: FloatArray = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return values.reshape(index.ntotal, index.d)


def _cell_vectors(index: Any, cell: int) -> FloatArray:
    import faiss

    n = index.invlists.list_size(cell)
    if n == 0:
        return np.zeros((0, index.d), np.float32)
    values = faiss.rev_swig_ptr(index.invlists.get_codes(cell), n * index.code_size)
    return np.asarray(values).view(np.float32).reshape(n, index.d)


def _zero_flat(index: Any) -> None:
    _flat_vectors(index)[:] = 0.0


def _zero_cells(index: Any, centroids: Any) -> None:
    for cell in range(centroids.ntotal):
        _cell_vectors(index, cell)[:] = 0.0
    _zero_flat(centroids)

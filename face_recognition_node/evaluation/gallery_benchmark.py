"""How long a gallery takes to search and to change, by its size, and what its index misses."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.gallery.gallery import Gallery, GalleryConfig, NewTemplate, Snapshot
from face_recognition_node.gallery.store import Store
from face_recognition_node.identity.person_models import CANDIDATES
from face_recognition_node.vision.faces import FloatArray, HeadPose

FINGERPRINT = "benchmark"
DIMENSION = 64
TEMPLATES_PER_PERSON = 20
QUERIES = 5

Rival = Callable[[FloatArray], Callable[[FloatArray], object]]
"""Takes all (N, D) embeddings and returns a search of (Q, D) queries, to be measured beside ours."""


@dataclass(frozen=True, slots=True)
class SizeFigures:
    """What was measured at one size; times in milliseconds, medians unless said otherwise.

    Attributes:
        n_templates: Templates in the gallery.
        n_persons: Persons they belong to.
        index: "flat", or "cells" for the approximate index.
        open_s: Seconds to open the file and build the index.
        file_mib: Size of the file.
        search_ms: Search of 5 queries, 8 persons each, as for every frame with 5 faces.
        search_min_ms: Its minimum: what it takes when no other process is in the way.
        search_p95_ms: Its 95th percentile.
        search_32_ms: Search of 5 queries, 32 persons each.
        rival_ms: The same by what is given for comparison (FAISS's flat index, 128 templates); NaN: nothing.
        add_ms: Store a person of 5 templates durably and show it to readers.
        add_p95_ms: Its 95th percentile.
        rename_ms: Rename a person.
        forget_ms: Forget a person for good, with the check that no byte is left.
        recall_best: Of the queries whose best match reaches the threshold, the part for which the index finds
            this very match.
        recall_all: The same for all matches that reach the threshold, up to 32 a query.
        n_matches: Number of matches that recall_all is a part of.
        threshold: Similarity from which a match counts (see :func:`decision_threshold`).
    """

    n_templates: int
    n_persons: int
    index: str
    open_s: float
    file_mib: float
    search_ms: float
    search_min_ms: float
    search_p95_ms: float
    search_32_ms: float
    rival_ms: float
    add_ms: float
    add_p95_ms: float
    rename_ms: float
    forget_ms: float
    recall_best: float
    recall_all: float
    n_matches: int
    threshold: float


@dataclass(frozen=True, slots=True)
class GalleryFigures:
    """The figures of all sizes."""

    sizes: tuple[SizeFigures, ...]

    def __str__(self) -> str:
        """Return a table."""
        names = (
            "templates|index|open s|search ms (min, p95)|32 persons ms|FAISS flat|add ms (p95)|rename|forget"
        )
        rows = [(*names.split("|"), "recall best", "recall all")]
        rows += [
            (
                f"{s.n_templates:,}",
                s.index,
                f"{s.open_s:.2f}",
                f"{s.search_ms:.3f} ({s.search_min_ms:.3f}, {s.search_p95_ms:.3f})",
                f"{s.search_32_ms:.3f}",
                f"{s.rival_ms:.3f}",
                f"{s.add_ms:.1f} ({s.add_p95_ms:.1f})",
                f"{s.rename_ms:.1f}",
                f"{s.forget_ms:.0f}",
                f"{s.recall_best:.4f}",
                f"{s.recall_all:.4f}",
            )
            for s in self.sizes
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {"sizes": [asdict(size) for size in self.sizes]}


def made_up_views(means: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return one view of each (N, D) mean face: a unit vector whose cosine to the mean is 0.6 to 0.8."""
    cosine = rng.uniform(0.6, 0.8, size=(len(means), 1))
    aside = rng.normal(size=means.shape)
    aside -= (aside * means).sum(axis=1, keepdims=True) * means
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(cosine * means + np.sqrt(1 - cosine**2) * aside, np.float32)


def made_up_means(n: int, rng: np.random.Generator) -> FloatArray:
    """Return the mean faces of n people: unit vectors spread evenly."""
    means = rng.normal(size=(n, DIMENSION))
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def write_gallery(path: Path, means: FloatArray, n_templates: int, rng: np.random.Generator) -> None:
    """Write a gallery file with about 20 (10 to 30) templates of each person, n_templates in all."""
    counts = rng.integers(TEMPLATES_PER_PERSON // 2, TEMPLATES_PER_PERSON * 3 // 2 + 1, size=len(means))
    owners = np.repeat(np.arange(len(means)), counts)
    owners = np.resize(owners, n_templates) if len(owners) < n_templates else owners[:n_templates]
    owners.sort()
    store = Store(path, FINGERPRINT, DIMENSION)
    try:
        with store.transaction() as transaction:
            insert = transaction.connection.executemany
            kept = np.unique(owners).tolist()
            insert(
                "INSERT INTO persons VALUES (?, ?, 0, '', 0, NULL, NULL)",
                ((f"p-{person:012x}", f"Person {person}") for person in kept),
            )
            first_id = 1
            for start in range(0, n_templates, 50000):
                part = owners[start : start + 50000]
                views = made_up_views(means[part], rng)
                insert(
                    "INSERT INTO templates VALUES (?, ?, ?, 0.8, 0, 0, 0, 'enrolled', 'fp32', 0, 0)",
                    (
                        (first_id + row, f"p-{owner:012x}", view.tobytes())
                        for row, (owner, view) in enumerate(zip(part.tolist(), views, strict=True))
                    ),
                )
                first_id += len(part)
            transaction.set_meta("next_template", first_id)
            transaction.bump_version(is_everything=True)
    finally:
        store.close()


def measure_size(
    n_templates: int,
    folder: Path,
    *,
    false_accept_rate: float = 0.01,
    repeats: int = 100,
    edits: int = 20,
    recall_queries: int = 500,
    config: GalleryConfig | None = None,
    rival: Rival | None = None,
    seed: int = 0,
) -> SizeFigures:
    """Build a gallery of this size in ``folder``, measure it, and remove it."""
    rng = np.random.default_rng(seed)
    means = made_up_means(max(1, n_templates // TEMPLATES_PER_PERSON), rng)
    path = folder / "data" / f"gallery-{n_templates}.db"
    write_gallery(path, means, n_templates, rng)
    started = time.perf_counter()
    gallery = Gallery.open(path, FINGERPRINT, config, keys_folder=folder / "keys", dimension=DIMENSION)
    open_s = time.perf_counter() - started
    try:
        snapshot = gallery.snapshot()
        known = made_up_views(means[rng.integers(len(means), size=recall_queries)], rng)
        batches = [known[rng.integers(len(known), size=QUERIES)] for _ in range(repeats)]
        search, wide = (_times(partial(snapshot.search, per_query=n), batches) for n in (CANDIDATES, 32))
        rival_times = [math.nan]
        if rival is not None:
            rival_search = rival(snapshot.embeddings())
            rival_times = _times(rival_search, batches[: max(10, repeats // 5)])
            del rival_search
        threshold = decision_threshold(n_templates, false_accept_rate)
        recall_best, recall_all, n_matches = recall(snapshot, known, threshold)
        del snapshot
        adds, renames, forgets = _edit_times(gallery, rng, edits)
        return SizeFigures(
            n_templates=n_templates,
            n_persons=len(means),
            index="flat" if gallery.snapshot().is_exact else "cells",
            open_s=open_s,
            file_mib=path.stat().st_size / 2**20,
            search_ms=statistics.median(search),
            search_min_ms=min(search),
            search_p95_ms=float(np.percentile(search, 95)),
            search_32_ms=statistics.median(wide),
            rival_ms=statistics.median(rival_times),
            add_ms=statistics.median(adds),
            add_p95_ms=float(np.percentile(adds, 95)),
            rename_ms=statistics.median(renames),
            forget_ms=statistics.median(forgets),
            recall_best=recall_best,
            recall_all=recall_all,
            n_matches=n_matches,
            threshold=threshold,
        )
    finally:
        gallery.close()
        for name in path.parent.glob(f"{path.name}*"):
            name.unlink()
        gc.collect()


def decision_threshold(n_templates: int, false_accept_rate: float) -> float:
    """Return the similarity that a stranger reaches with any of n templates at this rate.

    For faces spread evenly over the unit sphere of D dimensions, the density of the similarity s of two
    different people is proportional to (1 - s²)^((D - 3) / 2); the rate of one template is that of all
    divided by their number (Bonferroni).
    """
    similarities = np.linspace(1.0, -1.0, 100_001)
    density = (1 - similarities**2) ** ((DIMENSION - 3) / 2)
    reached = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.interp(false_accept_rate / n_templates, reached / reached[-1], similarities))


def recall(snapshot: Snapshot, queries: FloatArray, threshold: float) -> tuple[float, float, int]:
    """Compare the search with one that looks at every template.

    Returns:
        The part of the best matches found, the part of all matches found (up to 32 a query), and the number
        of the latter; only matches whose similarity reaches ``threshold`` count. 1.0 where there are none.
    """
    owners = snapshot.columns.person_ids
    order = np.argsort(owners.astype(str), kind="stable")
    person_ids, starts = np.unique(owners[order].astype(str), return_index=True)
    starts, embeddings = np.append(starts, len(owners)), snapshot.embeddings()[order]
    best_wanted = best_found = wanted = found = 0
    for start in range(0, len(queries), 50):
        batch = queries[start : start + 50]
        truth = best_of_persons(embeddings, starts, batch)
        for query, matches in enumerate(snapshot.search(batch, 32)):
            similar = {match.person_id: match.similarity for match in matches}
            slots = np.argsort(-truth[query])[:32]
            for rank, slot in enumerate(slots[truth[query][slots] >= threshold].tolist()):
                is_found = similar.get(person_ids[slot], -2.0) >= truth[query, slot] - 1e-5
                wanted, found = wanted + 1, found + is_found
                if rank == 0:
                    best_wanted, best_found = best_wanted + 1, best_found + is_found
    return best_found / max(1, best_wanted) if best_wanted else 1.0, found / wanted if wanted else 1.0, wanted


def best_of_persons(embeddings: FloatArray, starts: np.ndarray[Any, Any], queries: FloatArray) -> FloatArray:
    """Return the (Q, P) largest similarity of each person, looking at all rows in pieces."""
    n_persons = len(starts) - 1
    best = np.empty((len(queries), n_persons), np.float32)
    for first in range(0, n_persons, 5000):
        last = min(n_persons, first + 5000)
        rows = slice(int(starts[first]), int(starts[last]))
        similarities = queries @ embeddings[rows].T
        best[:, first:last] = np.maximum.reduceat(similarities, starts[first:last] - starts[first], axis=1)
    return best


def _edit_times(
    gallery: Gallery, rng: np.random.Generator, edits: int
) -> tuple[list[float], list[float], list[float]]:
    views = [made_up_views(np.repeat(mean[None], 5, axis=0), rng) for mean in made_up_means(edits, rng)]
    templates = [[NewTemplate(view, 0.8, HeadPose(0.0, 0.0, 0.0)) for view in five] for five in views]
    ids: list[str] = []
    adds = _times(lambda five: ids.append(gallery.add_person("New", five).person_id), templates, warm_up=0)
    renames = _times(lambda person_id: gallery.rename(person_id, "Newer"), ids, warm_up=0)
    forgets = _times(
        lambda person_id: gallery.forget(person_id, final=True), ids[: max(3, edits // 4)], warm_up=0
    )
    return adds, renames, forgets


def _times(work: Callable[[Any], object], items: Sequence[Any], warm_up: int = 3) -> list[float]:
    for item in items[:warm_up]:
        work(item)
    taken = []
    for item in items:
        started = time.perf_counter()
        work(item)
        taken.append(1e3 * (time.perf_counter() - started))
    return taken

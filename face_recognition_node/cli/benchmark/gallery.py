"""``face-recognition benchmark gallery``: search and update times by size."""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from face_recognition_node.cli.options import add_json_option, add_progress, given_path, report
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.vision.faces import FloatArray, HeadPose

if TYPE_CHECKING:
    from face_recognition_node.config import GalleryConfig
    from face_recognition_node.gallery.gallery import Gallery, Snapshot

EPILOG = """\
Embeddings are synthetic: people with about 20 views, each with a cosine of 0.6 to 0.8 to the person's mean.

exit codes: 0 done, 2 wrong input

examples:
  face-recognition benchmark gallery --json
  face-recognition benchmark gallery --sizes 100 10000
"""
FINGERPRINT = "benchmark"
DIMENSION = 64
TEMPLATES_PER_PERSON = 20
QUERIES = 5
SIZES = (100, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class SizeFigures:
    """What was measured at one size; times in milliseconds, medians unless said otherwise."""

    n_templates: int
    n_persons: int
    index: str  # "flat", or "cells" for the approximate index
    open_s: float  # seconds to open the file and build the index
    file_mib: float
    search_ms: float  # search of 5 queries, 8 persons each, as for every frame with 5 faces
    search_min_ms: float  # its minimum: what it takes when no other process is in the way
    search_p95_ms: float
    search_32_ms: float  # search of 5 queries, 32 persons each
    add_ms: float  # store a person of 5 templates durably and show it to readers
    add_p95_ms: float
    rename_ms: float
    forget_ms: float  # forget a person for good, with the check that no byte is left

    def __str__(self) -> str:
        return (
            f"{self.n_templates:,} templates ({self.index}): opened in {self.open_s:.2f} s, "
            f"{self.file_mib:.0f} MiB\n  search   {self.search_ms:.3f} ms (least {self.search_min_ms:.3f}, "
            f"p95 {self.search_p95_ms:.3f}), 32 persons each {self.search_32_ms:.3f} ms\n"
            f"  changes  add {self.add_ms:.1f} ms (p95 {self.add_p95_ms:.1f}), "
            f"rename {self.rename_ms:.1f} ms, forget {self.forget_ms:.0f} ms"
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="templates")
    add("--repeats", type=int, default=100, metavar="N", help="searches timed at each size")
    add(
        "--folder",
        type=given_path,
        metavar="DIR",
        help="folder for the test files (default: the temporary folder)",
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure at each size, and print."""
    from face_recognition_node.common.errors import InputError
    from face_recognition_node.evaluation.timing import Machine

    if min(arguments.sizes) < 1 or arguments.repeats < 1:
        raise InputError("--sizes and --repeats: expected numbers from 1")
    machine = Machine.here()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes = [
            measure_size(n, Path(folder), repeats=arguments.repeats)
            for n in progress_bar(arguments.sizes, unit="size", shown=arguments.progress)
        ]
    figures = {"sizes": [asdict(size) for size in sizes], "machine": asdict(machine)}
    report("\n".join([str(machine), *map(str, sizes)]), figures, arguments.json)
    return 0


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
    from face_recognition_node.gallery.store import Store

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
    repeats: int = 100,
    edits: int = 20,
    config: GalleryConfig | None = None,
    seed: int = 0,
    look: Callable[[Snapshot, FloatArray, np.random.Generator], object] | None = None,
) -> SizeFigures:
    """Build a gallery of this size in ``folder``, measure it, and remove it.

    Timed are ``repeats`` searches and ``edits`` changes of each kind. ``look`` is shown the snapshot and the
    persons' (P, D) mean faces, to measure something else.
    """
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.identity.person_models import MOST_COMPARED

    rng = np.random.default_rng(seed)
    means = made_up_means(max(1, n_templates // TEMPLATES_PER_PERSON), rng)
    path = folder / "data" / f"gallery-{n_templates}.db"
    write_gallery(path, means, n_templates, rng)
    started = time.perf_counter()
    gallery = Gallery.open(path, FINGERPRINT, config, keys_folder=folder / "keys", dimension=DIMENSION)
    open_s = time.perf_counter() - started
    try:
        snapshot = gallery.snapshot()
        batches = [made_up_views(means[rng.integers(len(means), size=QUERIES)], rng) for _ in range(repeats)]
        search, wide = (_times(partial(snapshot.search, per_query=n), batches) for n in (MOST_COMPARED, 32))
        if look is not None:
            look(snapshot, means, rng)
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
            add_ms=statistics.median(adds),
            add_p95_ms=float(np.percentile(adds, 95)),
            rename_ms=statistics.median(renames),
            forget_ms=statistics.median(forgets),
        )
    finally:
        gallery.close()
        for name in path.parent.glob(f"{path.name}*"):
            name.unlink()
        gc.collect()


def _edit_times(
    gallery: Gallery, rng: np.random.Generator, edits: int
) -> tuple[list[float], list[float], list[float]]:
    from face_recognition_node.gallery.values import NewTemplate

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

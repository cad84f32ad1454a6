"""Recall of the gallery's search at the decision threshold, and FAISS's flat index beside it, by size.

    ./run exec python tools/benchmark_gallery.py [--sizes N …] [--false-accept-rate P]

``face-recognition benchmark gallery`` has the times of search and changes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.benchmark.gallery import (
    DIMENSION,
    QUERIES,
    SIZES,
    SizeFigures,
    _times,
    made_up_views,
    measure_size,
)
from face_recognition_node.cli.options import add_json_option, report
from face_recognition_node.gallery.gallery import Snapshot
from face_recognition_node.vision.faces import FloatArray


@dataclass(frozen=True, slots=True)
class RecallFigures:
    """What the search misses at one size."""

    # of the queries whose best match reaches the threshold, the part for which the index finds this very
    # match
    recall_best: float
    recall_all: float  # the same for all matches that reach the threshold, up to 32 a query
    n_matches: int  # number of matches that recall_all is a part of
    threshold: float  # similarity from which a match counts (see :func:`decision_threshold`)
    rival_ms: float  # search of 5 queries by FAISS's flat index, 128 templates each, median


def measure_recall(
    n_templates: int,
    folder: Path,
    *,
    false_accept_rate: float = 0.01,
    recall_queries: int = 500,
    **options: Any,
) -> tuple[SizeFigures, RecallFigures]:
    """Return the times of a gallery of this size, and what its search misses."""
    found: list[RecallFigures] = []

    def look(snapshot: Snapshot, means: FloatArray, rng: np.random.Generator) -> None:
        known = made_up_views(means[rng.integers(len(means), size=recall_queries)], rng)
        threshold = decision_threshold(n_templates, false_accept_rate)
        rival = statistics.median(flat_times(snapshot.embeddings(), known))
        found.append(RecallFigures(*recall(snapshot, known, threshold), threshold, rival))

    figures = measure_size(n_templates, folder, look=look, **options)
    return figures, found[0]


def flat_times(embeddings: FloatArray, queries: FloatArray) -> list[float]:
    """Return milliseconds of searches by FAISS's flat index, which answers with templates."""
    import faiss

    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    faiss.omp_set_num_threads(1)
    batches = [queries[start : start + QUERIES] for start in range(0, min(len(queries), 100), QUERIES)]
    return _times(lambda batch: index.search(batch, min(128, index.ntotal)), batches)


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
    owners = snapshot.table["person_id"]
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


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument(
        "--false-accept-rate",
        type=float,
        default=0.01,
        metavar="P",
        help="recall counts matches over the similarity that a stranger reaches at this rate (default 0.01)",
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure at each size, and print."""
    lines, sizes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for n in arguments.sizes:
            times, missed = measure_recall(n, Path(folder), false_accept_rate=arguments.false_accept_rate)
            sizes.append({**asdict(times), **asdict(missed)})
            lines.append(
                f"{times}\n  recall   best {missed.recall_best:.4f}, all {missed.recall_all:.4f} of "
                f"{missed.n_matches}; FAISS flat {missed.rival_ms:.3f} ms"
            )
    report("\n".join(lines), {"sizes": sizes}, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

"""``face-recognition benchmark gallery``: search and update times by size."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_recognition_node.cli.json_output import add_json_option, report
from face_recognition_node.cli.options import add_progress, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from face_recognition_node.vision.faces import FloatArray

EPILOG = """\
Faces are made up: people of about 20 views, each with a cosine of 0.6 to 0.8 to the person's mean.

exit codes: 0 done, 2 wrong input

examples:
  face-recognition benchmark gallery --json
  face-recognition benchmark gallery --sizes 100 10000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[100, 10_000, 100_000, 1_000_000],
        metavar="N",
        help="templates",
    )
    parser.add_argument(
        "--false-accept-rate",
        type=float,
        default=0.01,
        metavar="P",
        help="recall counts matches over the similarity that a stranger reaches at this rate (default 0.01)",
    )
    parser.add_argument("--repeats", type=int, default=100, metavar="N", help="searches timed at each size")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the files are made (default: the temporary folder)"
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure at each size, and print."""
    from face_recognition_node.common.errors import InputError
    from face_recognition_node.evaluation.gallery_benchmark import GalleryFigures, measure_size

    if min(arguments.sizes) < 1 or arguments.repeats < 1:
        raise InputError("--sizes and --repeats: expected numbers from 1")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes = [
            measure_size(
                n,
                Path(folder),
                false_accept_rate=arguments.false_accept_rate,
                repeats=arguments.repeats,
                rival=_faiss_flat,
            )
            for n in progress(arguments.sizes, arguments, unit="size")
        ]
    figures = GalleryFigures(tuple(sizes))
    report(str(figures), {**figures.to_dict(), "machine": _machine()}, arguments.json)
    return 0


def _faiss_flat(embeddings: FloatArray) -> Callable[[FloatArray], object]:
    """Return the search of FAISS's flat index, which answers with templates, not with persons."""
    import faiss

    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    faiss.omp_set_num_threads(1)
    return lambda queries: index.search(queries, min(128, index.ntotal))


def _machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    import os
    import platform

    import faiss
    import numpy as np

    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "faiss": faiss.__version__,
        "load_average": os.getloadavg(),
    }

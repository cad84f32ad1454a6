"""Find out whether an embedder in 8-bit integers would pay on this CPU.

    ./run exec python tools/benchmark_int8.py LFW FACES

The float network is quantised after training with NNCF, calibrated on real aligned faces, and both are
compared on OpenVINO: the LFW protocol, the cosine between their embeddings, the time for several numbers of
faces. It would pay if it is faster and loses at most 0.1 % of LFW's accuracy. Nothing is stored.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from command import run_tool

from face_recognition_node.backends.loading import load_card
from face_recognition_node.backends.openvino_runner import OpenVinoRunner
from face_recognition_node.cli.benchmark.frames import add_benchmark_options
from face_recognition_node.cli.options import report
from face_recognition_node.common.errors import BackendUnavailableError, InputError
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.embedding import CropEmbedder
from face_recognition_node.vision.faces import ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.runner import BackendReport

if TYPE_CHECKING:
    from face_recognition_node.evaluation.timing import Contestant

ALLOWED_LOSS = 0.001  # of LFW's accuracy
BATCHES = (1, 2, 5, 16)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("archive", type=Path, metavar="LFW", help="as of `evaluate verification`")
    parser.add_argument("faces", type=Path, metavar="FACES", help="folder of train_faces.bin and .csv")
    parser.add_argument(
        "--samples", type=int, default=300, metavar="N", help="faces to calibrate on (default %(default)s)"
    )
    add_benchmark_options(parser, rounds=40)


class QuantizedRunner(OpenVinoRunner):
    """Runs the model after quantising it.

    Args:
        card: The model's card.
        models: Threads.
        samples: (N, H, W, 3) uint8 pictures to calibrate on.

    Raises:
        BackendUnavailableError: If NNCF is not installed.
    """

    def __init__(self, card: ModelCard, models: ModelsConfig, samples: ImageArray) -> None:
        self._samples = samples
        super().__init__(card, models, "for comparison")
        self.report = BackendReport(self.report.name, self.report.device, self.report.reason, "int8")

    def _graph(self) -> Any:
        nncf = import_nncf()
        data = nncf.Dataset([sample[None] for sample in self._samples])
        preset = nncf.QuantizationPreset.MIXED  # SiLU's values are not symmetric around zero
        return nncf.quantize(super()._graph(), data, preset=preset, subset_size=len(self._samples))


def import_nncf() -> Any:
    """Return the nncf module or raise BackendUnavailableError telling the cure."""
    try:
        return importlib.import_module("nncf")
    except ImportError as error:
        raise BackendUnavailableError(f"nncf is not installed ({error}): pip install nncf") from error


def run(arguments: argparse.Namespace) -> int:
    """Quantise, compare, print; return 0 if 8 bits would pay, else 1."""
    from face_recognition_node.evaluation.face_archive import FaceArchive, split_identities
    from face_recognition_node.evaluation.picture_archive import LfwArchive, embed_in_batches
    from face_recognition_node.evaluation.timing import Machine, race
    from face_recognition_node.evaluation.verification import evaluate_pairs

    if arguments.samples < 1:
        raise InputError(f"--samples: expected at least 1, got {arguments.samples}")
    import_nncf()
    machine = Machine.here()
    faces, lfw = FaceArchive.open(arguments.faces), LfwArchive.open(arguments.archive)
    training = split_identities(faces.labels).training
    chosen = np.random.default_rng(0).choice(training, min(arguments.samples, len(training)), replace=False)
    models = ModelsConfig(backend="openvino", threads=arguments.threads)
    card = load_card(models, models.embedder)
    embedders = {
        "fp32": CropEmbedder(OpenVinoRunner(card, models), card),
        "int8": CropEmbedder(QuantizedRunner(card, models, faces.crops(chosen)), card),
    }
    pairs, count = lfw.pairs, len(lfw.names)
    embeddings = {name: embed_in_batches(e, lfw.read, count) for name, e in embedders.items()}
    reports = {}
    for name, vectors in embeddings.items():
        similarity = np.einsum("pd,pd->p", vectors[pairs.first], vectors[pairs.second])
        judged = evaluate_pairs(similarity, pairs.is_same, pairs.fold, pairs.person)
        reports[name] = dataclasses.asdict(judged)
    loss = reports["fp32"]["accuracy"] - reports["int8"]["accuracy"]
    cosines = (embeddings["fp32"] * embeddings["int8"]).sum(axis=1)
    crops = np.stack([lfw.read(number) for number in range(min(count, max(BATCHES)))])
    tables = [
        race(
            f"embed {batch} aligned faces",
            _contestants(embedders, np.ascontiguousarray(np.resize(crops, (batch, *crops.shape[1:])))),
            arguments.rounds,
            progress=partial(progress_bar, unit="round", shown=arguments.progress),
        )
        for batch in BATCHES
    ]
    pays = loss <= ALLOWED_LOSS and all(table.of("int8").ratio_high < 1 for table in tables)
    lines = [str(machine), "", f"LFW accuracy: fp32 {reports['fp32']['accuracy']:.4f}, "
             f"int8 {reports['int8']['accuracy']:.4f}, loss {loss:.4f} (allowed {ALLOWED_LOSS})"]  # fmt: skip
    lines.append(f"cosine of the two: mean {cosines.mean():.4f}, least {cosines.min():.4f}")
    lines += [str(table) for table in tables]
    lines.append(f"8 bits {'would pay' if pays else 'do not pay'}")
    figures = {
        "machine": dataclasses.asdict(machine),
        "lfw": reports,
        "cosine": {"mean": float(cosines.mean()), "least": float(cosines.min())},
        "tables": [dataclasses.asdict(table) for table in tables],
        "pays": pays,
    }
    report("\n".join(lines), figures, arguments.json)
    return 0 if pays else 1


def _contestants(embedders: dict[str, CropEmbedder], batch: ImageArray) -> list[Contestant]:
    from face_recognition_node.evaluation.timing import Contestant

    return [
        Contestant(name, lambda _, embedder=embedder: embedder.embed(batch))  # type: ignore[misc]
        for name, embedder in embedders.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit code."""
    return run_tool(__doc__, configure, run, argv)


if __name__ == "__main__":
    sys.exit(main())

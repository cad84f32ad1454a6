"""``face-recognition prepare SOURCE OUT``: a tree of photographs → aligned faces with a manifest."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from face_recognition_node.cli.options import add_model_options, given_path, models_config
from face_recognition_node.common.errors import InputError
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import ModelsConfig

if TYPE_CHECKING:
    from face_recognition_node.training.preparation import PreparationLimits, Prepared

# pictures handed to the processes at once; VGGFace2 has 3.3 million, too many to wait as tasks
SLICE = 10_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("source", type=given_path, help="a tree with one folder per person (as VGGFace2, LFW)")
    add("out", type=given_path, help="folder for faces/, manifest.csv and rejects.csv")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    add("--minimum-score", type=float, default=0.7, help="minimum detection score (0.7)")
    add("--minimum-size", type=float, default=20.0, help="minimum face size in pixels (default 20)")
    add_model_options(parser, only=("models_dir", "detector", "backend"))


def run(arguments: argparse.Namespace) -> int:
    """Prepare what is not prepared yet, then write the tables."""
    from face_recognition_node.training.preparation import (
        JOURNAL,
        MANIFEST,
        REJECTS,
        PreparationLimits,
        check_settings,
        find_pictures,
        read_journal,
        write_tables,
    )

    if arguments.workers < 1:
        raise InputError(f"--workers: expected at least 1, got {arguments.workers}")
    limits = PreparationLimits(arguments.minimum_score, arguments.minimum_size)
    pictures = find_pictures(arguments.source)
    arguments.out.mkdir(parents=True, exist_ok=True)
    check_settings(arguments.out, {**asdict(limits), "detector": arguments.detector})
    done = read_journal(arguments.out)
    missing = [name for name in pictures if name not in done]
    initial = (models_config(arguments), arguments.source, arguments.out, limits)
    # forked copies of a process with running threads can hang
    spawned = multiprocessing.get_context("spawn")
    with (
        open(arguments.out / JOURNAL, "a", encoding="utf-8") as journal,
        progress_bar(
            total=len(pictures),
            initial=len(pictures) - len(missing),
            unit="picture",
            title="preparing",
            shown=True,
        ) as bar,
        ProcessPoolExecutor(arguments.workers, spawned, initializer=_start, initargs=initial) as pool,
    ):
        for start in range(0, len(missing), SLICE):
            for one in pool.map(_prepare, missing[start : start + SLICE], chunksize=8):
                journal.write(json.dumps(asdict(one)) + "\n")
                journal.flush()
                done[one.source] = one
                bar.update()
    kept, rejected = write_tables([done[name] for name in pictures], arguments.out)
    print(f"{kept} faces in {arguments.out / MANIFEST}, {rejected} rejected in {arguments.out / REJECTS}")
    return 0 if kept else 1


_prepare_one: Callable[[str], Prepared] | None = None  # what each process has been started for


def _start(models: ModelsConfig, source: Path, out: Path, limits: PreparationLimits) -> None:
    """Load the process's own detector."""
    import cv2

    from face_recognition_node.backends import load_detector
    from face_recognition_node.config import DetectorConfig
    from face_recognition_node.training.preparation import prepare_picture
    from face_recognition_node.vision.alignment import align_faces

    global _prepare_one
    # a killed parent cannot stop its pool, whose processes would wait for work for ever
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    detector = load_detector(models, DetectorConfig())
    _prepare_one = lambda name: prepare_picture(  # noqa: E731
        source, name, out, detector.detect,
        lambda image, face: align_faces(image, face.landmarks_xy[None])[0], limits,
    )  # fmt: skip


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prepare(name: str) -> Prepared:
    if _prepare_one is None:
        raise RuntimeError("this process was not started by prepare")
    return _prepare_one(name)

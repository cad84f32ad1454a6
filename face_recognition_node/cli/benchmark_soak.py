"""``face-recognition benchmark soak``: the node over DDS for a long time: memory, latency, CPU, growth.

The camera shows people for a while, then a bare wall for a while, so that tracks end and begin all the time,
as they do on a robot. Every few seconds a sample is taken; at the end a line is fitted to the memory (see
``evaluation/soak.py``).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from face_recognition_node.cli.benchmark_frames import parse_size
from face_recognition_node.cli.benchmark_nodes import (
    N_IMAGES,
    NODE,
    enroll_first_face,
    enter_own_network,
    prepare_images,
    start_camera,
    start_node,
)
from face_recognition_node.cli.json_output import add_json_option, report
from face_recognition_node.cli.options import add_progress, file_to_write, progress
from face_recognition_node.cli.processes import Children, process_usage
from face_recognition_node.common.errors import InputError

if TYPE_CHECKING:
    from face_recognition_node.evaluation.soak import SoakSample
    from face_recognition_node.ros.remote import Remote


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--size", default="640x480", metavar="WxH", help="image size (default: %(default)s)")
    parser.add_argument("--faces", type=int, default=2, help="faces in each image, 0 to 12 (default: 2)")
    parser.add_argument("--rate", type=float, default=30.0, help="images per second (default: 30)")
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run (default: 30)")
    parser.add_argument(
        "--warm-up", type=float, default=5.0, metavar="MINUTES", help="not judged (default: 5)"
    )
    parser.add_argument("--every", type=float, default=10.0, metavar="S", help="of a sample (default: 10)")
    parser.add_argument(
        "--allowed-growth", type=float, default=4.0, metavar="MB", help="an hour (default: 4)"
    )
    parser.add_argument("--csv", type=file_to_write, metavar="FILE", help="write the samples")
    parser.add_argument(
        "--plot", type=file_to_write, metavar="FILE", help="draw them as PNG (needs matplotlib)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME:=VALUE", help="parameter of the node"
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run, judge and print; return 1 if memory grows by more than is allowed or nothing was answered."""
    from face_recognition_node.evaluation import soak
    from face_recognition_node.evaluation.timing import Machine

    size = parse_size(arguments.size)
    if arguments.plot:
        from face_recognition_node.evaluation.embedding_plots import load_pyplot

        load_pyplot()  # an hour later it would be too late to learn that it is not installed
    if arguments.every <= 0 or arguments.minutes <= arguments.warm_up:
        raise InputError(
            f"expected --every above 0 and --minutes above --warm-up, got {arguments.every:g}, "
            f"{arguments.minutes:g} and {arguments.warm_up:g}"
        )
    enter_own_network()
    machine = Machine.here()
    with tempfile.TemporaryDirectory(prefix="face_recognition_soak_") as folder:
        prepare_images(Path(folder) / "images", size, arguments.faces, empty=N_IMAGES)
        samples = _soak(arguments, Path(folder))
    if arguments.csv:
        soak.write_samples(samples, arguments.csv)
    growth = soak.judge_growth(samples, 60 * arguments.warm_up, arguments.allowed_growth)
    task = f"{arguments.size}, {arguments.faces} faces come and go, {arguments.rate:g} Hz"
    if arguments.plot:
        soak.plot_samples(samples, growth, arguments.plot, f"Node over DDS: {task}")
    answered = float(np.mean([sample.answered_hz for sample in samples]))
    lines = [str(machine), "", f"soak, {task}", f"  {growth}"]
    lines.append(f"  answered {answered:.2f} Hz; {samples[-1].tracks} tracks in all")
    figures = {
        "machine": dataclasses.asdict(machine),
        "task": task,
        "growth": {**dataclasses.asdict(growth), "is_growing": growth.is_growing},
        "samples": [dataclasses.asdict(sample) for sample in samples],
    }
    report("\n".join(lines), figures, arguments.json)
    return 1 if growth.is_growing or not answered else 0


def _soak(arguments: argparse.Namespace, folder: Path) -> list[SoakSample]:
    from face_recognition_node.ros.remote import Remote

    with Children() as children, Remote("face_recognition_benchmark", children.check) as remote:
        node = start_node(children, folder / "gallery.db", arguments.set)
        remote.wait_until(lambda: remote.state_of(NODE, 60.0) == "active", 60.0, "the node to be active")
        enroll_first_face(remote)
        answers = _Answers(remote)
        start_camera(children, folder / "images", arguments.rate)
        remote.wait_until(lambda: answers.tracks, 60.0, "the first face")
        count = max(1, round(60 * arguments.minutes / arguments.every))
        samples = _samples(answers, node.pid, arguments.every, count, children)
        return list(progress(samples, arguments, total=count, unit="sample"))


def _samples(
    answers: _Answers, process_id: int, every: float, count: int, children: Children
) -> Iterator[SoakSample]:
    """Yield a sample every so many seconds."""
    from face_recognition_node.evaluation.soak import SoakSample

    began = last = time.monotonic()
    worked, _ = process_usage(process_id)
    answers.take()
    for number in range(1, count + 1):
        time.sleep(max(0.0, began + number * every - time.monotonic()))
        children.check()
        now = time.monotonic()
        work, resident = process_usage(process_id)
        latencies = answers.take()
        p50, p95 = np.percentile(latencies, [50, 95]) if latencies else (np.nan, np.nan)
        yield SoakSample(
            now - began,
            resident / 1e6,
            100 * (work - worked) / (now - last),
            len(latencies) / (now - last),
            1e3 * float(p50),
            1e3 * float(p95),
            answers.tracks,
        )
        last, worked = now, work


class _Answers:
    """Latencies of the answers since they were last taken, and the number of tracks ever seen."""

    def __init__(self, remote: Remote) -> None:
        from face_recognition_interfaces.msg import FaceArray

        self._latencies: list[float] = []
        self.tracks = 0
        remote.node.create_subscription(FaceArray, f"{NODE}/faces", self._on_faces, 100)

    def _on_faces(self, message: Any) -> None:
        from face_recognition_node.ros.conversions import stamp_to_seconds

        self._latencies.append(time.time() - stamp_to_seconds(message.header.stamp))
        self.tracks = max(self.tracks, *(face.track_id for face in message.faces), 0)

    def take(self) -> list[float]:
        """Return the latencies in seconds since the last call."""
        taken, self._latencies = self._latencies, []
        return taken

"""Run the node over DDS for a long time: memory, latency, CPU, growth.

    ./run exec python tools/benchmark_soak.py [--minutes M] [--rate HZ] [--plot FILE]

The camera shows people for a while, then a bare wall for a while, so that tracks end and begin all the time,
as they do on a robot. Every few seconds a sample is taken.

Memory of a sound process rises while caches fill and then wanders about a level. So growth is the slope of a
least-squares line through the samples after a warm-up, with an interval by the moving-block bootstrap of its
residuals (Künsch 1989): neighbouring samples are alike, and an interval for independent ones would be far
too narrow.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from command import run_tool
from numpy.typing import NDArray

from face_recognition_node.cli.benchmark.frames import FRAMES, parse_size
from face_recognition_node.cli.benchmark.ros import (
    NODE,
    enroll_first_face,
    prepare_images,
    start_camera,
    start_node,
)
from face_recognition_node.cli.options import add_json_option, add_progress, file_to_write, report
from face_recognition_node.cli.processes import Children, enter_own_network, process_usage
from face_recognition_node.common.errors import InputError
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.evaluation.bootstrap import TAILS

if TYPE_CHECKING:
    from face_recognition_node.ros.remote import Remote


RESAMPLES = 1000
LEAST_SAMPLES = 8  # fewer samples after the warm-up tell nothing about growth

Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SoakSample:
    """One interval of the run."""

    seconds: float  # end of the interval, from the first answer
    resident_mb: float  # resident memory of the node then, megabytes
    cpu_percent: float  # CPU time of the node in the interval, percent of one core
    answered_hz: float  # answers per second
    latency_p50_ms: float  # median time from an image's stamp to its answer; NaN without an answer
    latency_p95_ms: float  # 95th percentile
    tracks: int  # tracks begun since the start of the run


@dataclass(frozen=True, slots=True)
class Growth:
    """What the samples after the warm-up say."""

    warm_up_s: float  # length of the warm-up, seconds
    seconds: float  # length of what was judged
    samples: int  # how many samples that were
    resident_mb: float  # median resident memory, megabytes
    mb_per_hour: float  # slope of the resident memory
    low: float  # lower end of its 95 % interval
    high: float  # upper end
    latency_ms_per_hour: float  # slope of the median latency, milliseconds per hour
    allowed_mb_per_hour: float  # more than this is called growth

    @property
    def is_growing(self) -> bool:
        """Whether memory grew by more than is allowed."""
        return self.mb_per_hour > self.allowed_mb_per_hour

    def __str__(self) -> str:
        verdict = "GROWS" if self.is_growing else "does not grow"
        return (
            f"memory {verdict}: {self.mb_per_hour:+.2f} MB/h [{self.low:+.2f}, {self.high:+.2f}] over "
            f"{self.seconds / 60:.0f} minutes after {self.warm_up_s / 60:.0f} of warm-up "
            f"(allowed {self.allowed_mb_per_hour:g}), median {self.resident_mb:.1f} MB resident; "
            f"median latency {self.latency_ms_per_hour:+.2f} ms/h"
        )


def judge_growth(samples: Sequence[SoakSample], warm_up_s: float, allowed_mb_per_hour: float) -> Growth:
    """Fit the samples after the warm-up.

    Raises:
        InputError: If fewer than LEAST_SAMPLES are left.
    """
    kept = [sample for sample in samples if sample.seconds > warm_up_s]
    if len(kept) < LEAST_SAMPLES:
        raise InputError(
            f"soak: expected at least {LEAST_SAMPLES} samples after {warm_up_s:g} s of warm-up, got "
            f"{len(kept)}; run longer, or sample more often"
        )
    hours = np.array([sample.seconds for sample in kept]) / 3600
    memory = np.array([sample.resident_mb for sample in kept])
    latency = np.array([sample.latency_p50_ms for sample in kept])
    answered = np.isfinite(latency)
    slower = slope(hours[answered], latency[answered]) if answered.sum() >= LEAST_SAMPLES else float("nan")
    low, high = slope_interval(hours, memory)
    return Growth(
        warm_up_s,
        kept[-1].seconds - warm_up_s,
        len(kept),
        float(np.median(memory)),
        slope(hours, memory),
        low,
        high,
        slower,
        allowed_mb_per_hour,
    )


def slope(x: Series, y: Series) -> float:
    """Return the slope of the least-squares line through (N,) points, N ≥ 2."""
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


def slope_interval(x: Series, y: Series, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of :func:`slope` by the moving-block bootstrap of the residuals."""
    count = len(x)
    fitted = y.mean() + slope(x, y) * (x - x.mean())
    residuals = y - fitted
    block = max(2, round(count**0.5))
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, count - block + 1, (RESAMPLES, -(-count // block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :count]
    slopes = [slope(x, fitted + residuals[row]) for row in rows]
    low, high = np.quantile(slopes, TAILS)
    return float(low), float(high)


def write_samples(samples: Sequence[SoakSample], path: Path) -> None:
    """Write the samples as CSV, one line each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(SoakSample)])
        for sample in samples:
            writer.writerow([v if isinstance(v, int) else f"{v:.3f}" for v in astuple(sample)])


def plot_samples(samples: Sequence[SoakSample], growth: Growth, path: Path, title: str) -> Path:
    """Draw memory with the fitted line, and latency and CPU below; needs matplotlib."""
    from face_recognition_node.evaluation.plots import load_pyplot, save_figure

    pyplot = load_pyplot()
    minutes = np.array([sample.seconds for sample in samples]) / 60
    values = {name: np.array([asdict(s)[name] for s in samples]) for name in asdict(samples[0])}
    figure, (memory, latency, cpu) = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True)
    memory.plot(minutes, values["resident_mb"], lw=1)
    judged = minutes > growth.warm_up_s / 60
    middle = minutes[judged].mean()
    line = values["resident_mb"][judged].mean() + growth.mb_per_hour * (minutes[judged] - middle) / 60
    label = f"{growth.mb_per_hour:+.2f} MB/h [{growth.low:+.2f}, {growth.high:+.2f}]"
    memory.plot(minutes[judged], line, "--", color="#b2182b", label=label)
    memory.legend(loc="lower right")
    memory.set(ylabel="resident, MB", title=title, ylim=(0, 1.15 * values["resident_mb"].max()))
    latency.plot(minutes, values["latency_p50_ms"], lw=1, label="median")
    latency.plot(minutes, values["latency_p95_ms"], lw=0.7, label="95th percentile")
    latency.set(ylabel="latency, ms", ylim=(0, None))
    latency.legend(loc="upper right")
    cpu.plot(minutes, values["cpu_percent"], lw=1, label="CPU, % of a core")
    cpu.plot(minutes, values["answered_hz"], lw=1, label="answers per second")
    cpu.set(xlabel="minutes", ylim=(0, None))
    cpu.legend(loc="upper right")
    return save_figure(figure, path)


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
        "--set", action="append", default=[], metavar="NAME=VALUE", help="parameter of the node"
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run, judge and print; return 1 if memory grows by more than is allowed or nothing was answered."""
    from face_recognition_node.evaluation.timing import Machine

    size = parse_size(arguments.size)
    if arguments.plot:
        from face_recognition_node.evaluation.plots import load_pyplot

        load_pyplot()  # an hour later it would be too late to learn that it is not installed
    if arguments.every <= 0 or arguments.minutes <= arguments.warm_up:
        raise InputError(
            f"expected --every above 0 and --minutes above --warm-up, got {arguments.every:g}, "
            f"{arguments.minutes:g} and {arguments.warm_up:g}"
        )
    enter_own_network()
    machine = Machine.here()
    with tempfile.TemporaryDirectory(prefix="face_recognition_soak_") as folder:
        prepare_images(Path(folder) / "images", size, arguments.faces, empty=FRAMES)
        samples = _soak(arguments, Path(folder))
    if arguments.csv:
        write_samples(samples, arguments.csv)
    growth = judge_growth(samples, 60 * arguments.warm_up, arguments.allowed_growth)
    task = f"{arguments.size}, {arguments.faces} faces come and go, {arguments.rate:g} Hz"
    if arguments.plot:
        plot_samples(samples, growth, arguments.plot, f"Node over DDS: {task}")
    answered = float(np.mean([sample.answered_hz for sample in samples]))
    lines = [str(machine), "", f"soak, {task}", f"  {growth}"]
    lines.append(f"  answered {answered:.2f} Hz; {samples[-1].tracks} tracks in all")
    figures = {
        "machine": asdict(machine),
        "task": task,
        "growth": {**asdict(growth), "is_growing": growth.is_growing},
        "samples": [asdict(sample) for sample in samples],
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
        return list(progress_bar(samples, total=count, unit="sample", shown=arguments.progress))


def _samples(
    answers: _Answers, process_id: int, every: float, count: int, children: Children
) -> Iterator[SoakSample]:
    """Yield a sample every so many seconds."""
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
        from face_recognition_node.ros.messages import stamp_to_seconds

        self._latencies.append(time.time() - stamp_to_seconds(message.header.stamp))
        self.tracks = max(self.tracks, *(face.track_id for face in message.faces), 0)

    def take(self) -> list[float]:
        """Return the latencies in seconds since the last call."""
        taken, self._latencies = self._latencies, []
        return taken


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit code."""
    return run_tool(__doc__, configure, run, argv)


if __name__ == "__main__":
    sys.exit(main())

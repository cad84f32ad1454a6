"""Time several ways to do the same thing, fairly: interleaved, with warm-up, medians and intervals.

Runs of all contestants alternate in one process, each round in another order, so that whatever else the
machine does meanwhile hits all alike. Ratios are taken round by round and their median is reported, which a
slow minute shifts far less than a ratio of separate medians. Intervals are 95 % bootstrap intervals of
medians (Efron 1979).
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.common.tables import aligned
from face_recognition_node.evaluation.bootstrap import estimate, median

# before each run: threads of the one before may spin for some milliseconds, on the next one's bill
_REST_S = 0.01
LIBRARIES = ("numpy", "opencv-python-headless", "openvino", "onnxruntime", "torch", "faiss-cpu", "dlib-bin")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do it."""

    name: str
    # does it once; called with the number of the round, so that it may take another frame each time
    run: Callable[[int], object]
    note: str = ""
    # how often `run` is called in a round; its time is the mean. For work that differs from call to call in a
    # fixed cycle, of which a median would only show the commonest part
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contestant took: wall time and its median's interval, processor time over all threads."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    p95_ms: float
    cpu_ms: float
    ratio: float  # its time over the baseline's, median of the rounds
    ratio_low: float
    ratio_high: float
    runs: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    processor: str
    cores: int  # those that this process may use
    memory_gb: float
    system: str
    load: float  # load average of one minute at the start: above zero something else was running
    libraries: dict[str, str]  # versions of what takes part

    @classmethod
    def here(cls) -> Machine:
        """Return this machine."""
        versions = {}
        for name in LIBRARIES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(name)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        return cls(_processor(), cores, round(memory, 1), system, round(os.getloadavg()[0], 2), versions)

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb:g} GB; {self.system}; "
            f"load {self.load:g} at the start\n{versions}"
        )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


@dataclass(frozen=True, slots=True)
class TimingTable:
    """All contestants at one task; ratios refer to the one named ``baseline``."""

    task: str
    baseline: str
    timings: tuple[Timing, ...]

    def of(self, name: str) -> Timing:
        """Return one contestant's timing."""
        timings = {timing.name: timing for timing in self.timings}
        if name not in timings:
            raise InputError(f"{name}: no such contestant; there are {list(timings)}")
        return timings[name]

    def __str__(self) -> str:
        rows = [("", "median ms", "95 %", "p95", "cpu ms", f"× {self.baseline}", "")]
        for timing in self.timings:
            interval = f"{timing.low_ms:.2f}-{timing.high_ms:.2f}"
            ratios = f"{timing.ratio:.2f} [{timing.ratio_low:.2f}, {timing.ratio_high:.2f}]"
            median, p95, cpu = (f"{ms:.2f}" for ms in (timing.median_ms, timing.p95_ms, timing.cpu_ms))
            rows.append((timing.name, median, interval, p95, cpu, ratios, timing.note))
        return f"{self.task}\n{aligned(rows, right=(1, 2, 3, 4), indent='  ')}"


def race(
    task: str,
    contestants: Sequence[Contestant],
    rounds: int,
    *,
    warm_up: int = 3,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    clock: Callable[[], float] = time.perf_counter,
) -> TimingTable:
    """Let all contestants, of distinct names, run in turn for some rounds; the first one is the baseline.

    ``warm_up`` runs of each come before and are not counted; ``progress`` wraps the rounds.

    Raises:
        InputError: For no contestants, equal names or no rounds.
    """
    names = [contestant.name for contestant in contestants]
    if not names or len(set(names)) != len(names) or rounds < 1:
        raise InputError(
            f"race: expected contestants with distinct names and a round, got {names} and {rounds}"
        )
    for contestant in contestants:
        for number in range(warm_up):
            contestant.run(number)
    wall, cpu = (np.empty((rounds, len(names))) for _ in range(2))
    generator = np.random.default_rng(0)
    gc.collect()
    for number in progress(range(rounds)):
        for column in generator.permutation(len(names)):
            run, calls = contestants[column].run, contestants[column].calls
            time.sleep(_REST_S)
            began, worked = clock(), time.process_time()
            for _ in range(calls):
                run(number)
            wall[number, column] = (clock() - began) / calls
            cpu[number, column] = (time.process_time() - worked) / calls
    columns = zip(contestants, wall.T, cpu.T, strict=True)
    return TimingTable(
        task, names[0], tuple(_timing(one, own, used, wall[:, 0]) for one, own, used in columns)
    )


def _timing(
    contestant: Contestant, wall: NDArray[np.float64], cpu: NDArray[np.float64], base: NDArray[np.float64]
) -> Timing:
    took = estimate(wall * 1e3, statistic=median)
    ratio = estimate(wall / np.maximum(base, 1e-9), statistic=median)
    return Timing(
        contestant.name,
        median_ms=took.value,
        low_ms=took.low,
        high_ms=took.high,
        p95_ms=float(np.quantile(wall, 0.95)) * 1e3,
        cpu_ms=median(cpu) * 1e3,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        runs=len(wall),
        note=contestant.note,
    )


def resident_mb() -> float:
    """Return the resident memory of this process in megabytes, 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    if not status.is_file():
        return 0.0
    return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

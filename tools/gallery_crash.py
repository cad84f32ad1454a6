"""Kill a process that is writing, again and again, and look whether the gallery kept every promise.

    ./run exec python tools/gallery_crash.py 200 [--folder DIR] [--json [FILE]]

A child process changes a gallery at random. Before a change it says what the gallery will then hold, and
after it that the change is durable. Whatever moment it is killed at, the reopened gallery must hold either
the last acknowledged state or the one that was announced, never anything between or besides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.json_output import add_json_option, report
from face_recognition_node.cli.options import add_progress
from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.gallery.gallery import Gallery, GalleryConfig, NewTemplate, Snapshot
from face_recognition_node.vision.faces import HeadPose

FINGERPRINT = "crash-test"
MOST_PEOPLE = 25
_WRITER = "--be-the-writer"
People = dict[str, tuple[str, ...]]
"""What a gallery holds: each (unique) name with the digests of that person's templates."""


@dataclass(frozen=True, slots=True)
class CrashFigures:
    """What many kills did.

    Attributes:
        rounds: Kills.
        acknowledged: Changes acknowledged before them, in all.
        interrupted: Kills that hit a change that had been announced and not acknowledged.
        survived: Of those, changes that had become durable all the same.
        failures: One sentence for each broken promise; must be empty.
        slowest_open_s: Longest time to reopen the gallery.
    """

    rounds: int
    acknowledged: int
    interrupted: int
    survived: int
    failures: tuple[str, ...]
    slowest_open_s: float

    def __str__(self) -> str:
        """Return the figures as text."""
        lines = [
            f"{self.rounds} kills, {self.acknowledged} acknowledged changes, {self.interrupted} interrupted "
            f"({self.survived} of them durable); slowest reopening {self.slowest_open_s:.2f} s",
            *self.failures,
        ]
        return "\n".join([*lines, f"{len(self.failures)} broken promises"])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def crash_test(
    folder: Path,
    rounds: int,
    *,
    seed: int = 0,
    longest_s: float = 0.4,
    progress: Callable[[int], None] = lambda done: None,
) -> CrashFigures:
    """Kill a writer ``rounds`` times at random moments and check the gallery after each."""
    rng = np.random.default_rng(seed)
    path = folder / "data" / "gallery.db"
    acknowledged = interrupted = survived = 0
    failures: list[str] = []
    slowest = 0.0
    before: str | None = None
    for number in range(rounds):
        lines = _write_and_kill(
            path, folder / "keys", int(rng.integers(2**31)), float(rng.uniform(0, longest_s))
        )
        states = [line["state"] for line in lines if line["kind"] in ("start", "done")]
        announced = lines[-1]["state"] if lines and lines[-1]["kind"] == "will" else None
        acknowledged += sum(line["kind"] == "done" for line in lines)
        interrupted += announced is not None
        if states and before is not None and states[0] != before:
            failures.append(
                f"round {number}: the writer found another state than was checked before it started"
            )
        started = time.perf_counter()
        try:
            with _open(path, folder / "keys") as gallery:
                slowest = max(slowest, time.perf_counter() - started)
                before = digest(people(gallery.snapshot()))
                failures += [f"round {number}: {problem}" for problem in gallery.verify().problems]
        except FaceRecognitionError as error:
            failures.append(f"round {number}: the gallery does not open: {error}")
            break
        if states and before not in (states[-1], announced):
            failures.append(f"round {number}: neither the acknowledged nor the announced state ({lines[-1]})")
        survived += before == announced
        progress(number + 1)
    return CrashFigures(rounds, acknowledged, interrupted, survived, tuple(failures), slowest)


def people(snapshot: Snapshot) -> People:
    """Return what a snapshot holds."""
    return {
        person.name: tuple(sorted(_mark(t.embedding) for t in snapshot.templates_of(person.person_id)))
        for person in snapshot.persons.values()
    }


def digest(state: People) -> str:
    """Return a short text that differs where the states differ."""
    return hashlib.sha256(json.dumps(sorted(state.items())).encode()).hexdigest()[:16]


def _mark(embedding: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(embedding.tobytes()).hexdigest()[:8]


def _open(path: Path, keys: Path) -> Gallery:
    return Gallery.open(path, FINGERPRINT, GalleryConfig(poll_interval_s=0.0), keys_folder=keys)


def _write_and_kill(path: Path, keys: Path, seed: int, delay_s: float) -> list[dict[str, str]]:
    """Start a writer, kill it ``delay_s`` after it is ready, and return what it said."""
    command = [sys.executable, __file__, _WRITER, str(path), str(keys), str(seed)]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None  # it is a pipe
        first = writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
        said = first + writer.stdout.read()
    lines = said.split(b"\n")[:-1]  # what follows the last line's end was cut off by the kill
    return [json.loads(line) for line in lines]


def write_forever(path: Path, keys: Path, seed: int) -> None:
    """Change a gallery at random until killed, saying so on standard output."""
    rng = np.random.default_rng(seed)
    with _open(path, keys) as gallery:
        state = people(gallery.snapshot())
        _say("start", state)
        undoable: list[People] = []
        while True:
            after, act, is_recorded = _random_change(gallery, state, undoable, rng)
            _say("will", after)
            act()
            _say("done", after)
            undoable = [*undoable, state][-50:] if is_recorded else undoable
            state = after


def _random_change(
    gallery: Gallery, state: People, undoable: list[People], rng: np.random.Generator
) -> tuple[People, Callable[[], object], bool]:
    """Return a next state, what brings it about, and whether it can be undone."""
    ids = {person.name: person.person_id for person in gallery.snapshot().persons.values()}
    names = sorted(state)
    choice = int(rng.integers(7)) if len(names) > 2 else 0
    if len(names) > MOST_PEOPLE:
        choice = 4
    one, two = (
        (names[int(at)] for at in rng.choice(len(names), 2, replace=False)) if len(names) > 1 else ("", "")
    )
    name = f"{rng.integers(2**40):x}"
    vectors = rng.normal(size=(int(rng.integers(1, 6)), 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    templates = [NewTemplate(vector, 0.5, HeadPose(0.0, 0.0, 0.0)) for vector in vectors]
    marks = tuple(_mark(template.embedding) for template in templates)
    rest = {key: value for key, value in state.items() if key != one}
    if choice == 0:
        return {**state, name: tuple(sorted(marks))}, lambda: gallery.add_person(name, templates), True
    if choice == 1:
        return {**rest, name: state[one]}, lambda: gallery.rename(ids[one], name), True
    if choice == 2 and len(state[one]) < 50:
        more = tuple(sorted(state[one] + marks))
        return {**state, one: more}, lambda: gallery.add_templates(ids[one], templates), True
    if choice == 3 and len(state[one]) + len(state[two]) < 50:
        both = {key: value for key, value in rest.items() if key != two}
        merged = {**both, one: tuple(sorted(state[one] + state[two]))}
        return merged, lambda: gallery.merge(ids[one], ids[two]), True
    if choice == 5 and undoable:
        return undoable.pop(), gallery.undo, False
    if choice == 6:
        undoable.clear()
        return rest, lambda: gallery.forget(ids[one], final=True), False
    return rest, lambda: gallery.forget(ids[one]), True


def _say(kind: str, state: People) -> None:
    line = json.dumps({"kind": kind, "state": digest(state)}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("rounds", type=int, metavar="N", help="kill a writing process so many times")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the files are made (default: the temporary folder)"
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Test and print; return 1 if a promise was broken."""
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        progress_bar(total=arguments.rounds, unit="kill", shown=arguments.progress) as bar,
    ):
        figures = crash_test(Path(name), arguments.rounds, progress=lambda done: bar.update(1))
    report(str(figures), figures.to_dict(), arguments.json)
    return 1 if figures.failures else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [_WRITER]:
        write_forever(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    sys.exit(run_tool(__doc__, configure, run))

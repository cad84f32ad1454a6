"""Kill a process that is writing, again and again, and look whether the gallery kept every promise.

    ./run exec python tools/gallery_crash.py 200 [--folder DIR] [--json [FILE]]

A child process changes a gallery at random: it adds, enrolls (with strangers taken in, as the action does),
renames, merges, forgets, imports, exports, undoes and does again. Before a change it says what the gallery
will then hold, and after it that the change is durable. Whatever moment it is killed at, the reopened gallery
must hold either the last acknowledged state or the one that was announced, never anything between or besides.
Nothing may be left over: no draft of an export, no damaged export or key, no byte of who was forgotten.
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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.options import add_json_option, add_progress, report
from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery.files import KEY_BYTES
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, Snapshot
from face_recognition_node.gallery.transfer import read_export
from face_recognition_node.vision.faces import HeadPose

FINGERPRINT = "crash-test"
MOST_PEOPLE = 25
STEPS = (
    "add", "stranger", "enroll", "rename", "add views", "merge", "undo", "redo", "import", "export", "forget",
    "forget for good",
)  # fmt: skip
_WRITER = "--be-the-writer"
# what a gallery holds: each (unique) name with the digests of that person's templates
People = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class CrashFigures:
    """What many kills did."""

    rounds: int  # kills
    acknowledged: int  # changes acknowledged before them, in all
    interrupted: int  # kills that hit a change that had been announced and not acknowledged
    survived: int  # of those, changes that had become durable all the same
    failures: tuple[str, ...]  # one sentence for each broken promise; must be empty
    leftovers: tuple[str, ...]  # one sentence for each thing that stayed and should not; must be empty
    kinds: dict[str, int]  # how often each kind of change was begun
    slowest_open_s: float  # longest time to reopen the gallery

    def __str__(self) -> str:
        """Return the figures as text."""
        lines = [
            f"{self.rounds} kills, {self.acknowledged} acknowledged changes, {self.interrupted} interrupted "
            f"({self.survived} of them durable); slowest reopening {self.slowest_open_s:.2f} s",
            "begun: " + ", ".join(f"{kind} {n}" for kind, n in sorted(self.kinds.items())),
            *self.failures,
            *self.leftovers,
        ]
        return "\n".join([*lines, f"{len(self.failures)} broken promises, {len(self.leftovers)} leftovers"])

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
    leftovers: list[str] = []
    kinds: Counter[str] = Counter()
    slowest = 0.0
    before: str | None = None
    for number in range(rounds):
        lines = _write_and_kill(
            path, folder / "keys", int(rng.integers(2**31)), float(rng.uniform(0, longest_s))
        )
        kinds.update(line["what"] for line in lines if line["kind"] == "will")
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
        gone = {text for line in lines if line["kind"] == "done" for text in line["gone"]}
        if before == announced:
            gone |= set(lines[-1]["gone"])
        leftovers += [f"round {number}: {sentence}" for sentence in _leftovers(folder, gone)]
        progress(number + 1)
    return CrashFigures(
        rounds, acknowledged, interrupted, survived, tuple(failures), tuple(leftovers), dict(kinds), slowest
    )


def _leftovers(folder: Path, gone: set[str]) -> Iterator[str]:
    """Yield what should not be in the files of a gallery that was closed properly."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.parent.name == "data" and path.name != "gallery.db":
            yield f"{path.name} stayed"
        elif path.suffix == ".part" and content:
            yield f"the draft {path.name} stayed, {len(content)} bytes"
        elif path.suffix == ".key" and len(content) != KEY_BYTES:
            yield f"a key of {len(content)} bytes"
        elif path.suffix == ".export":
            try:
                read_export(path, FINGERPRINT)
            except FaceRecognitionError as error:
                yield str(error)
            continue  # it may hold anybody who was there when it was made
        yield from (
            f"{text} was forgotten and is in {path.name}" for text in gone if text.encode() in content
        )


def people(snapshot: Snapshot) -> People:
    """Return what a snapshot holds."""
    return {
        person.label: tuple(sorted(_mark(t.embedding) for t in snapshot.templates_of(person.person_id)))
        for person in snapshot.persons.values()
    }


def digest(state: People) -> str:
    """Return a short text that differs where the states differ."""
    return hashlib.sha256(json.dumps(sorted(state.items())).encode()).hexdigest()[:16]


def _mark(embedding: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(embedding.tobytes()).hexdigest()[:8]


def _open(path: Path, keys: Path) -> Gallery:
    return Gallery.open(path, FINGERPRINT, GalleryConfig(poll_interval_s=0.0), keys_folder=keys)


def _write_and_kill(path: Path, keys: Path, seed: int, delay_s: float) -> list[dict[str, Any]]:
    """Start a writer, kill it ``delay_s`` after it is ready, and return its output."""
    command = [sys.executable, __file__, _WRITER, str(path), str(keys), str(seed)]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None  # it is a pipe
        first = writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
        output = first + writer.stdout.read()
    lines = output.split(b"\n")[:-1]  # what follows the last line's end was cut off by the kill
    return [json.loads(line) for line in lines]


@dataclass(frozen=True, slots=True)
class _Step:
    """A change to be made."""

    what: str  # its kind
    after: People  # what the gallery holds then
    act: Callable[[], object]  # makes it
    is_recorded: bool = True  # it can be undone
    gone: tuple[str, ...] = ()  # names and ids that no file may hold then


def write_forever(path: Path, keys: Path, seed: int) -> None:
    """Change a gallery at random until killed, saying so on standard output."""
    rng = np.random.default_rng(seed)
    with _open(path, keys) as gallery:
        state = people(gallery.snapshot())
        _say("start", state)
        undoable: list[People] = []
        undone: list[People] = []
        while True:
            step = _random_step(gallery, state, undoable, undone, rng)
            _say("will", step.after, step)
            step.act()
            _say("done", step.after, step)
            if step.what == "undo":
                undoable, undone = undoable[:-1], [*undone, state]
            elif step.what == "redo":
                undoable, undone = [*undoable, state], undone[:-1]
            elif step.what != "export":
                undoable, undone = [*undoable, state][-50:] if step.is_recorded else [], []
            state = step.after


def _random_step(
    gallery: Gallery, state: People, undoable: list[People], undone: list[People], rng: np.random.Generator
) -> _Step:
    """Return a next change."""
    persons = {person.label: person for person in gallery.snapshot().persons.values()}
    names = sorted(state)
    what = STEPS[int(rng.integers(len(STEPS)))] if len(names) > 2 else "add"
    if len(names) > MOST_PEOPLE:
        what = "forget"
    one, two = (
        (names[int(at)] for at in rng.choice(len(names), 2, replace=False)) if len(names) > 1 else ("", "")
    )
    name = f"{rng.integers(2**40):010x}"
    templates = _made_up(rng)
    marks = tuple(sorted(_mark(template.embedding) for template in templates))
    rest = {key: value for key, value in state.items() if key != one}
    both = {key: value for key, value in rest.items() if key != two}
    if what == "add":
        return _Step(what, {**state, name: marks}, lambda: gallery.add_person(name, templates))
    if what == "stranger":
        after = {**state, name: marks}
        return _Step(what, after, lambda: gallery.add_person(name, templates, is_stranger=True), False)
    known = persons[one]
    strangers = [label for label, person in persons.items() if person.is_stranger][:2]
    if what == "enroll" and strangers:
        others = {key: value for key, value in state.items() if key not in strangers}
        views = tuple(sorted(marks + tuple(mark for label in strangers for mark in state[label])))
        ids = [persons[label].person_id for label in strangers]
        return _Step(what, {**others, name: views}, lambda: gallery.enroll(name, templates, ids))
    if what == "rename":
        return _Step(what, {**rest, name: state[one]}, lambda: gallery.rename(known.person_id, name))
    if what == "add views" and len(state[one]) < 50 and not known.is_stranger:
        after = {**state, one: tuple(sorted(state[one] + marks))}
        return _Step(what, after, lambda: gallery.add_templates(known.person_id, templates))
    is_plain = not known.is_stranger or persons[two].is_stranger
    if what == "merge" and len(state[one]) + len(state[two]) < 50 and is_plain:
        after = {**both, one: tuple(sorted(state[one] + state[two]))}
        return _Step(what, after, lambda: gallery.merge(known.person_id, persons[two].person_id))
    if what == "undo" and undoable:
        return _Step(what, undoable[-1], gallery.undo, False)
    if what == "redo" and undone:
        return _Step(what, undone[-1], gallery.redo, False)
    if what == "import":
        return _Step(what, {**state, name: marks}, lambda: _import(gallery, name, templates))
    if what == "export":
        path = _outside(gallery, "all.export")
        return _Step(what, state, lambda: gallery.export_to(path, overwrite=True), False)
    if what == "forget":
        return _Step(what, rest, lambda: gallery.forget(known.person_id))
    gone = (known.person_id, known.name, *known.aliases)
    return _Step("forget for good", rest, lambda: gallery.forget(known.person_id, final=True), False, gone)


def _made_up(rng: np.random.Generator) -> list[NewTemplate]:
    vectors = rng.normal(size=(int(rng.integers(1, 6)), 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return [NewTemplate(vector, 0.5, HeadPose(0.0, 0.0, 0.0)) for vector in vectors]


def _import(gallery: Gallery, name: str, templates: list[NewTemplate]) -> None:
    """Import a file with one person, made by another gallery."""
    path = _outside(gallery, "one.export")
    with Gallery.open(None, FINGERPRINT) as other:
        other.add_person(name, templates)
        other.export_to(path, overwrite=True)
    gallery.import_from(path)


def _outside(gallery: Gallery, name: str) -> Path:
    assert gallery.path is not None  # it is in a file
    return gallery.path.parent.parent / "exports" / name


def _say(kind: str, state: People, step: _Step | None = None) -> None:
    what, gone = ("", ()) if step is None else (step.what, step.gone)
    line = json.dumps({"kind": kind, "state": digest(state), "what": what, "gone": gone}) + "\n"
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
    """Test and print; return 1 if a promise was broken or anything is left over."""
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        progress_bar(total=arguments.rounds, unit="kill", shown=arguments.progress) as bar,
    ):
        figures = crash_test(Path(name), arguments.rounds, progress=lambda done: bar.update(1))
    report(str(figures), figures.to_dict(), arguments.json)
    return 1 if figures.failures or figures.leftovers else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [_WRITER]:
        write_forever(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    sys.exit(run_tool(__doc__, configure, run))

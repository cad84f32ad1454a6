"""Search a gallery at the camera's rate while it is being changed, and look whether anything goes wrong.

./run exec python tools/gallery_concurrency.py SECONDS [--folder DIR] [--json [FILE]]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.benchmark.gallery import made_up_means, made_up_views
from face_recognition_node.cli.options import add_json_option, report
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, Snapshot
from face_recognition_node.vision.faces import FloatArray, HeadPose

QUERIES = 5
MOST_PEOPLE = 200


@dataclass(frozen=True, slots=True)
class ConcurrencyFigures:
    """What happened; times in milliseconds."""

    seconds: float  # how long it went on
    edits: int  # changes made
    searches: int  # searches of 5 queries made meanwhile
    failures: tuple[str, ...]  # one sentence for each thing that went wrong; must be empty
    edit_ms: float  # median time of a change
    edit_p99_ms: float  # its 99th percentile
    search_ms: float  # median time of a search, taking the snapshot included
    search_p99_ms: float  # its 99th percentile
    search_max_ms: float  # the longest search

    def __str__(self) -> str:
        """Return the figures as text."""
        lines = [
            f"{self.edits} changes and {self.searches} searches in {self.seconds:.1f} s: "
            f"{len(self.failures)} failures",
            f"change {self.edit_ms:.1f} ms (p99 {self.edit_p99_ms:.1f}), "
            f"search {self.search_ms:.2f} ms (p99 {self.search_p99_ms:.2f}, max {self.search_max_ms:.2f})",
        ]
        return "\n".join([*lines, *self.failures[:20]])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass
class _Tally:
    searches: list[float] = field(default_factory=list)
    edits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def concurrency_test(
    gallery: Gallery, seconds: float, *, edits_hz: float = 20.0, searches_hz: float = 30.0, seed: int = 0
) -> ConcurrencyFigures:
    """Change ``gallery`` and search it at the same time, for so long, checking every answer."""
    tally = _Tally()
    end = time.monotonic() + seconds
    reader = threading.Thread(target=_guarded, args=(_read, gallery, end, searches_hz, seed + 1, tally))
    reader.start()
    _guarded(_edit, gallery, end, edits_hz, seed, tally)
    reader.join()
    searches, edits = np.array(tally.searches or [0.0]) * 1e3, np.array(tally.edits or [0.0]) * 1e3
    return ConcurrencyFigures(
        seconds=seconds,
        edits=len(tally.edits),
        searches=len(tally.searches),
        failures=tuple(tally.failures),
        edit_ms=float(np.median(edits)),
        edit_p99_ms=float(np.percentile(edits, 99)),
        search_ms=float(np.median(searches)),
        search_p99_ms=float(np.percentile(searches, 99)),
        search_max_ms=float(searches.max()),
    )


def _guarded(
    work: Callable[..., None], gallery: Gallery, end: float, hz: float, seed: int, tally: _Tally
) -> None:
    try:
        work(gallery, end, hz, np.random.default_rng(seed), tally)
    except Exception as error:  # whatever it is, it is what this test looks for
        tally.failures.append(f"{type(error).__name__}: {error}")


def _read(gallery: Gallery, end: float, hz: float, rng: np.random.Generator, tally: _Tally) -> None:
    version = -1
    while time.monotonic() < end:
        due = time.monotonic() + 1 / hz
        queries = made_up_means(QUERIES, rng)
        started = time.perf_counter()
        snapshot = gallery.snapshot()
        answers = snapshot.search(queries)
        tally.searches.append(time.perf_counter() - started)
        if snapshot.version < version:
            tally.failures.append(f"version {snapshot.version} came after {version}")
        version = snapshot.version
        tally.failures += [problem for answer in answers for problem in _torn(snapshot, answer)]
        time.sleep(max(0.0, due - time.monotonic()))


def _torn(snapshot: Snapshot, answer: tuple[Any, ...]) -> list[str]:
    """Return what does not fit together in an answer and the snapshot it came from."""
    problems = []
    if len({match.person_id for match in answer}) != len(answer):
        problems.append(f"version {snapshot.version}: a person was answered twice")
    for match in answer:
        person = snapshot.persons.get(match.person_id)
        if person is None or match.template_id not in person.template_ids:
            problems.append(f"version {snapshot.version}: {match} is not in the snapshot it was found in")
    if sum(person.n_templates for person in snapshot.persons.values()) != snapshot.n_templates:
        problems.append(f"version {snapshot.version}: persons and templates do not add up")
    return problems


def _edit(gallery: Gallery, end: float, hz: float, rng: np.random.Generator, tally: _Tally) -> None:
    while time.monotonic() < end:
        due = time.monotonic() + 1 / hz
        started = time.perf_counter()
        added = _random_edit(gallery, rng)
        tally.edits.append(time.perf_counter() - started)
        if added is not None:
            person_id, view = added
            found = gallery.snapshot().search(view[None], 1)[0]
            if not found or found[0].person_id != person_id or found[0].similarity < 0.999:
                tally.failures.append(f"{person_id} was added and not found by the next snapshot: {found}")
        time.sleep(max(0.0, due - time.monotonic()))


def _random_edit(gallery: Gallery, rng: np.random.Generator) -> tuple[str, FloatArray] | None:
    """Make one change; return the id and a view of a person who was added."""
    persons = list(gallery.snapshot().persons.values())
    choice = int(rng.integers(6)) if len(persons) > 3 else 0
    if len(persons) > MOST_PEOPLE:
        choice = 4
    one, two = (
        (persons[int(at)] for at in rng.choice(len(persons), 2, replace=False)) if choice else (None, None)
    )
    if one is None or two is None or choice == 1:
        views = made_up_views(np.repeat(made_up_means(1, rng), int(rng.integers(2, 6)), axis=0), rng)
        new = [NewTemplate(view, 0.8, HeadPose(0.0, 0.0, 0.0)) for view in views]
        return gallery.add_person("New", new).person_id, new[0].embedding
    if choice == 2:
        gallery.rename(one.person_id, "Renamed")
    elif choice == 3 and one.n_templates + two.n_templates <= 60:
        gallery.merge(one.person_id, two.person_id)
    elif choice == 5 and one.n_templates > 1:
        gallery.split(one.template_ids[:1], "Split")
    else:
        gallery.forget(one.person_id, final=bool(rng.integers(2)))
    return None


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("seconds", type=float, metavar="S", help="length of the test, in seconds")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the files are made (default: the temporary folder)"
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Test and print; return 1 if anything went wrong."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path, keys = Path(name) / "data" / "gallery.db", Path(name) / "keys"
        with Gallery.open(path, "concurrency", keys_folder=keys) as gallery:
            figures = concurrency_test(gallery, arguments.seconds)
            problems = gallery.verify().problems
    report("\n".join([str(figures), *problems]), {**figures.to_dict(), "problems": problems}, arguments.json)
    return 1 if figures.failures or problems else 0


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

"""Forget people for good, again and again, and look for every byte string of theirs in the files after each.

    ./run exec python tools/gallery_forget.py 6000 [--folder DIR] [--json [FILE]]

People come, get other names, are met as strangers, merged, forgotten for a while and brought back, in
sessions of their own or shared, so that pages of the file fill, split and empty. After each final forget all
names, ids, views and names of sessions that were this person's alone are looked for, whole and in pieces.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.benchmark.gallery import made_up_means
from face_recognition_node.cli.options import add_json_option, add_progress, report
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery.gallery import Gallery, NewTemplate
from face_recognition_node.vision.faces import FloatArray, HeadPose

PIECE = 12  # bytes of an embedding that are looked for, at every second number
WORDS = ("Zoë", "Anna", "O'Neill", 'the "Boss"', "Łukasz", "李", "Müller-Lüdenscheidt", "María de la Cruz")


@dataclass(slots=True)
class Known:
    """All that the files may hold of one person."""

    texts: set[str] = field(default_factory=set)  # names, ids, and names of sessions of this person alone
    vectors: list[FloatArray] = field(default_factory=list)  # embeddings

    def strings(self) -> Iterator[bytes]:
        """Yield what must not be found."""
        for text in self.texts:
            yield text.encode()
            yield json.dumps(text)[1:-1].encode()
            for word in text.split():
                if len(word) >= 12 and word not in WORDS and not word.startswith("stranger-"):
                    half = len(word) // 2
                    yield from (word[:half].encode(), word[half:].encode())
        for vector in self.vectors:
            raw = vector.astype("<f4").tobytes()
            yield from (raw[at : at + PIECE] for at in range(0, len(raw) - PIECE + 1, 8))


@dataclass(frozen=True, slots=True)
class ForgetFigures:
    """What many final forgets left."""

    forgets: int  # final forgets
    strings: int  # byte strings looked for, in all
    found: tuple[str, ...]  # one sentence for each that was found; must be empty
    largest_file: int  # bytes

    def __str__(self) -> str:
        """Return the figures as text."""
        return "\n".join(
            [
                f"{self.forgets} final forgets, {self.strings} byte strings looked for "
                f"(files up to {self.largest_file / 1e6:.1f} MB): {len(self.found)} found",
                *self.found[:20],
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


class Crowd:
    """People of one gallery, and what the files hold of each."""

    def __init__(self, gallery: Gallery, rng: np.random.Generator) -> None:
        self._gallery, self._rng = gallery, rng
        self.known: dict[str, Known] = {}

    def change(self) -> None:
        """Make one random change that keeps everybody."""
        choice = int(self._rng.integers(9)) if len(self.known) > 10 else 0
        gallery = self._gallery
        one, two = (self._anyone(), self._anyone()) if self.known else ("", "")
        if choice <= 2:
            self._add()
        elif choice == 3 and one != two:
            gallery.merge(one, two)
            other = self.known.pop(two)
            self.known[one].texts |= other.texts
            self.known[one].vectors += other.vectors
        elif choice == 4:
            self.known[one].texts.add(gallery.rename(one, self._name()).name)
        elif choice == 5:
            gallery.forget(one)
            gallery.undo()
        elif choice == 6:
            views = self._views()
            self.known[one].vectors += [view.embedding for view in views]
            gallery.add_templates(one, views)
        elif choice == 7 and gallery.snapshot().person(one).n_templates > 1:
            gallery.remove_templates(gallery.snapshot().person(one).template_ids[:1])
        elif choice == 8:
            gallery.set_session(self._name() if self._rng.random() < 0.5 else "shared")

    def forget_someone(self) -> Known:
        """Forget somebody for good and return all that is known of that person."""
        key = self._anyone()
        self._gallery.forget(key, final=True)
        return self.known.pop(key)

    def _add(self) -> None:
        views = self._views()
        is_stranger = self._rng.random() < 0.2
        person = self._gallery.add_person("" if is_stranger else self._name(), views, is_stranger=is_stranger)
        texts = {person.person_id, *([person.name] if person.name else [])}
        self.known[person.person_id] = Known(texts, [view.embedding for view in views])
        if self._rng.random() < 0.1:
            self._add_in_own_session()

    def _add_in_own_session(self) -> None:
        before, name, views = self._gallery.session.name, self._name(), self._views()
        self._gallery.set_session(name)
        person = self._gallery.add_person(self._name(), views)
        self._gallery.set_session(before)
        texts = {person.person_id, person.name, name}
        self.known[person.person_id] = Known(texts, [view.embedding for view in views])

    def _anyone(self) -> str:
        return list(self.known)[int(self._rng.integers(len(self.known)))]

    def _name(self) -> str:
        word = WORDS[int(self._rng.integers(len(WORDS)))]
        return f"{word} {''.join(chr(97 + int(n)) for n in self._rng.integers(0, 26, 14))}"

    def _views(self) -> list[NewTemplate]:
        vectors = made_up_means(int(self._rng.integers(1, 9)), self._rng)
        return [NewTemplate(vector, 0.8, HeadPose(0.0, 0.0, 0.0)) for vector in vectors]


def forget_test(
    folder: Path, forgets: int, *, seed: int = 0, progress: Callable[[int], None] = lambda done: None
) -> ForgetFigures:
    """Forget so many people for good in a gallery below ``folder`` and search the files after each."""
    rng = np.random.default_rng(seed)
    path = folder / "data" / "gallery.db"
    found: list[str] = []
    n_strings = largest = 0
    config = GalleryConfig(poll_interval_s=0.0, max_templates_per_person=10000)
    with Gallery.open(path, "forget-test", config, keys_folder=folder / "keys") as gallery:
        crowd = Crowd(gallery, rng)
        for number in range(forgets):
            for _ in range(int(rng.integers(1, 4))):
                crowd.change()
            while len(crowd.known) < 5:
                crowd.change()
            gone = crowd.forget_someone()
            content = {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}
            strings = set(gone.strings())
            n_strings += len(strings)
            largest = max(largest, *map(len, content.values()))
            found += [
                f"forget {number}: {string!r} in {one.name}"
                for one, data in content.items()
                for string in strings
                if string in data
            ]
            progress(number + 1)
    return ForgetFigures(forgets, n_strings, tuple(found), largest)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("forgets", type=int, metavar="N", help="how many people are forgotten")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes (default %(default)s)")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the files are made (default: the temporary folder)"
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Test and print; return 1 if anything was found."""
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        progress_bar(total=arguments.forgets, unit="forget", shown=arguments.progress) as bar,
    ):
        figures = forget_test(
            Path(name), arguments.forgets, seed=arguments.seed, progress=lambda done: bar.update(1)
        )
    report(str(figures), figures.to_dict(), arguments.json)
    return 1 if figures.found else 0


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

"""Play the people of an archive who resemble each other most, beside pairs drawn at random.

    ./run exec python tools/measure_lookalikes.py --teacher TEACHER.onnx ORL.zip RAP3DF.zip LFW.zip

Who resembles whom is said by another network, the teacher: its faces are (N, 3, 112, 112) float, RGB 0 to
255, in this project's alignment, and its first output are embeddings. Each pair plays three games through
the whole pipeline, as ``evaluate replay`` does; ``--json`` prints its reports:

* one enrolled: the first is enrolled from three pictures, then both are seen. The second must get no name;
* nobody enrolled: both are seen one after the other, each with half of the pictures (the first is a known
  stranger when the second comes), and then both come back. No id may be given to both;
* both enrolled, from three pictures each, then both are seen. Each must get the own name.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from face_collections import FEWEST, find_faces

from face_recognition_node.assembly import Models, load_models
from face_recognition_node.config import Config
from face_recognition_node.evaluation.replay.replay import make_bench, replay
from face_recognition_node.evaluation.replay.replay_report import ReplayReport
from face_recognition_node.evaluation.replay.scenario import Enrollment, Episode, FaceRule, Play, Scenario
from face_recognition_node.media.sources import natural_key
from face_recognition_node.vision.faces import FloatArray

ENROLLED_FROM, RATE_HZ = 3, 2.0

Pair = tuple[str, str]


def main() -> None:
    """Print a line for each game of the hardest and of as many easy pairs of each archive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, metavar="TEACHER.onnx")
    parser.add_argument("--pairs", type=int, default=10, help="of each kind and archive")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    models = load_models(Config())
    for archive in arguments.archives:
        centers = teach(archive, models, arguments.teacher)
        for kind, pairs in choose_pairs(centers, arguments.pairs).items():
            for game, episodes in games(archive, pairs).items():
                scenario = Scenario(f"{archive.name}, {kind} pairs, {game}", "", tuple(episodes))
                report = replay(scenario, archive.parent, lambda _: make_bench(models, Config()))
                line = f"{scenario.name}: {describe(report)}"
                print(json.dumps(report.to_dict()) if arguments.json else line, flush=True)


def teach(archive: Path, models: Models, teacher: Path) -> dict[str, FloatArray]:
    """Return the teacher's mean embedding, a unit vector, of each person with pictures enough."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(teacher), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    views: dict[str, list[FloatArray]] = defaultdict(list)
    for person, _, crop in find_faces(archive, models):
        rgb = np.ascontiguousarray(crop[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
        embedding = np.asarray(session.run(None, {name: rgb})[0][0], np.float32)
        views[person].append(embedding / np.linalg.norm(embedding))
    means = {person: np.mean(seen, axis=0) for person, seen in views.items() if len(seen) >= FEWEST}
    return {person: mean / np.linalg.norm(mean) for person, mean in means.items()}


def choose_pairs(centers: dict[str, FloatArray], number: int) -> dict[str, list[Pair]]:
    """Return the pairs most alike and pairs drawn at random, nobody in two pairs of a kind."""
    names = sorted(centers)
    vectors = np.stack([centers[name] for name in names])
    first, second = np.triu_indices(len(names), 1)
    alike = np.argsort(-(vectors @ vectors.T)[first, second])
    drawn = np.random.default_rng(0).permutation(len(first))
    chosen: dict[str, list[Pair]] = {}
    for kind, order in (("hard", alike), ("easy", drawn)):
        taken: set[str] = set()
        pairs = chosen[kind] = []
        for k in order.tolist():
            pair = names[first[k]], names[second[k]]
            if len(pairs) < number and not taken & {*pair}:
                pairs.append(pair)
                taken |= {*pair}
    return chosen


def games(archive: Path, pairs: list[Pair]) -> dict[str, list[Episode]]:
    """Return the episodes of each game, one a pair."""
    played: dict[str, list[Episode]] = {"one enrolled": [], "nobody enrolled": [], "both enrolled": []}
    pictures = list_pictures(archive)
    for first, second in pairs:
        one, other = pictures[first], pictures[second]
        name = f"{first} and {second}"
        turns = [person.show(person.shown[half::2]) for half in (0, 1) for person in (one, other)]
        played["one enrolled"].append(
            Episode(name, (one.enroll(),), (one.show_rest(), other.show(other.shown)))
        )
        played["nobody enrolled"].append(Episode(name, (), tuple(turns)))
        both = one.enroll(), other.enroll()
        played["both enrolled"].append(Episode(name, both, (one.show_rest(), other.show_rest())))
    return played


@dataclass
class Pictures:
    """A person's pictures in an archive."""

    name: str  # of the folder
    source: str  # the folder as `evaluate replay` names it
    # numbers of the pictures, from 1 in natural order, that show the face
    shown: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)  # numbers of the others (depth images)

    def enroll(self) -> Enrollment:
        """Return the enrollment from the first pictures."""
        return Enrollment(self.name, self.source, pictures=tuple(self.shown[:ENROLLED_FROM]))

    def show(self, numbers: list[int]) -> Play:
        """Return a track of some pictures."""
        skip = sorted({*self.shown, *self.hidden} - {*numbers})
        return Play(self.source, (FaceRule(self.name),), rate=RATE_HZ, skip=tuple(skip))

    def show_rest(self) -> Play:
        """Return a track of the pictures not enrolled from."""
        return self.show(self.shown[ENROLLED_FROM:])


def list_pictures(archive: Path) -> dict[str, Pictures]:
    """Return everybody's pictures by the name of the folder."""
    with zipfile.ZipFile(archive) as opened:
        names = [n for n in opened.namelist() if Path(n).suffix in (".pgm", ".png", ".webp") and "/" in n]
    people: dict[str, Pictures] = {}
    for name in sorted(names, key=natural_key):
        folder = Path(name).parent
        person = people.setdefault(folder.name, Pictures(folder.name, f"{archive.name}!{folder}"))
        number = len(person.shown) + len(person.hidden) + 1
        (person.hidden if name.endswith("_depth.png") else person.shown).append(number)
    return people


def describe(report: ReplayReport) -> str:
    """Return the rates in one line."""
    n_ids = sum(len(stranger.ids) for episode in report.episodes for stranger in episode.strangers)
    return (
        f"strangers named {report.false_positive_rate}; {report.shared_ids} of {n_ids} ids shared; "
        f"enrolled identified {report.identification_rate}, {report.wrong_seconds:g} s wrong"
    )


if __name__ == "__main__":
    main()

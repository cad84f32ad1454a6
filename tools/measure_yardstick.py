"""Measure how strangers fare while few people are enrolled, for docs/notes/performance.md.

    ./run exec python tools/measure_yardstick.py ORL.zip RAP3DF.zip LFW.zip

Some people are enrolled from three pictures, then strangers come one after the other, each for half of their
pictures, one track. Those neither named nor taken for a stranger seen before get an id. In the end all
come back for the other half. The rules are the node's own, asked after every picture as on the robot: a claim
counts that was made at any time. Only the tracker has no part in it, which would split tracks of pictures so
different. It prints, for each collection and number of people enrolled, over all draws:

* strangers named, before any stranger is known (with the 95 % interval over people), and as they come one
  after the other;
* taken: new strangers who got the id of another one (the parameter is strangers.false_match_rate);
* found: strangers who came back and got their own id;
* enrolled named, before any stranger is known and with all of them known;
* the oracle: how many of the enrolled the best fixed threshold on the cosine of the views pooled so far would
  have named at the same rate of strangers named, before any stranger is known. It is set in hindsight, for
  each line.

``--alike`` draws everybody of a round from the people most like one of them (a homogeneous gallery), and
``--mixed`` puts the archives together.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from face_collections import embed_people

from face_recognition_node.assembly import Models, load_models
from face_recognition_node.config import Config, StrangersConfig
from face_recognition_node.evaluation.bootstrap import estimate
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import NewTemplate, Template
from face_recognition_node.identity.comparison import pool
from face_recognition_node.identity.identity import IdentityResolver
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.tracking.tracker import Track
from face_recognition_node.vision.faces import Detection, FloatArray, IdentityState

ENROLLED_FROM, STEP_S = 3, 0.5

People = dict[str, list[NewTemplate]]


def main() -> None:
    """Embed the collections and print a line for each number of people enrolled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--enrolled", type=int, nargs="+", default=[1, 3], metavar="N")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--strangers", type=int, default=25)
    parser.add_argument("--alike", action="store_true", help="people of a round resemble one another")
    parser.add_argument("--mixed", action="store_true", help="all archives together")
    arguments = parser.parse_args()
    models = load_models(Config())
    collections: dict[str, People] = {}
    for archive in arguments.archives:
        collections["mixed" if arguments.mixed else archive.name] = collections.get("mixed", {}) | {
            f"{archive.name}/{name}": [NewTemplate.of(view) for view in views]
            for name, views in embed_people(archive, models).items()
        }
    for name, people in collections.items():
        for n_enrolled in arguments.enrolled:
            if n_enrolled + arguments.strangers > len(people):
                continue
            generator = np.random.default_rng(n_enrolled)
            tally = Tally()
            for _ in range(arguments.draws):
                Round(
                    models, people, n_enrolled, arguments.strangers, generator, tally, arguments.alike
                ).play()
            print(f"{name}, {n_enrolled} enrolled: {describe(tally)}", flush=True)


@dataclass
class Tally:
    """What happened in all rounds."""

    counts: Counter[str] = field(default_factory=Counter)  # by what is counted
    # of each stranger's track, who it is and whether it was named before any stranger was known
    named: list[tuple[str, bool]] = field(default_factory=list)
    strangers: list[float] = field(default_factory=list)  # each stranger's highest cosine to anybody enrolled
    # each enrolled person's highest cosine to their own views, where no other's is higher
    enrolled: list[float] = field(default_factory=list)

    def oracle(self) -> float:
        """Return the share of the enrolled above the threshold that names as many strangers as were named."""
        n_named = sum(is_named for _, is_named in self.named)
        highest = sorted(self.strangers, reverse=True)
        threshold = highest[n_named] if n_named < len(highest) else -1.0
        return float(np.mean(np.array(self.enrolled) > threshold))


@dataclass
class Round:
    """One gallery, from empty to the return of all strangers."""

    models: Models
    people: People
    n_enrolled: int
    n_strangers: int
    generator: np.random.Generator
    tally: Tally
    is_alike: bool = False

    def play(self) -> None:
        """Add what happens to the counts."""
        config, strangers = Config(), StrangersConfig()
        self.resolver = IdentityResolver(self.models.calibration, config.identity, strangers.false_match_rate)
        self.counts = self.tally.counts
        order = self.generator.permutation(self.cast()).tolist()
        others = order[self.n_enrolled : self.n_enrolled + self.n_strangers]
        with Gallery.open(None, "yardstick", dimension=self.models.embedder.dimension) as gallery:
            rest = {}
            for person in order[: self.n_enrolled]:
                views = self.shuffle(person)
                added = gallery.add_person(person, views[:ENROLLED_FROM])
                rest[added.person_id] = views[ENROLLED_FROM:]
            alone = gallery.snapshot()
            self.centers = {person_id: pool_templates(alone.templates_of(person_id)) for person_id in rest}
            for person_id, views in rest.items():
                own = [c[person_id] for c in self.cosines(views) if c[person_id] >= max(c.values())]
                self.tally.enrolled.append(max(own, default=-np.inf))
            self.meet_enrolled(rest, alone, "alone")
            back = {}
            for person in others:
                views = self.shuffle(person)
                first, later = views[: len(views) // 2], views[len(views) // 2 :]
                self.counts["new"] += 1
                self.tally.strangers.append(max(max(c.values()) for c in self.cosines(first)))
                self.tally.named.append((person, bool(self.meet(first, alone)[IdentityState.KNOWN])))
                claimed = self.meet(first, gallery.snapshot())
                self.counts["named"] += bool(claimed[IdentityState.KNOWN])
                self.counts["taken"] += bool(claimed[IdentityState.STRANGER])
                if not any(claimed.values()):
                    best = sorted(first, key=lambda view: -view.quality)[: strangers.maximum_views]
                    back[gallery.add_person("", best, is_stranger=True).person_id] = later
            full = gallery.snapshot()
            for person_id, later in back.items():
                found = self.meet(later, full)[IdentityState.STRANGER]
                self.counts["back"] += 1
                self.counts["found"] += person_id in found
                self.counts["other id"] += bool(found - {person_id})
            self.meet_enrolled(rest, full, "with strangers")

    def cast(self) -> list[str]:
        """Return who may play: everybody, or one drawn at random and the people most like that one."""
        names = sorted(self.people)
        if not self.is_alike:
            return names
        centers = np.stack([pool_templates(self.people[name]) for name in names])
        nearest = np.argsort(-(centers @ centers[self.generator.integers(len(names))]))
        return [names[k] for k in nearest[: self.n_enrolled + self.n_strangers]]

    def cosines(self, views: Sequence[NewTemplate]) -> list[dict[str, float]]:
        """Return after each view the cosine of those so far, pooled, to those of each enrolled person."""
        pooled = [pool_templates(views[:n]) for n in range(1, len(views) + 1)]
        return [
            {person_id: float(center @ one) for person_id, center in self.centers.items()} for one in pooled
        ]

    def shuffle(self, person: str) -> list[NewTemplate]:
        """Return a person's views in random order."""
        views = self.people[person]
        return [views[k] for k in self.generator.permutation(len(views))]

    def meet_enrolled(self, rest: People, snapshot: Snapshot, when: str) -> None:
        """Count how many of the enrolled get their name."""
        for person_id, views in rest.items():
            self.counts[f"enrolled {when}"] += 1
            self.counts[f"right {when}"] += person_id in self.meet(views, snapshot)[IdentityState.KNOWN]

    def meet(self, views: Sequence[NewTemplate], snapshot: Snapshot) -> dict[IdentityState, set[str]]:
        """Return whom a track of these views is claimed to be, at any time."""
        box = Detection(np.array([0.0, 0.0, 80.0, 100.0], np.float32), 0.99, np.zeros((5, 2), np.float32))
        track = Track(1, box, 0.0, 0.0, TrackEvidence(self.models.calibration.correlation_s))
        claimed: dict[IdentityState, set[str]] = {state: set() for state in IdentityState}
        for k, view in enumerate(views):
            track.last_stamp = STEP_S * k
            track.evidence.add(view.embedding, view.quality, track.last_stamp)
            _, (identity,) = self.resolver.resolve([track], snapshot, track.last_stamp, lambda same: same)
            if identity.person_id is not None:
                claimed[identity.state].add(identity.person_id)
        return claimed


def pool_templates(views: Sequence[NewTemplate] | Sequence[Template]) -> FloatArray:
    """Return the (D,) unit mean of views, weighted by quality."""
    return pool(np.stack([view.embedding for view in views]), [view.quality for view in views])[0]


def describe(tally: Tally) -> str:
    """Return the shares in one line."""
    counts = tally.counts
    right = counts["right alone"] / max(counts["enrolled alone"], 1)
    oracle = tally.oracle()
    named = estimate([is_named for _, is_named in tally.named], [who for who, _ in tally.named])

    def share(part: str, whole: str) -> str:
        return f"{100 * counts[part] / max(counts[whole], 1):.1f} %"

    return (
        f"strangers named {named} before a stranger is known, {share('named', 'new')} "
        f"one after the other; taken {share('taken', 'new')}; found {share('found', 'back')}, another's id "
        f"{share('other id', 'back')}; enrolled named {share('right alone', 'enrolled alone')}, with "
        f"strangers known {share('right with strangers', 'enrolled with strangers')}; "
        f"oracle {100 * oracle:.1f} %, named of it {right / max(oracle, 1e-9):.2f} "
        f"({counts['new']} strangers, {counts['enrolled alone']} enrolled)"
    )


if __name__ == "__main__":
    main()

"""Count newcomers who take over somebody else's stranger, for docs/notes/performance.md.

    ./run exec python tools/measure_takeover.py ORL.zip RAP3DF.zip LFW.zip

Of each archive (see ``face_collections.py``) the ten most alike people play all 90 ordered pairs: A is
met and gets a stranger's id; B, somebody else, is enrolled; then A comes back. The rules are the node's own,
without the tracker. It prints, for each archive:

* taken over: enrollments of B that joined A's stranger. It must be 0, and is the exit code otherwise;
* asked: enrollments that named A's stranger as perhaps the same and left the join to the operator;
* shared: tracks of B, before the enrollment, that were given A's stranger id;
* A named B: tracks of A, after the enrollment, that were given B's name.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from face_collections import People, embed_people

from face_recognition_node.assembly import Models, load_models
from face_recognition_node.config import Config
from face_recognition_node.enrollment.commit import store
from face_recognition_node.enrollment.goal import EnrollmentGoal
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.values import NewTemplate, Provenance
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.comparison import pool_views
from face_recognition_node.identity.identity import IdentityResolver
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.tracking.tracker import Track
from face_recognition_node.vision.faces import FaceView, Identity, IdentityState, embedding_of

PLAYERS, STEP_S = 10, 0.5


def main() -> int:
    """Play all pairs of each archive; return 1 if anybody was taken over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    arguments = parser.parse_args()
    models = load_models(Config())
    n_taken_over = 0
    for archive in arguments.archives:
        people = embed_people(archive, models)
        counts = play_pairs({name: people[name] for name in hardest(people, PLAYERS)}, models)
        n_taken_over += counts["taken over"]
        rates = ", ".join(f"{counts[what]} {what}" for what in ("taken over", "asked", "shared", "A named B"))
        print(f"{archive.name}: of {counts['pairs']} pairs {rates}", flush=True)
    return int(n_taken_over > 0)


def hardest(people: People, number: int) -> list[str]:
    """Return the two most alike people, then always the one most like anybody chosen before."""
    names = sorted(people)
    centers = np.stack([pool_views(people[name])[0] for name in names])
    cosines = centers @ centers.T
    np.fill_diagonal(cosines, -1.0)
    chosen = list(np.unravel_index(int(cosines.argmax()), cosines.shape))
    while len(chosen) < min(number, len(names)):
        nearest = cosines[:, chosen].max(axis=1)
        nearest[chosen] = -2.0
        chosen.append(int(nearest.argmax()))
    return [names[k] for k in chosen]


def play_pairs(people: People, models: Models) -> Counter[str]:
    """Return what happened over all ordered pairs of these people."""
    counts: Counter[str] = Counter()
    for first, second in itertools.permutations(people, 2):
        with Gallery.open(None, "takeover", dimension=models.embedder.dimension) as gallery:
            counts += play(people[first], people[second], gallery, models.calibration)
    return counts


def play(
    met: Sequence[FaceView], newcomer: Sequence[FaceView], gallery: Gallery, calibration: Calibration
) -> Counter[str]:
    """Return what happened when the newcomer was enrolled after somebody else had been met."""
    config = Config()
    first, later = met[::2], met[1::2]
    best = sorted(first, key=lambda view: -view.quality.overall)[: config.strangers.maximum_views]
    templates = [NewTemplate.of(view, Provenance.ADAPTED) for view in best]
    stranger = gallery.add_person("", templates, is_stranger=True).person_id
    shared = meet(newcomer, gallery, calibration).person_id == stranger
    stored = store(newcomer, EnrollmentGoal(name="B"), gallery, calibration)
    snapshot = gallery.snapshot()
    is_taken_over = stranger not in snapshot.persons or not snapshot.persons[stranger].is_stranger
    back = meet(later, gallery, calibration)
    return Counter({
        "pairs": 1,
        "taken over": int(is_taken_over),
        "asked": int(any(stranger in note for note in stored.notes) and not is_taken_over),
        "shared": int(shared),
        "A named B": int(back.state is IdentityState.KNOWN),
    })  # fmt: skip


def meet(views: Sequence[FaceView], gallery: Gallery, calibration: Calibration) -> Identity:
    """Return whom a track of these views is claimed to be at its end."""
    config = Config()
    resolver = IdentityResolver(calibration, config.identity, config.strangers.false_match_rate)
    last = STEP_S * (len(views) - 1)
    track = Track(1, views[-1].detection, 0.0, last, TrackEvidence(calibration.correlation_s))
    for k, view in enumerate(views):
        track.evidence.add(embedding_of(view), view.quality.overall, STEP_S * k)
    _, (identity,) = resolver.resolve([track], gallery.snapshot(), last, lambda same: same)
    return identity


if __name__ == "__main__":
    raise SystemExit(main())

"""How often a stranger's whole track gets a name: ``target_false_accept_rate`` put to the test.

People with several photographs are enrolled from three of them. Tracks are made of up to four photographs
of one person, each in three qualities, pooled as on the robot. Photographs of other days vary more than the
frames of a video, so that a stranger's track has more chances to be mistaken here than on a robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.bootstrap import Estimate, estimate
from face_recognition_node.evaluation.calibration import DoubleArray, LabelledFaces
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import NewTemplate
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.person_models import PersonModels
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.vision.faces import HeadPose, IntArray

TEMPLATES = 3
_MOST_PHOTOGRAPHS = 4
_MOST_QUALITIES = 3
_STEP_S = 0.3
_FRONTAL = HeadPose(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class TrackScores:
    """The smallest log false match rate that each track ever reached."""

    strangers: DoubleArray  # (S,) of tracks of people not enrolled, towards anybody
    enrolled: DoubleArray  # (E,) of tracks of enrolled people, towards themselves
    mistaken: DoubleArray  # (E,) of the same tracks, towards anybody else
    n_enrolled: int  # people enrolled at a time
    who: IntArray  # (S,) the strangers, each of whom may come in several galleries

    def named_strangers(self, limit: float) -> Estimate:
        """Return the share of strangers' tracks that reach a log rate, with its interval over people."""
        return estimate((self.strangers <= limit).astype(np.float64), self.who.tolist())

    def rate_at(self, target: float, calibration: Calibration) -> TrackRate:
        """Return what a target false accept rate gives, at the node's own limit for a long track."""
        limit = calibration.log_name_limit(target, self.n_enrolled)
        named = self.named_strangers(limit)
        return TrackRate(
            self.n_enrolled,
            target,
            named.value,
            (named.low, named.high),
            named.count,
            float((self.enrolled <= limit).mean()),
            float(((self.mistaken <= limit) & (self.mistaken < self.enrolled)).mean()),
        )


@dataclass(frozen=True, slots=True)
class TrackRate:
    """Open-set identification of whole tracks."""

    n_enrolled: int  # people in the gallery
    target: float  # target false accept rate
    # share of the `n_strangers` tracks of strangers ever named, with the ends of its 95 % interval over
    # people
    strangers_named: float
    strangers_interval: tuple[float, float]
    n_strangers: int
    enrolled_named: float  # share of enrolled people's tracks named rightly
    enrolled_mistaken: float  # share of them that looked more like somebody else, and enough so to be named

    def __str__(self) -> str:
        low, high = self.strangers_interval
        return (
            f"{self.n_enrolled} enrolled, target {self.target:g}: named are {self.strangers_named:.4f} "
            f"[{low:.4f}, {high:.4f}] of {self.n_strangers} strangers' tracks and "
            f"{self.enrolled_named:.3f} of the enrolled people's, "
            f"{self.enrolled_mistaken:.3f} of these wrongly"
        )


def play_tracks(
    calibration: Calibration,
    faces: LabelledFaces,
    n_enrolled: int,
    *,
    n_galleries: int = 4,
    n_strangers: int = 400,
    seed: int = 0,
) -> TrackScores:
    """Enroll random people several times, and compare tracks of them and of strangers with the gallery.

    Strangers, at most ``n_strangers`` a gallery, have as many photographs as those who are enrolled: a track
    of a single photograph gives a stranger fewer occasions to be taken for somebody than a visit before the
    robot does.

    Raises:
        InputError: If too few people have four photographs.
    """
    generator = np.random.default_rng(seed)
    people, counts = _count_photographs(faces)
    candidates = people[counts > TEMPLATES]
    if len(candidates) < n_enrolled:
        raise InputError(
            f"expected {n_enrolled} people with at least {TEMPLATES + 1} photographs, got {len(candidates)}"
        )
    strangers, who, enrolled, mistaken = [], [], [], []
    for _ in range(n_galleries):
        chosen = generator.permutation(candidates)[:n_enrolled]
        with Gallery.open(None, "track rates", dimension=faces.embeddings.shape[1]) as gallery:
            rest: dict[str, IntArray] = {}
            for person in chosen.tolist():
                shots = generator.permutation(_photographs(faces, person))
                templates = [_template(faces, shot) for shot in shots[:TEMPLATES].tolist()]
                rest[gallery.add_person(str(person), templates).person_id] = shots[TEMPLATES:]
            snapshot, models = gallery.snapshot(), PersonModels(calibration)
            for person_id, shots in rest.items():
                own, other = _best(faces, shots, calibration, models, snapshot, person_id)
                enrolled.append(own)
                mistaken.append(other)
            others = generator.permutation(np.setdiff1d(candidates, chosen))[:n_strangers]
            for person in others.tolist():
                shots = generator.permutation(_photographs(faces, person))
                strangers.append(_best(faces, shots, calibration, models, snapshot, None)[1])
                who.append(person)
    return TrackScores(
        np.array(strangers), np.array(enrolled), np.array(mistaken), n_enrolled, np.array(who, np.int64)
    )


def count_candidates(faces: LabelledFaces) -> int:
    """Return how many people have photographs enough to be enrolled and met again."""
    return int((_count_photographs(faces)[1] > TEMPLATES).sum())


def measure_comparisons_per_track(scores: TrackScores, target: float = 0.02) -> float:
    """Return how many independent comparisons one track is worth: measured over promised rate, at least 1.

    The measured rate is taken at the upper end of its 95 % interval over people. A few look-alikes more or
    less among some hundred strangers double or halve it, and the promise is to hold for people not drawn.
    """
    measured = scores.named_strangers(float(np.log(target / scores.n_enrolled)))
    return round(max(measured.high / target, 1.0), 1)


def _count_photographs(faces: LabelledFaces) -> tuple[IntArray, DoubleArray]:
    pairs = np.unique(np.stack([faces.identities, faces.photographs], axis=1), axis=0)
    people, counts = np.unique(pairs[:, 0], return_counts=True)
    return people, counts.astype(np.float64)


def _photographs(faces: LabelledFaces, person: int) -> IntArray:
    return np.unique(faces.photographs[faces.identities == person])


def _versions(faces: LabelledFaces, photograph: int) -> list[int]:
    """Return the rows of a photograph, best quality first."""
    rows = np.flatnonzero(faces.photographs == photograph)
    return [int(row) for row in rows[np.argsort(-faces.qualities[rows])][:_MOST_QUALITIES]]


def _template(faces: LabelledFaces, photograph: int) -> NewTemplate:
    best = _versions(faces, photograph)[0]
    return NewTemplate(faces.embeddings[best], float(faces.qualities[best]), _FRONTAL)


def _best(
    faces: LabelledFaces, shots: IntArray, calibration: Calibration,
    models: PersonModels, snapshot: Snapshot, own_id: str | None,
) -> tuple[float, float]:  # fmt: skip
    """Return the smallest log false match rates ever reached towards ``own_id`` and towards anybody else."""
    evidence = TrackEvidence(calibration.correlation_s)
    own = other = 0.0
    rows = [row for shot in shots[:_MOST_PHOTOGRAPHS].tolist() for row in _versions(faces, shot)]
    for k, row in enumerate(rows):
        evidence.add(faces.embeddings[row], float(faces.qualities[row]), k * _STEP_S)
        if evidence.embedding is None:
            continue
        for match in models.rank(evidence.embedding[None], [evidence.quality], snapshot)[0]:
            if match.person_id == own_id:
                own = min(own, match.log_false_match)
            else:
                other = min(other, match.log_false_match)
    return own, other

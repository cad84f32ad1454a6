"""How alike a track and a person are, when the person has several enrolled views.

The templates of a person are pooled into one vector, as the views of a track are (:func:`comparison.pool`),
and the two are compared once. To lean towards the templates nearest to the query found nobody more at an
equal number of false matches (ORL, RAP3DF, LFW; people unseen), but doubled the false matches of people with
many templates, which the tables, learned from pairs of views, do not know of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.identity.cohort import LARGEST, Cohort
from face_recognition_node.identity.comparison import pool

if TYPE_CHECKING:
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.gallery.values import Person
    from face_recognition_node.identity.calibration import Calibration
    from face_recognition_node.vision.faces import FloatArray

# entries as alike as different people are with a smaller chance than this are taken for one person
_LOG_CHANCE_OF_TWO = math.log(1e-4)
MOST_ENTRIES = 500  # of larger galleries the latest are compared with one another
# entries less alike are not one person, whatever the tables say, and need not be looked up in them
_LEAST_COSINE = 0.15
MOST_COMPARED = 8  # persons compared in full for one query; those further down the search cannot be named


@dataclass(frozen=True, slots=True)
class Match:
    """One person that a track might be."""

    person_id: str  # who
    is_stranger: bool  # whether that is a provisional person
    similarity: float  # cosine between the track and the person's model
    log_ratio: float  # natural log-likelihood ratio of this person against somebody else
    log_false_match: float  # natural log of the chance that somebody else is as alike
    distance: float  # Euclidean distance to the nearest template


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    templates: FloatArray  # (k, D)
    center: FloatArray  # (D,) their pool
    quality: float
    hubness: float


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """One person of the cohort, as of these templates."""

    template_ids: tuple[int, ...]
    center: FloatArray  # (D,)
    quality: float
    is_stranger: bool


class PersonModels:
    """The models of the persons met lately, kept while the gallery does not change."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._models: dict[str, _Model] = {}
        self._version = -1
        self._members: dict[str, _Member] = {}
        self._cohort = Cohort.of({}, calibration)
        self._different: set[frozenset[str]] = set()
        self._are_one: dict[tuple[str, str], bool] = {}

    def rank(
        self, queries: FloatArray, qualities: Sequence[float], snapshot: Snapshot
    ) -> list[tuple[Match, ...]]:
        """Return for each (Q, D) unit vector of this quality the persons it may be, highest ratio first."""
        self.follow(snapshot)
        found = snapshot.search(queries, MOST_COMPARED) if snapshot.n_templates else [()] * len(queries)
        hubness = self._calibration.hubness(queries)
        ranked = []
        for query, quality, own, matches in zip(queries, qualities, hubness.tolist(), found, strict=True):
            persons = [snapshot.persons[match.person_id] for match in matches]
            ranked.append(self._judge(query, quality, own, persons, snapshot))
        return ranked

    def are_one(self, first_id: str, second_id: str, snapshot: Snapshot) -> bool:
        """Say whether two entries of the gallery show one person, by the centres of their templates."""
        if frozenset((first_id, second_id)) in self._different:
            return False
        if (first_id, second_id) not in self._are_one:
            first, second = self._model(first_id, snapshot), snapshot.persons[second_id]
            (match,) = self._judge(first.center, first.quality, first.hubness, [second], snapshot)
            self._are_one[first_id, second_id] = match.log_false_match <= _LOG_CHANCE_OF_TWO
        return self._are_one[first_id, second_id]

    def tell_apart(self, first_id: str, second_id: str) -> None:
        """Take note that two entries are different people, whatever they look like."""
        pair = frozenset((first_id, second_id))
        if pair not in self._different:
            self._different.add(pair)
            self._are_one.clear()  # they were judged by the cohort
            self._cohort = Cohort.of(self._different_people(self._members), self._calibration)

    def log_ratio(self, embedding: FloatArray, quality: float, person_id: str, snapshot: Snapshot) -> float:
        """Return the natural-log likelihood ratio that one (D,) view by itself shows this person."""
        model = self._model(person_id, snapshot)
        both = (model.hubness + float(self._calibration.hubness(embedding[None])[0])) / 2
        similarity = float(model.center @ embedding)
        return float(self._calibration.log_likelihood_ratio(similarity, quality, model.quality, both))

    def _judge(
        self, query: FloatArray, quality: float, own: float, persons: Sequence[Person], snapshot: Snapshot
    ) -> tuple[Match, ...]:
        if not persons:
            return ()
        models = [self._model(person.person_id, snapshot) for person in persons]
        similarity, normalized = self._compare(query, own, models, [person.person_id for person in persons])
        qualities = [model.quality for model in models]
        ratios = self._calibration.log_likelihood_ratio(normalized, quality, qualities)
        false_matches = self._calibration.log_false_match(normalized, quality, qualities)
        nearest = np.array([float((model.templates @ query).max()) for model in models])
        distances = np.sqrt(np.maximum(2.0 - 2.0 * nearest, 0.0))
        columns = (similarity.tolist(), ratios.tolist(), false_matches.tolist(), distances.tolist())
        matches = [
            Match(person.person_id, person.is_stranger, *values)
            for person, *values in zip(persons, *columns, strict=True)
        ]
        return tuple(sorted(matches, key=lambda h: (-h.log_ratio, -h.similarity)))

    def _compare(
        self, query: FloatArray, own: float, models: Sequence[_Model], person_ids: Sequence[str]
    ) -> tuple[FloatArray, NDArray[np.float64]]:
        """Return the cosines of models to a query, and what the tables are asked for instead."""
        similarity = np.stack([model.center for model in models]) @ query
        hubness = np.array([model.hubness for model in models])
        corrected = self._calibration.correct(similarity, (hubness + own) / 2).astype(np.float64)
        return similarity, self._cohort.normalize(corrected, query, own, person_ids)

    def pairs_of_one(self, snapshot: Snapshot) -> list[tuple[str, str, float]]:
        """Return (id, id, probability) of entries somewhat alike; see :func:`pairs_of_one_person`."""
        self.follow(snapshot)
        latest = list(snapshot.persons.values())[-MOST_ENTRIES:]
        entries = sorted(
            (one for one in latest if any(not t.is_set_aside for t in snapshot.templates_of(one.person_id))),
            key=lambda one: (one.is_stranger, one.created),
        )
        ids = [entry.person_id for entry in entries]
        models = [self._model(person_id, snapshot) for person_id in ids]
        centers = np.stack([model.center for model in models]) if models else np.zeros((0, 1))
        found = []
        for k, model in enumerate(models):
            near = k + 1 + np.flatnonzero(centers[k + 1 :] @ model.center > _LEAST_COSINE)
            if not near.size:
                continue
            others, theirs = [models[j] for j in near], [ids[j] for j in near]
            _, normalized = self._compare(model.center, model.hubness, others, theirs)
            qualities = [other.quality for other in others]
            ratios = self._calibration.log_likelihood_ratio(normalized, model.quality, qualities)
            logits = np.clip(ratios - math.log(len(ids)), -50.0, 50.0)
            chances = (1 / (1 + np.exp(-logits))).tolist()
            found += [(ids[k], other, chance) for other, chance in zip(theirs, chances, strict=True)]
        return found

    def _model(self, person_id: str, snapshot: Snapshot) -> _Model:
        model = self._models.get(person_id)
        if model is None:
            everything = snapshot.templates_of(person_id)
            stored = [t for t in everything if not t.is_set_aside] or everything
            templates = np.stack([t.embedding for t in stored])
            center, quality = pool(templates, [t.quality for t in stored])
            hubness = float(self._calibration.hubness(center[None])[0])
            model = self._models[person_id] = _Model(templates, center, quality, hubness)
        return model

    @property
    def keeps_anything(self) -> bool:
        """Whether embeddings of anybody are kept here."""
        return bool(self._models or self._members or len(self._cohort.centers))

    def follow(self, snapshot: Snapshot) -> None:
        """Take over a version of the gallery; nothing of a forgotten person stays here.

        The models are made again when they are needed, but for those of the cohort.
        """
        if snapshot.version == self._version:
            return
        self._version = snapshot.version
        self._models.clear()
        self._are_one.clear()
        pairs = (frozenset(snapshot.aliases.get(one, one) for one in pair) for pair in self._different)
        self._different = {pair for pair in pairs if len(pair) == 2 and pair <= snapshot.persons.keys()}
        known = self._members
        members: dict[str, _Member] = {}
        for person in _choose(snapshot):
            member = known.get(person.person_id)
            if (
                member is None
                or member.template_ids != person.template_ids
                or member.is_stranger != person.is_stranger  # a stranger got a name
            ):
                model = self._model(person.person_id, snapshot)
                member = _Member(person.template_ids, model.center, model.quality, person.is_stranger)
            members[person.person_id] = member
        if [*members] != [*known] or any(members[i] is not known[i] for i in members):
            self._cohort = Cohort.of(self._different_people(members), self._calibration)
        self._members = members

    def _different_people(self, entries: Mapping[str, _Member]) -> dict[str, FloatArray]:
        """Return the centres by id of those who are none of the entries before them.

        A person known under two ids is no measure of how alike different people are; unless they were seen
        in one frame, which makes them the best measure.
        """
        if not entries:
            return {}
        ids, members = list(entries), list(entries.values())
        centers = np.stack([member.center for member in members])
        qualities = np.array([member.quality for member in members])
        hubness = self._calibration.hubness(centers)
        chances = self._calibration.log_false_match(
            centers @ centers.T, qualities[:, None], qualities, (hubness[:, None] + hubness) / 2
        )
        kept: list[int] = []
        for k in range(len(members)):
            unsure = [j for j in kept if frozenset((ids[j], ids[k])) not in self._different]
            if (chances[k, unsure] > _LOG_CHANCE_OF_TWO).all():
                kept.append(k)
        return {ids[k]: members[k].center for k in kept}


def pairs_of_one_person(
    calibration: Calibration, snapshot: Snapshot, least_probability: float
) -> list[tuple[str, str, float]]:
    """Return (id, id, probability) of entries that look like one person, most probable first.

    The pooled templates of two entries are compared as those of a track and an entry are; beforehand, any
    other entry is as likely to be the same person. An enrolled person comes before a stranger, the older
    entry before the newer one.
    """
    pairs = PersonModels(calibration).pairs_of_one(snapshot)
    return sorted((pair for pair in pairs if pair[2] >= least_probability), key=lambda pair: -pair[2])


def _choose(snapshot: Snapshot) -> list[Person]:
    """Return the persons of the cohort: the enrolled, and where they are few the latest strangers."""
    people = list(itertools.islice(_with_templates(snapshot, is_stranger=False), LARGEST))
    if len(people) < LARGEST:
        strangers = list(_with_templates(snapshot, is_stranger=True))
        people += strangers[::-1][: LARGEST - len(people)]
    return people


def _with_templates(snapshot: Snapshot, *, is_stranger: bool) -> Iterator[Person]:
    return (p for p in snapshot.persons.values() if p.is_stranger is is_stranger and p.template_ids)

"""Whether the gallery knows a face already: who it looks like, and with what probability.

The views are pooled into one vector, as a track's are (:mod:`evidence`), and that is compared with each
person's nearest template. With the log-likelihood ratios ``l_i`` of the N persons of the gallery and the
prior ``P(new) = nu`` (whoever introduces himself is mostly new),

    P(i) = (1 - nu)/N e^{l_i} / (nu + (1 - nu)/N sum_j e^{l_j}).

This is no claim of identity: a robot that is told a name says who else it might be, so that a person who is
stored twice is found twice here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from face_recognition_node.enrollment.goal import Resemblance
from face_recognition_node.enrollment.kept_views import pool
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import Match
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.faces import FaceView

SHARE = 0.1
"""Share of the highest probability from which on two entries may be the same person."""
NEW_PRIOR = 0.9
"""``nu``: probability, before looking, that a face to be enrolled is nobody in the gallery."""
CANDIDATES = 16
"""Persons compared; those further down the search are as good as impossible."""


def enrolled_among(alike: Sequence[Resemblance], snapshot: Snapshot) -> list[Resemblance]:
    """Return those who are no strangers, in the same order."""
    return [one for one in alike if not snapshot.persons[one.person_id].is_stranger]


def as_one(alike: Sequence[Resemblance]) -> Resemblance | None:
    """Return the most probable one with the probability of all who share it, or None of nobody.

    Somebody who is stored twice is found twice, and each time with half of the probability.
    """
    if not alike:
        return None
    best = max(alike, key=lambda one: (one.probability, one.similarity))
    shared = sum(one.probability for one in alike if one.probability >= SHARE * best.probability)
    return replace(best, probability=min(shared, 1.0))


class Acquaintances:
    """Looks views up in the gallery."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def resembling(
        self, views: Sequence[FaceView], snapshot: Snapshot, without: Collection[str] = ()
    ) -> list[Resemblance]:
        """Return whom the views look like, most probable first.

        Args:
            views: Views of one person, at least one, with embeddings.
            snapshot: The gallery.
            without: Persons not to be considered, by id.
        """
        found = [(m, ratio) for m, ratio in self._compare(views, snapshot) if m.person_id not in without]
        if not found:
            return []
        n_persons = len(snapshot.persons) - sum(person_id in snapshot.persons for person_id in without)
        odds = math.log((1.0 - NEW_PRIOR) / NEW_PRIOR) - math.log(max(n_persons, 1))
        logs = np.array([ratio for _, ratio in found]) + odds
        highest = max(float(logs.max()), 0.0)
        shares = np.exp(logs - highest)
        probabilities = (shares / (math.exp(-highest) + shares.sum())).tolist()
        alike = [
            Resemblance(m.person_id, snapshot.persons[m.person_id].label, m.similarity, probability)
            for (m, _), probability in zip(found, probabilities, strict=True)
        ]
        return sorted(alike, key=lambda one: (-one.probability, -one.similarity))

    def log_ratio_of(self, views: Sequence[FaceView], person_id: str, snapshot: Snapshot) -> float:
        """Return the log-likelihood ratio that the views show this person; -inf if many others are nearer."""
        found = (ratio for m, ratio in self._compare(views, snapshot) if m.person_id == person_id)
        return next(found, -math.inf)

    def _compare(self, views: Sequence[FaceView], snapshot: Snapshot) -> list[tuple[Match, float]]:
        """Return the nearest template of each of the nearest persons with its log-likelihood ratio."""
        if snapshot.n_templates == 0:
            return []
        embedding, quality = pool(views)
        matches = snapshot.search(embedding[None], CANDIDATES)[0]
        if not matches:
            return []
        stored = {t.template_id: t.embedding for t in snapshot.templates(m.template_id for m in matches)}
        vectors = np.stack([embedding, *(stored[m.template_id] for m in matches)])
        commonness = self._calibration.commonness(vectors)
        ratios = self._calibration.log_likelihood_ratio(
            [m.similarity for m in matches],
            quality,
            [m.template_quality for m in matches],
            (commonness[0] + commonness[1:]) / 2,
        )
        return list(zip(matches, ratios.tolist(), strict=True))

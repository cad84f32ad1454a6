"""Whether the gallery knows a face already: who it looks like, and with what probability.

The views are pooled and compared once, as a track is (:mod:`identity`). With the log-likelihood ratios
``l_i`` of the N persons of the gallery and even odds that the face is somebody new,

    P(i) = (1/2N) e^{l_i} / (1/2 + 1/2N sum_j e^{l_j}).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from face_recognition_node.core.calibration import Calibration
from face_recognition_node.core.enrollment_values import Resemblance
from face_recognition_node.core.faces import FaceView, FloatArray
from face_recognition_node.core.kept_views import embedding_of, pool
from face_recognition_node.core.person_models import Hypothesis, PersonModels
from face_recognition_node.core.snapshot import Snapshot


class Acquaintances:
    """Looks views up in the gallery."""

    def __init__(self, calibration: Calibration) -> None:
        self._models = PersonModels(calibration)

    def resembling(
        self, views: Sequence[FaceView], snapshot: Snapshot, without: Collection[str] = ()
    ) -> list[Resemblance]:
        """Return whom the views look like, most probable first.

        Args:
            views: Views of one person, at least one, with embeddings.
            snapshot: The gallery.
            without: Persons not to be considered, by id.
        """
        hypotheses = [h for h in self._rank(views, snapshot) if h.person_id not in without]
        if not hypotheses:
            return []
        n_persons = len(snapshot.persons) - sum(person_id in snapshot.persons for person_id in without)
        logs = np.array([h.log_ratio for h in hypotheses]) - math.log(max(n_persons, 1))
        highest = max(float(logs.max()), 0.0)
        shares = np.exp(logs - highest)
        probabilities = shares / (math.exp(-highest) + shares.sum())
        vectors = np.stack([embedding_of(view) for view in views])
        return [
            Resemblance(
                hypothesis.person_id,
                snapshot.persons[hypothesis.person_id].label,
                _highest_cosine(vectors, hypothesis.person_id, snapshot),
                float(probability),
            )
            for hypothesis, probability in zip(hypotheses, probabilities, strict=True)
        ]

    def log_ratio_of(self, views: Sequence[FaceView], person_id: str, snapshot: Snapshot) -> float:
        """Return the log-likelihood ratio that the views show this person; -inf if others are all nearer."""
        found = (h.log_ratio for h in self._rank(views, snapshot) if h.person_id == person_id)
        return next(found, -math.inf)

    def _rank(self, views: Sequence[FaceView], snapshot: Snapshot) -> tuple[Hypothesis, ...]:
        if not snapshot.persons:
            return ()
        embedding, quality = pool(views)
        return self._models.rank(embedding[None], [quality], snapshot)[0]


def _highest_cosine(vectors: FloatArray, person_id: str, snapshot: Snapshot) -> float:
    templates = [t.embedding for t in snapshot.templates_of(person_id) if not t.is_set_aside]
    return float((vectors @ np.stack(templates).T).max()) if templates else -1.0

"""Who of the gallery the views of a newcomer show, perhaps.

The views are pooled and compared as a track is (:mod:`person_models`). With the log-likelihood ratio
``l_i`` of person ``i``, N persons in the gallery and the prior ``P(new) = nu`` (people who introduce
themselves are mostly new), the probability that it is this person and not somebody new is

    P(i) = sigma(l_i + ln((1 - nu) / (nu N))).

Each person is weighed alone: somebody who is stored twice is found twice, as surely as once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.identity.comparison import (
    compare_with_templates,
    embeddings_of,
    log_false_match_rates,
    pool_views,
    qualities_of,
)
from face_recognition_node.identity.person_models import PersonModels
from face_recognition_node.vision.faces import Candidate, FaceView

if TYPE_CHECKING:
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.gallery.values import Template
    from face_recognition_node.identity.calibration import Calibration

# `nu`: probability, before any comparison, that a face to be enrolled is nobody in the gallery
NEW_PRIOR = 0.9
# each template of a stranger has to fit a newcomer's views at this rate before the two are joined
JOIN_FALSE_MATCH_RATE = 1e-4


def find_candidates(
    calibration: Calibration, views: Sequence[FaceView], snapshot: Snapshot, without: Collection[str] = ()
) -> list[Candidate]:
    """Return whom the embedded views of one person look like, most probable first, ``without`` some."""
    if snapshot.n_templates == 0:
        return []
    embedding, quality = pool_views(views)
    (ranked,) = PersonModels(calibration).rank(embedding[None], [quality], snapshot)
    matches = [match for match in ranked if match.person_id not in without]
    n_persons = len(snapshot.persons) - sum(person_id in snapshot.persons for person_id in without)
    prior = math.log((1.0 - NEW_PRIOR) / NEW_PRIOR) - math.log(max(n_persons, 1))
    found = [
        Candidate(
            match.person_id, snapshot.persons[match.person_id].label, _sigmoid(match.log_ratio + prior),
            1.0 - match.distance**2 / 2,
        )
        for match in matches
    ]  # fmt: skip
    return sorted(found, key=lambda one: (-one.probability, -(one.similarity or 0.0)))


def log_ratio_of_person(
    calibration: Calibration, views: Sequence[FaceView], person_id: str, snapshot: Snapshot
) -> float:
    """Return the log-likelihood ratio that the views show this person, by the person's nearest template."""
    templates = _searched(snapshot, person_id)
    if not templates:
        return -math.inf
    embedding, quality = pool_views(views)
    nearest = max(templates, key=lambda template: float(template.embedding @ embedding))
    return float(compare_with_templates(calibration, embedding, quality, [nearest])[0])


def fits_every_template(
    calibration: Calibration, views: Sequence[FaceView], person_id: str, snapshot: Snapshot
) -> bool:
    """Return whether the views fit each template of a person so well that they are surely theirs.

    One view of the person is enough for a template: heads that are turned differently are less alike.
    """
    templates = _searched(snapshot, person_id)
    if not templates:
        return False
    stored = np.stack([template.embedding for template in templates])
    rates = log_false_match_rates(
        calibration, embeddings_of(views), qualities_of(views), stored, [t.quality for t in templates]
    )
    # The best of several views is as good by chance more often than one is.
    limit = math.log(JOIN_FALSE_MATCH_RATE) - math.log(len(views))
    return bool((rates.min(axis=0) <= limit).all())


def _searched(snapshot: Snapshot, person_id: str) -> list[Template]:
    """Return the templates of a person that are not set aside."""
    return [template for template in snapshot.templates_of(person_id) if not template.is_set_aside]


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit)) if logit > 0 else math.exp(logit) / (1.0 + math.exp(logit))

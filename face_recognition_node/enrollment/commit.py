"""The end of an enrolment: check the views together, decide whose they are, store them durably."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from face_recognition_node.common.errors import EnrollmentError, GalleryError, PersonNotFoundError
from face_recognition_node.enrollment.candidates import SHARE, Acquaintances, as_one, enrolled_among
from face_recognition_node.enrollment.goal import EnrollmentGoal, Outcome, Resemblance
from face_recognition_node.enrollment.kept_views import pool
from face_recognition_node.gallery.edits import checked_name, folded
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import NewTemplate, Person, Provenance
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.faces import FaceView, embedding_of

LOGGER = logging.getLogger(__name__)

CONSISTENT_LOG_RATIO = 1.0
"""A view belongs to the others if its log-likelihood ratio against their mean is at least this."""
SAME_PROBABILITY = 0.9
"""Probability from which on a stranger met before, or a person of the same name, is taken for the same."""
NEARLY_EQUAL = 0.5
"""Share of the highest probability from which on an entry of the same name is taken for the same person."""
MISMATCH_LOG_RATIO = -1.0
"""Views whose log-likelihood ratio against a person is below this are not added to that person."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored.

    Attributes:
        person: As in the gallery now.
        gallery_version: The version that contains the person.
        notes: Sentences about what was found on the way.
    """

    person: Person
    gallery_version: int
    notes: tuple[str, ...]


def outliers(views: Sequence[FaceView], calibration: Calibration) -> list[FaceView]:
    """Return the views that do not fit the mean of the others, worst first; of two views, the second."""
    remaining, removed = list(views), []
    while len(remaining) > 1:
        ratios = [
            _ratio_to_mean(view, [other for other in remaining if other is not view], calibration)
            for view in remaining
        ]
        worst = int(np.argmin(ratios)) if len(remaining) > 2 else 1
        if ratios[worst] >= CONSISTENT_LOG_RATIO:
            break
        removed.append(remaining.pop(worst))
    return removed


def _ratio_to_mean(view: FaceView, others: Sequence[FaceView], calibration: Calibration) -> float:
    own = embedding_of(view)
    mean, quality = pool(others)
    commonness = float(calibration.commonness(np.stack([own, mean])).mean())
    ratio = calibration.log_likelihood_ratio(float(own @ mean), view.quality.overall, quality, commonness)
    return float(ratio)


def mismatch(
    views: Sequence[FaceView], person_id: str, snapshot: Snapshot, acquaintances: Acquaintances
) -> str:
    """Return why views must not be added to a person, or an empty text if they may."""
    person = snapshot.person(person_id)
    if acquaintances.log_ratio_of(views, person.person_id, snapshot) >= MISMATCH_LOG_RATIO:
        return ""
    resembling = acquaintances.resembling(views, snapshot)
    text = f"these views do not look like {person.label}"
    is_likely = bool(resembling) and resembling[0].probability > 0.5
    return f"{text}; the face looks like {resembling[0]}" if is_likely else text


def store(
    views: Sequence[FaceView], goal: EnrollmentGoal, gallery: Gallery, acquaintances: Acquaintances
) -> Stored:
    """Store the views of one person, all together.

    A new person is made unless the goal names one; but the same unknown as before keeps the stranger's id and
    gets the name, and somebody of the same name with the same face gets more views.

    Raises:
        EnrollmentError: With the outcome as reason; nothing was stored then.
    """
    snapshot = gallery.snapshot()
    templates = [
        NewTemplate(
            embedding_of(view),
            view.quality.overall,
            view.pose,
            Provenance.ENROLLED,
            view.precision,
            view.crop_bgr,
        )
        for view in views
    ]
    try:
        if goal.person_id is not None:
            return _add_to(goal.person_id, goal, views, templates, gallery, acquaintances)
        alike = acquaintances.resembling(views, snapshot)
        strangers = [one for one in alike if snapshot.persons[one.person_id].is_stranger]
        is_stranger = sum(one.probability for one in strangers) >= SAME_PROBABILITY
        if not goal.name.strip():
            if is_stranger:
                person = gallery.add_templates(strangers[0].person_id, templates)
            else:
                person = gallery.add_person("", templates, is_stranger=True)
            return _stored(person, gallery, f"it can be named as {person.person_id}")
        if is_stranger:
            return _promote(strangers, goal.name, templates, gallery)
        name = folded(checked_name(goal.name))
        known = enrolled_among(alike, snapshot)
        likely = as_one(known)
        same = [one for one in known if one.probability >= NEARLY_EQUAL * known[0].probability]
        same = [one for one in same if folded(one.name) == name]
        if likely and same and likely.probability >= SAME_PROBABILITY:
            person = gallery.add_templates(same[0].person_id, templates)
            return _stored(person, gallery, "the views were added to the person of that name and face")
        namesakes = [one for one in snapshot.persons.values() if folded(one.name) == name]
        person = gallery.add_person(goal.name, templates)
        note = f"{len(namesakes)} other person(s) of that name are known" if namesakes else ""
        return _stored(person, gallery, note)
    except PersonNotFoundError as error:
        raise EnrollmentError(Outcome.NO_SUCH_PERSON.value, str(error)) from error
    except (GalleryError, OSError) as error:
        raise EnrollmentError(Outcome.NOT_STORED.value, f"the gallery refused: {error}") from error


def _add_to(
    person_id: str,
    goal: EnrollmentGoal,
    views: Sequence[FaceView],
    templates: Sequence[NewTemplate],
    gallery: Gallery,
    acquaintances: Acquaintances,
) -> Stored:
    """Add the views to the person that the goal names, if they look like that person."""
    snapshot = gallery.snapshot()
    reason = mismatch(views, person_id, snapshot, acquaintances)
    if reason:
        raise EnrollmentError(Outcome.INCONSISTENT.value, reason)
    person = snapshot.person(person_id)
    if person.is_stranger and goal.name.strip():
        resemblance = Resemblance(person.person_id, person.label, 1.0, 1.0)
        return _promote([resemblance], goal.name, templates, gallery)
    return _stored(gallery.add_templates(person.person_id, templates), gallery, "the views were added")


def _promote(
    strangers: Sequence[Resemblance], name: str, templates: Sequence[NewTemplate], gallery: Gallery
) -> Stored:
    """Make strangers who are this person a person of this name, who keeps the first one's id.

    The person is stored first, so that nothing is half done if the joining fails.
    """
    person = gallery.add_person(name, templates)
    same = [one.person_id for one in strangers if one.probability >= SHARE * strangers[0].probability]
    try:
        person = gallery.merge(same[0], [person.person_id, *same[1:]])
    except GalleryError as error:
        LOGGER.warning("%s could not be joined with %s: %s", name, same, error)
        return _stored(person, gallery, f"the stranger {same[0]} could not be joined: {error}")
    return _stored(person, gallery, f"known before as {', '.join(same)}")


def _stored(person: Person, gallery: Gallery, note: str) -> Stored:
    return Stored(person, gallery.snapshot().version, (note,) if note else ())

"""The end of an enrollment: check the views together, decide whose they are, store them durably."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.common.errors import (
    EnrollmentError,
    GalleryChangedError,
    GalleryConflictError,
    GalleryError,
    PersonNotFoundError,
)
from face_recognition_node.enrollment.candidates import (
    find_candidates,
    fits_every_template,
    log_ratio_of_person,
)
from face_recognition_node.enrollment.goal import EnrollmentGoal, Outcome
from face_recognition_node.gallery.values import NewTemplate, Person, checked_name, folded
from face_recognition_node.identity.comparison import log_likelihood_ratios, pool_views
from face_recognition_node.vision.faces import Candidate, FaceView, embedding_of

if TYPE_CHECKING:
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.identity.calibration import Calibration

LOGGER = logging.getLogger(__name__)

# a view belongs to the others if its log-likelihood ratio against their mean is at least this
CONSISTENT_LOG_RATIO = 1.0
# probability from which on a person of the gallery is taken for the one who is enrolled
SAME_PROBABILITY = 0.9
# probability from which on a stranger is reported as perhaps the one who is enrolled
POSSIBLE_PROBABILITY = 0.5
# share of the highest odds from which on an entry of the same name is taken for the same person
NEARLY_EQUAL = 0.5
ATTEMPTS = 20  # decisions made anew because another node changed the gallery before this one could
# views whose log-likelihood ratio against a person is below this are not added to that person
MISMATCH_LOG_RATIO = -1.0


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored: the person as in that version of the gallery; ``notes`` are sentences on the way."""

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
    mean, quality = pool_views(others)
    own = embedding_of(view)[None]
    return float(log_likelihood_ratios(calibration, own, view.quality.overall, mean[None], quality)[0, 0])


def mismatch(views: Sequence[FaceView], person_id: str, snapshot: Snapshot, calibration: Calibration) -> str:
    """Return why views must not be added to a person, or an empty text if they may."""
    person = snapshot.person(person_id)
    if log_ratio_of_person(calibration, views, person.person_id, snapshot) >= MISMATCH_LOG_RATIO:
        return ""
    candidates = find_candidates(calibration, views, snapshot)
    text = f"these views do not look like {person.label}"
    is_likely = bool(candidates) and candidates[0].probability > 0.5
    return f"{text}; the face looks like {candidates[0]}" if is_likely else text


def store(
    views: Sequence[FaceView],
    goal: EnrollmentGoal,
    gallery: Gallery,
    calibration: Calibration,
    own_stranger_id: str | None = None,
) -> Stored:
    """Store the views of one person, with embeddings, in one step of the gallery's history.

    A new person is made unless the goal names one. A person of the same name and face gets more views. A
    stranger of the gallery is joined with the new person, to whose id the stranger's then leads, only if that
    is certain: see :func:`_split_strangers`. ``own_stranger_id`` is the stranger that was created from the
    very track of the views, if there is one.

    Raises:
        EnrollmentError: With the outcome as reason; nothing was stored then.
    """
    templates = [NewTemplate.of(view) for view in views]
    try:
        if goal.person_id is not None:
            return _add_to(goal.person_id, goal.name, views, templates, gallery, calibration)
        for _ in range(ATTEMPTS):
            with contextlib.suppress(GalleryChangedError):
                return _find_or_store(views, templates, goal, gallery, calibration, own_stranger_id)
        raise GalleryConflictError("it is changed too often; try again")
    except PersonNotFoundError as error:
        raise EnrollmentError(Outcome.NO_SUCH_PERSON.value, str(error)) from error
    except (GalleryError, OSError) as error:
        raise EnrollmentError(Outcome.NOT_STORED.value, f"the gallery refused: {error}") from error


def _find_or_store(
    views: Sequence[FaceView],
    templates: Sequence[NewTemplate],
    goal: EnrollmentGoal,
    gallery: Gallery,
    calibration: Calibration,
    own_stranger_id: str | None,
) -> Stored:
    """Add to the person of the same name and face, or store a new one, unless another node just did so."""
    snapshot = gallery.snapshot()
    candidates = find_candidates(calibration, views, snapshot)
    known = [one for one in candidates if not snapshot.persons[one.person_id].is_stranger]
    same = _of_same_name(known, goal.name) if goal.name.strip() else None
    if same is not None:
        person = gallery.add_templates(same.person_id, templates)
        return _stored(person, gallery, "the views were added to the person of that name and face")
    if known and known[0].probability >= SAME_PROBABILITY and not goal.is_somebody_else:
        raise EnrollmentError(
            Outcome.ALREADY_KNOWN.value,
            f"this is {known[0]}, who is known already as {known[0].person_id}; add the views to that "
            "person, or say that this is somebody else",
        )
    certain, possible = _split_strangers(
        [one for one in candidates if snapshot.persons[one.person_id].is_stranger],
        views, snapshot, calibration, own_stranger_id,
    )  # fmt: skip
    return _store_new(goal.name.strip(), templates, gallery, snapshot, certain, possible)


def _of_same_name(known: Sequence[Candidate], name: str) -> Candidate | None:
    """Return the person of this name whose face it is: as good as certain, and nearly the most like it."""
    odds = [one.probability / max(1.0 - one.probability, 1e-12) for one in known]
    wanted = folded(checked_name(name))
    for one, own in zip(known, odds, strict=True):
        is_sure = one.probability >= SAME_PROBABILITY and own >= NEARLY_EQUAL * odds[0]
        if is_sure and folded(one.name) == wanted:
            return one
    return None


def _split_strangers(
    strangers: Sequence[Candidate],
    views: Sequence[FaceView],
    snapshot: Snapshot,
    calibration: Calibration,
    own_stranger_id: str | None,
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the strangers who certainly are the person of the views, and those who perhaps are.

    It is certain only if the stranger was created from the very track that is enrolled, followed without a
    break, or if each of the stranger's templates fits the views at a false match rate of 1e-4. A wrong join
    gives the newcomer's name to somebody else, in every frame from then on; a missing one costs a merge.
    """
    certain: list[Candidate] = []
    possible: list[Candidate] = []
    for one in strangers:
        is_own = one.person_id == own_stranger_id
        if is_own or fits_every_template(calibration, views, one.person_id, snapshot):
            certain.insert(0 if is_own else len(certain), one)
        elif one.probability >= POSSIBLE_PROBABILITY:
            possible.append(one)
    return certain, possible


def _store_new(
    name: str,
    templates: Sequence[NewTemplate],
    gallery: Gallery,
    snapshot: Snapshot,
    certain: Sequence[Candidate],
    possible: Sequence[Candidate],
) -> Stored:
    """Store a new person or stranger, joined with the strangers who certainly are the same."""

    def check(now: Snapshot) -> None:
        if now.version != snapshot.version:
            raise GalleryChangedError("the gallery has changed since")

    notes = []
    ids = [one.person_id for one in certain]
    if not name:
        person = (
            gallery.add_templates(ids[0], templates)
            if ids
            else gallery.add_person("", templates, is_stranger=True, check=check)
        )
        notes.append(f"it can be named as {person.person_id}")
    else:
        namesakes = [p for p in snapshot.persons.values() if folded(p.name) == folded(name)]
        try:
            person = gallery.enroll(name, templates, ids, check=check)
        except GalleryChangedError:
            raise
        except (GalleryConflictError, PersonNotFoundError) as error:
            if not ids:
                raise
            LOGGER.warning("the stranger(s) %s could not be joined", ids)  # the reason may hold names
            notes.append(f"{', '.join(ids)} could not be joined: {error}")
            person = gallery.enroll(name, templates, check=check)
        else:
            if ids:
                notes.append(f"known before as {', '.join(ids)}")
        if namesakes:
            notes.append(f"{len(namesakes)} other person(s) of that name are known")
    if possible:
        named = ", ".join(str(one) for one in possible)
        notes.append(f"perhaps met before as {named}; if so, merge {possible[0].person_id} into it")
    return _stored(person, gallery, *notes)


def _add_to(
    person_id: str,
    name: str,
    views: Sequence[FaceView],
    templates: Sequence[NewTemplate],
    gallery: Gallery,
    calibration: Calibration,
) -> Stored:
    """Add the views to the person that the goal names, if they look like that person."""
    snapshot = gallery.snapshot()
    reason = mismatch(views, person_id, snapshot, calibration)
    if reason:
        raise EnrollmentError(Outcome.INCONSISTENT.value, reason)
    person = snapshot.person(person_id)
    if person.is_stranger and name.strip():
        named = gallery.enroll(name, templates, [person.person_id])
        return _stored(named, gallery, f"known before as {person.person_id}")
    return _stored(gallery.add_templates(person.person_id, templates), gallery, "the views were added")


def _stored(person: Person, gallery: Gallery, *notes: str) -> Stored:
    return Stored(person, gallery.snapshot().version, notes)

"""What should not be as it is: adapted templates that went wrong, entries of two people, two of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.gallery.values import Provenance, Template
from face_recognition_node.identity.comparison import compare_with_templates, log_likelihood_ratios, pool
from face_recognition_node.identity.person_models import pairs_of_one_person

if TYPE_CHECKING:
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.identity.calibration import Calibration

# an adapted template that is less like the enrolled ones than this, natural log, is an outlier
OUTLIER_LOG_RATIO = 1.0
TWIN_PROBABILITY = 0.9  # from which on two enrolled entries are reported as perhaps one person
_STRANGER_PROBABILITY = 0.3  # the same for an entry without a name and another one


@dataclass(frozen=True, slots=True)
class Issue:
    """A template that should be set aside."""

    template_id: int  # which
    person_id: str  # whose
    reason: str  # in words
    similarity: float  # cosine that shows it


def review(snapshot: Snapshot, calibration: Calibration) -> list[Issue]:
    """Return the adapted templates of people that do not fit them, or fit somebody else at least as well."""
    issues = []
    for person in snapshot.persons.values():
        if person.n_adapted == 0 or person.is_stranger:
            continue
        templates = [t for t in snapshot.templates_of(person.person_id) if not t.is_set_aside]
        enrolled = [t for t in templates if t.provenance is Provenance.ENROLLED]
        for template in templates:
            if template.provenance is Provenance.ADAPTED and enrolled:
                issue = _issue(template, enrolled, snapshot, calibration)
                if issue is not None:
                    issues.append(issue)
    return issues


def templates_of_two(snapshot: Snapshot, calibration: Calibration) -> tuple[int, ...]:
    """Return the ids of the templates of :func:`second_person`, over all persons, at even odds."""
    found = (second_person(snapshot.templates_of(key), calibration) for key in snapshot.persons)
    return tuple(sorted(template_id for ids in found for template_id in ids))


def pairs_that_may_be_one(calibration: Calibration, snapshot: Snapshot) -> list[tuple[str, str, float]]:
    """Return (id, id, probability) of entries to ask about, as :func:`pairs_of_one_person` orders them."""
    return [
        pair
        for pair in pairs_of_one_person(calibration, snapshot, _STRANGER_PROBABILITY)
        if snapshot.persons[pair[1]].is_stranger or pair[2] >= TWIN_PROBABILITY
    ]


def second_person(
    templates: Sequence[Template], calibration: Calibration, log_ratio: float = 0.0
) -> list[int]:
    """Return the ids of the smaller part of an entry's templates, if its two parts show two people.

    The parts are those of two means (Lloyd 1982), begun along the direction in which the templates differ
    most; each has two templates or more, for a single poor view is no second person. Compared as two faces,
    their pools have a log-likelihood ratio below ``log_ratio`` (natural log) of showing one person.
    """
    searched = [template for template in templates if not template.is_set_aside]
    if len(searched) < 4:
        return []
    vectors = np.stack([template.embedding for template in searched])
    qualities = np.array([template.quality for template in searched])
    parts = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[0][:, 0] > 0.0
    for _ in range(len(searched)):
        if not 2 <= parts.sum() <= len(parts) - 2:
            return []
        first, second = (pool(vectors[part], qualities[part]) for part in (parts, ~parts))
        moved = vectors @ first[0] > vectors @ second[0]
        if (moved == parts).all():
            break
        parts = moved
    ratio = log_likelihood_ratios(calibration, first[0][None], first[1], second[0][None], second[1])
    if ratio[0, 0] >= log_ratio:
        return []
    size = int(parts.sum())
    is_smaller = parts if size < len(parts) - size or (2 * size == len(parts) and not parts[0]) else ~parts
    return [template.template_id for template, is_in in zip(searched, is_smaller, strict=True) if is_in]


def _issue(
    template: Template, enrolled: Sequence[Template], snapshot: Snapshot, calibration: Calibration
) -> Issue | None:
    cosines = np.stack([t.embedding for t in enrolled]) @ template.embedding
    nearest = int(np.argmax(cosines))
    similarity = float(cosines[nearest])
    matches = {
        m.template_id: m
        for m in snapshot.search(template.embedding[None], 4)[0]
        if m.person_id != template.person_id and not snapshot.persons[m.person_id].is_stranger
    }
    others = snapshot.templates(matches)
    compared = [enrolled[nearest], *others]
    own, *ratios = compare_with_templates(calibration, template.embedding, template.quality, compared)
    if own < OUTLIER_LOG_RATIO:
        return Issue(
            template.template_id, template.person_id, "no longer like the enrolled views", similarity
        )
    nearest_other = max(zip(ratios, others, strict=True), key=lambda pair: pair[0], default=None)
    if nearest_other is not None and nearest_other[0] >= own:
        match = matches[nearest_other[1].template_id]
        reason = f"as like {match.person_id} ({match.similarity:.2f})"
        return Issue(template.template_id, template.person_id, reason, similarity)
    return None

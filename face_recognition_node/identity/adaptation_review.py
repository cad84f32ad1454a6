"""Templates that should not be where they are: adapted ones that went wrong, entries that show two people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.gallery.values import Provenance, Template
from face_recognition_node.identity.comparison import compare_with_templates, log_likelihood_ratios

if TYPE_CHECKING:
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.identity.calibration import Calibration

OUTLIER_LOG_RATIO = 1.0
"""An adapted template that is less like the enrolled ones than this, natural log, is an outlier."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A template that should be set aside.

    Attributes:
        template_id: Which.
        person_id: Whose.
        reason: In words.
        similarity: Cosine that shows it.
    """

    template_id: int
    person_id: str
    reason: str
    similarity: float


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
    """Return the smaller part of each entry that falls into parts which do not fit each other.

    Two templates fit if they show one person more likely than two (log-likelihood ratio above 0), and so do
    those that others connect: a head from the left and from the right. A part has two templates or more; a
    single poor view is no second person.
    """
    found: list[int] = []
    for person in snapshot.persons.values():
        templates = [t for t in snapshot.templates_of(person.person_id) if not t.is_set_aside]
        if len(templates) < 4:
            continue
        vectors = np.stack([template.embedding for template in templates])
        qualities = [template.quality for template in templates]
        fits = log_likelihood_ratios(calibration, vectors, qualities, vectors, qualities) > 0.0
        parts = _parts(fits)
        if len(parts) > 1:
            found += [templates[k].template_id for part in parts[1:] if len(part) > 1 for k in part]
    return tuple(sorted(found))


def _parts(fits: NDArray[np.bool_]) -> list[list[int]]:
    """Return the connected parts of a (N, N) symmetric relation, largest first."""
    pending, parts = set(range(len(fits))), []
    while pending:
        part, edge = [], [min(pending)]
        while edge:
            k = edge.pop()
            if k in pending:
                pending.remove(k)
                part.append(k)
                edge += np.flatnonzero(fits[k]).tolist()
        parts.append(sorted(part))
    return sorted(parts, key=len, reverse=True)


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
        reason = f"as like {snapshot.persons[match.person_id].label} ({match.similarity:.2f})"
        return Issue(template.template_id, template.person_id, reason, similarity)
    return None

"""Parameters of adaptation, and what it remembers and reports."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from face_recognition_node.vision.faces import FaceView


@dataclass(frozen=True, slots=True)
class AdaptationReport:
    """Something that was done or refused.

    Attributes:
        person_id: Whose template.
        action: "added", "replaced", "refused" or "set_aside".
        reason: In words.
        similarity: Cosine to the nearest enrolled template.
    """

    person_id: str
    action: str
    reason: str
    similarity: float

    def __str__(self) -> str:
        return f"adaptation of {self.person_id}: {self.action} ({self.reason}, {self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like a view is to its person and to others.

    Attributes:
        similarity: Cosine to the nearest enrolled template.
        log_ratio: What that is worth, natural log.
        any_similarity: Cosine to the nearest template of any provenance.
        other_log_ratio: What the likeness to the most similar other person is worth.
    """

    similarity: float
    log_ratio: float
    any_similarity: float
    other_log_ratio: float


@dataclass(slots=True)
class Probation:
    """What is remembered of one track.

    Attributes:
        person_id: Whom it is claimed to be.
        n_certain: Certain views so far.
        first_certain: Stamp of the first of them.
        last_certain: Stamp of the last of them.
        last_stamp: Stamp of the latest view.
        usual: Highest running median of the likeness to the enrolled views: the track's usual likeness.
        view: A view that may be stored, or None.
        view_similarity: Its cosine to the person's nearest template.
        returns: Views at the usual likeness since.
    """

    person_id: str
    n_certain: int = 0
    first_certain: float = 0.0
    last_certain: float = 0.0
    last_stamp: float = -math.inf
    usual: float = -1.0
    view: FaceView | None = None
    view_similarity: float = 0.0
    returns: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=5))

    def note(self, view: FaceView, likeness: Likeness, certain_log_ratio: float) -> None:
        """Count a view."""
        self.last_stamp = view.stamp
        self._recent.append(likeness.similarity)
        if len(self._recent) == self._recent.maxlen:
            self.usual = max(self.usual, float(np.median(self._recent)))
        if likeness.log_ratio >= certain_log_ratio:
            self.first_certain = view.stamp if self.n_certain == 0 else self.first_certain
            self.last_certain = view.stamp
            self.n_certain += 1

    def is_certain(self, views: int, span_s: float) -> bool:
        """Whether enough certain views over enough time were seen."""
        return self.n_certain >= views and self.last_certain - self.first_certain >= span_s

    def put_on_probation(self, view: FaceView, likeness: Likeness) -> None:
        """Keep a view to be stored later; of several, the one that shows the newest look."""
        if self.view is None or likeness.any_similarity < self.view_similarity:
            self.view, self.view_similarity, self.returns = view, likeness.any_similarity, 0

"""What one track has shown of somebody unknown: the views to store, and which of them are stored."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from face_recognition_node.gallery.values import NewTemplate, Person, Provenance
from face_recognition_node.vision.faces import FaceView, FloatArray, embedding_of

# a view is added if its cosine to the nearest stored one is between these: new, hardly somebody else
OTHER_SIDE, SAME_PERSON = 0.9, 0.5
UNBROKEN_S = 0.5  # a track that was out of view for longer may have been found again in another face
ADDITION_INTERVAL_S = 1.0  # least time between two additions to one stranger


@dataclass(slots=True)
class StrangerRecord:
    """What is known of one track as a possible stranger."""

    views: list[FaceView] = field(default_factory=list)  # its best differing good views, best first
    n_good: int = 0  # good views seen
    first_stamp: float = 0.0  # when the first of them was seen, seconds
    last_stamp: float = 0.0  # when the last of them was seen, seconds
    stranger_id: str | None = None  # the id this track was given, or None
    pending: Future[Person] | None = None  # the commit under way, or None
    latest: FaceView | None = None  # the good view of this frame, or None
    # (D,) vectors of the views that the gallery was given
    stored: list[FloatArray] = field(default_factory=list)
    last_addition: float = 0.0  # when the last of them was given to it, seconds
    last_update: float | None = None  # when the track was last in view, seconds, or None
    passed_as: str | None = None  # whom the track was taken for before, or None
    # whether the track was out of view for so long that it may be somebody else's since
    is_broken: bool = False

    @property
    def span_s(self) -> float:
        """Seconds between the first and the last good view."""
        return self.last_stamp - self.first_stamp

    def follow(self, stamp: float) -> None:
        """Take note that the track is in view."""
        if self.last_update is not None and stamp - self.last_update > UNBROKEN_S:
            self.is_broken = True
        self.last_update = stamp

    def note(self, view: FaceView, limit: int) -> None:
        """Take in a good view; ``limit`` is the most to keep."""
        if self.n_good == 0:
            self.first_stamp = view.stamp
        self.n_good += 1
        self.last_stamp = view.stamp
        self.latest = view
        if not self.stored:  # they are chosen for the first commit; other_side looks after the later ones
            self.views = select_views([*self.views, view], limit)

    def other_side(self, limit: int) -> FaceView | None:
        """Return this view if it shows the stranger as none of the stored ones (``limit`` at most) does."""
        view = self.latest
        if view is None or not self.stored or self.pending is not None or len(self.stored) >= limit:
            return None
        if view.stamp - self.last_addition < ADDITION_INTERVAL_S:
            return None
        nearest = float(np.max(np.stack(self.stored) @ embedding_of(view)))
        return view if SAME_PERSON <= nearest < OTHER_SIDE else None

    def store(self, view: FaceView) -> NewTemplate:
        """Return a view as the gallery takes it, and remember that it was given away."""
        self.stored.append(embedding_of(view))
        self.last_addition = max(self.last_addition, view.stamp)
        return NewTemplate.of(view, Provenance.ADAPTED)

    def take_back(self) -> None:
        """Forget what was given to the gallery last, which refused it."""
        if self.stranger_id is None:
            self.stored.clear()
            self.n_good = 0
        else:
            self.stored.pop()


def select_views(views: Sequence[FaceView], limit: int, too_alike: float = 0.97) -> list[FaceView]:
    """Return at most ``limit`` views, best quality first, no two more alike than ``too_alike`` (cosine)."""
    kept: list[FaceView] = []
    vectors: list[FloatArray] = []
    for view in sorted(views, key=lambda v: -v.quality.overall):
        if len(kept) == limit:
            break
        if view.embedding is None or (
            vectors and float(np.max(np.stack(vectors) @ view.embedding)) > too_alike
        ):
            continue
        kept.append(view)
        vectors.append(view.embedding)
    return kept

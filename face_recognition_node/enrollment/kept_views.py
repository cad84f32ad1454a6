"""The views an enrollment has kept so far, and whether another one belongs to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from face_recognition_node.config import EnrollmentConfig
from face_recognition_node.enrollment.coverage import PoseCoverage, directions
from face_recognition_node.vision.faces import FaceView, embedding_of

# a view that covers a new direction counts as new only if it differs from the kept ones by this much
NEW_POSE_DEGREES = 10.0
CLEARLY_BETTER = 0.1  # a view takes the place of one that it resembles if its quality is higher by this much


class KeptViews:
    """Views of one person, all different; beyond ``minimum``, places wait for other poses."""

    def __init__(self, wanted: int, config: EnrollmentConfig, minimum: int = 0) -> None:
        self.wanted, self.minimum = wanted, minimum
        self._config = config
        self._views: list[FaceView] = []
        self.last_stamp = -math.inf

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[FaceView]:
        return iter(self._views)

    @property
    def views(self) -> tuple[FaceView, ...]:
        """The views, in the order they were taken."""
        return tuple(self._views)

    @property
    def coverage(self) -> PoseCoverage:
        """Poses covered."""
        return PoseCoverage.of(view.pose for view in self._views)

    @property
    def is_complete(self) -> bool:
        """Whether as many views as wanted are kept."""
        return len(self._views) >= self.wanted

    def offer(self, view: FaceView) -> bool:
        """Keep a view of the right person if it shows something new; return whether it was kept.

        A view is new if it looks different from each kept one, covers a direction not yet covered, or comes a
        while after the last. For the first seconds a place is left for each of front, left and right that is
        still missing, and half of the places for other directions than one. A view much better than the kept
        one that it resembles replaces that.
        """
        if not self._views:
            self._keep(view)
            return True
        similarity = np.stack([embedding_of(kept) for kept in self._views]) @ embedding_of(view)
        nearest = int(np.argmax(similarity))
        adds = self.coverage.adds(view.pose) and self._turn_since_nearest(view) >= NEW_POSE_DEGREES
        is_late = view.stamp - self.last_stamp >= self._config.view_interval_s
        is_new = adds or is_late or similarity[nearest] < self._config.new_look_similarity
        if is_new and (adds or not self._is_place_reserved(view)):
            self._keep(view)
            return True
        if (
            similarity[nearest] >= self._config.new_look_similarity
            and view.quality.overall >= self._views[nearest].quality.overall + CLEARLY_BETTER
            and directions(view.pose) == directions(self._views[nearest].pose)
        ):
            self._views[nearest] = view
        return False

    def drop(self, views: Sequence[FaceView]) -> None:
        """Remove views that proved not to belong."""
        self._views = [kept for kept in self._views if not any(kept is view for view in views)]

    def self_consistency(self) -> float | None:
        """Return the mean cosine between the views, or None with fewer than two."""
        if len(self._views) < 2:
            return None
        vectors = np.stack([embedding_of(view) for view in self._views])
        rows, columns = np.triu_indices(len(vectors), 1)
        return float((vectors @ vectors.T)[rows, columns].mean())

    def _keep(self, view: FaceView) -> None:
        self._views.append(view)
        self.last_stamp = view.stamp

    def _turn_since_nearest(self, view: FaceView) -> float:
        return min(
            math.hypot(view.pose.yaw - kept.pose.yaw, view.pose.pitch - kept.pose.pitch)
            for kept in self._views
        )

    def _is_place_reserved(self, view: FaceView) -> bool:
        """Whether the places left should wait for other directions than this view's."""
        if (
            len(self._views) < self.minimum
            or view.stamp - self._views[0].stamp >= self._config.pose_patience_s
        ):
            return False
        missing = sum(d in self.coverage.missing() for d in ("front", "left", "right"))
        alike = sum(directions(kept.pose) == directions(view.pose) for kept in self._views)
        is_tight = self.wanted - len(self._views) <= missing or alike >= (self.wanted + 1) // 2
        return missing > 0 and is_tight

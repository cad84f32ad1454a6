"""Whether the face that an enrollment follows is still the same person's.

A track may pass from one person to another when somebody steps in front; none of the second person's views
may be kept. A view has to fit the views kept so far, with some credit while its box hardly moves, and it must
not fit anybody better who was seen beside the person, for those are certainly others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.comparison import compare_views
from face_recognition_node.vision.faces import FaceView, IdentifiedFace
from face_recognition_node.vision.geometry import overlap

# log odds that a face is the same person as in the frame before, where its box hardly moved
CONTINUITY_LOG_ODDS = 3.0
# how much and how lately the boxes must overlap for that (intersection over union; seconds)
CONTINUOUS_OVERLAP, CONTINUOUS_S = 0.4, 0.5
# log-likelihood ratio from which on another track is taken for the person who was lost
FOUND_AGAIN_LOG_RATIO = 3.0
# fewer views of somebody else in a row do not end an enrollment, however long they last
ENOUGH_FOREIGN_VIEWS = 3


class SamePerson:
    """Remembers where the person was last and who else was seen at the same time."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._others: dict[int, FaceView] = {}
        self._last: FaceView | None = None
        self._n_foreign, self._foreign_since = 0, 0.0

    @property
    def last_seen(self) -> float | None:
        """When the followed face was last in view, or None."""
        return None if self._last is None else self._last.stamp

    def saw(self, face: IdentifiedFace, others: Sequence[IdentifiedFace]) -> None:
        """Take note of the followed face and of good views of others in the same frame."""
        self._last = face.view
        for other in others:
            if other.view.embedding is not None:
                self._others[other.track_id] = other.view

    def fits(self, view: FaceView, kept: Sequence[FaceView]) -> bool:
        """Return whether a view shows the person of the kept views (True if there are none yet)."""
        is_same = not kept or self._is_same(view, kept)
        if is_same:
            self._n_foreign = 0
        else:
            self._foreign_since = view.stamp if self._n_foreign == 0 else self._foreign_since
            self._n_foreign += 1
        return is_same

    def has_changed(self, stamp: float, after_s: float) -> bool:
        """Return whether all good views have been somebody else's for ``after_s`` seconds."""
        return self._n_foreign >= ENOUGH_FOREIGN_VIEWS and stamp - self._foreign_since >= after_s

    def find(self, faces: Sequence[IdentifiedFace], kept: Sequence[FaceView]) -> IdentifiedFace | None:
        """Return the good view that is surely the lost person's under another track id, or None."""
        best, highest = None, FOUND_AGAIN_LOG_RATIO
        for face in faces if kept else ():
            if face.view.embedding is None or face.track_id in self._others:
                continue
            ratio = self._ratio(face.view, kept)
            if ratio >= highest:
                best, highest = face, ratio
        return best

    def _is_same(self, view: FaceView, kept: Sequence[FaceView]) -> bool:
        ratio = self._ratio(view, kept)
        if ratio + (CONTINUITY_LOG_ODDS if self._is_continuous(view) else 0.0) < 0.0:
            return False
        return not self._others or self._ratio(view, list(self._others.values())) < max(ratio, 0.0)

    def _is_continuous(self, view: FaceView) -> bool:
        if self._last is None or view.stamp - self._last.stamp > CONTINUOUS_S:
            return False
        return overlap(view.detection, self._last.detection) >= CONTINUOUS_OVERLAP

    def _ratio(self, view: FaceView, others: Sequence[FaceView]) -> float:
        return float(np.max(compare_views(self._calibration, [view], others)))

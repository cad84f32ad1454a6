"""Whose face an enrollment follows: chosen from what is seen over some frames, or refused as ambiguous."""

from __future__ import annotations

import math
from collections import defaultdict

from face_recognition_node.config import EnrollmentConfig
from face_recognition_node.enrollment.goal import MostCentral, Outcome, Region, Selection, Track
from face_recognition_node.vision.faces import IdentifiedFace, RecognitionResult

UNDECIDED_S = 1.5  # seconds of equally prominent faces after which they are reported as ambiguous
# distance from the middle, in half widths of the image or region, that costs 40 % of the prominence
_CENTRALITY = 0.5
_SINGLE_FACE_SHARE = 0.3  # a face seen in fewer of the frames than this is not chosen


class TargetSelector:
    """Watches the faces until one of them stands out.

    The prominence of a face is its size times its frontality, plausibility and detection score, weakly
    weighted by how central it is; it is summed over the frames, so that something that is taken for a face
    now and then does not win.
    """

    def __init__(self, selection: Selection, config: EnrollmentConfig) -> None:
        self._selection = selection
        self._config = config
        self._prominence: defaultdict[int, float] = defaultdict(float)
        self._seen: defaultdict[int, int] = defaultdict(int)
        self._n_frames = 0
        self._n_others = 0
        self._first_stamp: float | None = None
        self._watching_since: float | None = None
        self._stamp = 0.0

    @property
    def is_ambiguous(self) -> bool:
        """Whether at present two faces are equally prominent."""
        ranked = sorted(self._prominence.values(), reverse=True)
        return len(ranked) > 1 and ranked[1] >= self._config.ambiguity * ranked[0]

    def observe(self, result: RecognitionResult) -> int | Outcome | None:
        """Return the chosen track id, or why none can be chosen, or None while it is not clear yet."""
        self._first_stamp = result.stamp if self._first_stamp is None else self._first_stamp
        self._stamp = result.stamp
        self._n_frames = self._n_frames + 1 if self._prominence else 1  # counted from the first face on
        self._n_others = 0
        for face in result.faces:
            prominence = self._prominence_of(face, result.image_size)
            if prominence > 0:
                self._prominence[face.track_id] += prominence
                self._seen[face.track_id] += 1
                if self._watching_since is None:
                    self._watching_since = result.stamp
            else:
                self._n_others += 1
        return self._decide(is_last=False)

    def conclude(self) -> int | Outcome:
        """Return the chosen track, or why there is none, when no more frames will come."""
        decided = self._decide(is_last=True)
        return self._nobody() if decided is None else decided

    def explain(self, outcome: Outcome) -> str:
        """Return a sentence about why nobody was chosen."""
        if outcome is Outcome.AMBIGUOUS_FACE:
            number = len(self._prominence)
            return f"{number} faces fit equally well; let one come closer, or choose by track or region"
        if outcome is Outcome.NO_SUCH_TRACK and isinstance(self._selection, Track):
            return f"the face of track {self._selection.track_id} is not in view"
        if isinstance(self._selection, Region) and self._n_others:
            return f"there is no face in the region; {self._n_others} elsewhere in the image"
        return "no face is visible; is the person looking at the robot?"

    def _decide(self, is_last: bool) -> int | Outcome | None:
        if not self._prominence:
            waited = self._stamp - (self._stamp if self._first_stamp is None else self._first_stamp)
            return self._nobody() if waited >= self._config.no_face_s else None
        watched = self._stamp - (self._stamp if self._watching_since is None else self._watching_since)
        if isinstance(self._selection, Track):
            return self._selection.track_id
        if not is_last and watched < self._config.selection_s:
            return None
        if self.is_ambiguous:
            return Outcome.AMBIGUOUS_FACE if is_last or watched >= UNDECIDED_S else None
        best = max(self._prominence, key=lambda track_id: self._prominence[track_id])
        return best if self._seen[best] >= _SINGLE_FACE_SHARE * self._n_frames else None

    def _nobody(self) -> Outcome:
        return Outcome.NO_SUCH_TRACK if isinstance(self._selection, Track) else Outcome.NO_FACE

    def _prominence_of(self, face: IdentifiedFace, image_size: tuple[int, int]) -> float:
        """Return how prominent a face is in one frame; 0 if it cannot be meant."""
        if isinstance(self._selection, Track):
            return float(face.track_id == self._selection.track_id)
        if face.flatness == "flat" or face.view.detection.score < self._config.minimum_score:
            return 0.0
        if isinstance(self._selection, MostCentral):
            return prominence(face, image_size)
        (width, height), area = image_size, self._selection.box
        x, y = face.view.detection.center_xy.tolist()
        if not (area[0] * width <= x <= area[2] * width and area[1] * height <= y <= area[3] * height):
            return 0.0
        return prominence(face, image_size, area)


def prominence(
    face: IdentifiedFace,
    image_size: tuple[int, int],
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> float:
    """Return how near, frontal, plausible and central in the area (x1, y1, x2, y2 in [0, 1]) a face is."""
    detection, quality = face.view.detection, face.view.quality
    width, height = image_size
    x1, y1, x2, y2 = area[0] * width, area[1] * height, area[2] * width, area[3] * height
    x, y = detection.center_xy.tolist()
    off = math.hypot((2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1))
    central = 1.0 / (1.0 + (off / _CENTRALITY) ** 2 * 0.65)
    usable = (0.2 + 0.8 * quality.frontality) * (0.2 + 0.8 * quality.landmarks) * detection.score
    return detection.size_px * (0.4 + 0.6 * central) * usable

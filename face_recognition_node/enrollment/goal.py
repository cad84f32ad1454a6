"""What an enrollment is asked for, what it says meanwhile, and what it answers; its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from face_recognition_node.common.errors import InputError
from face_recognition_node.enrollment.coverage import PoseCoverage
from face_recognition_node.gallery.values import checked_name
from face_recognition_node.vision.faces import Candidate


class Rejection(str, Enum):
    """Why a view was not kept."""

    TOO_SMALL = "too_small"
    BLURRED = "blurred"
    TURNED_TOO_FAR = "turned_too_far"
    POOR_LANDMARKS = "poor_landmarks"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    TOO_SIMILAR = "too_similar"
    DIFFERENT_PERSON = "different_person"
    CUT_OFF = "cut_off"
    LOW_SCORE = "low_score"
    FLAT = "flat"
    NO_EMBEDDING = "no_embedding"


class Outcome(str, Enum):
    """How an enrollment ended; only STORED is a success."""

    STORED = "stored"
    NO_FACE = "no_face"
    AMBIGUOUS_FACE = "ambiguous_face"
    NO_SUCH_TRACK = "no_such_track"
    NO_SUCH_PERSON = "no_such_person"
    PERSON_LEFT = "person_left"
    PERSON_CHANGED = "person_changed"
    TOO_FEW_VIEWS = "too_few_views"
    INCONSISTENT = "inconsistent"
    CANCELED = "canceled"
    BUSY = "busy"
    NO_IMAGES = "no_images"
    NOT_STORED = "not_stored"
    ALREADY_KNOWN = "already_known"
    INVALID_GOAL = "invalid_goal"


@dataclass(frozen=True, slots=True)
class MostCentral:
    """The near, frontal face closest to the middle of the image."""


@dataclass(frozen=True, slots=True)
class Track:
    """The face with this track id."""

    track_id: int


@dataclass(frozen=True, slots=True)
class Region:
    """The face in this part of the image: x1, y1, x2, y2 in [0, 1] of its width and height."""

    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.box
        if not (0.0 <= x1 < x2 <= 1.0 and 0.0 <= y1 < y2 <= 1.0):
            raise InputError(f"region: expected 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, got {self.box}")


Selection = MostCentral | Track | Region


@dataclass(frozen=True, slots=True)
class EnrollmentGoal:
    """Whom to get to know."""

    name: str  # display name; empty: remember this face, name it later (it is kept as a stranger)
    person_id: str | None = None  # add the views to this person; None: a new person
    selection: Selection = field(default_factory=MostCentral)  # which face
    wanted_views: int = 0  # views to keep; 0: as the parameters say
    timeout_s: float = 0.0  # seconds after which to end with what there is; 0: as the parameters say
    minimum_views: int = 0  # fewer are never stored; 0: as the parameters say. A single picture needs 1
    # store a new person even if the face is that of somebody known (a twin, say)
    is_somebody_else: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", checked_name(self.name, may_be_empty=True))
        for what, number in (("wanted_views", self.wanted_views), ("minimum_views", self.minimum_views)):
            if not 0 <= number <= 100:
                raise InputError(f"{what}: expected 0 (default) to 100, got {number}")
        if not (math.isfinite(self.timeout_s) and self.timeout_s >= 0):
            raise InputError(f"timeout_s: expected seconds, or 0 for the default, got {self.timeout_s}")


@dataclass(frozen=True, slots=True)
class EnrollmentFeedback:
    """Where an enrollment stands."""

    track_id: int | None  # the track that is followed, or None while none is chosen
    views_kept: int
    wanted_views: int
    rejections: Mapping[Rejection, int]  # views not kept, by reason
    coverage: PoseCoverage
    hint: str  # A sentence that the robot can say, or empty
    known: Candidate | None  # who it looks like, if the probability is worth a warning
    last_view_accepted: bool
    last_reason: Rejection | None  # why the latest view was not kept, or None
    elapsed_s: float  # seconds since the first frame


@dataclass(frozen=True, slots=True)
class EnrollmentResult:
    """How an enrollment ended."""

    outcome: Outcome
    message: str
    person_id: str | None = None  # who was stored, or None
    name: str = ""
    views_kept: int = 0  # views stored; 0 without success
    # views not kept, by reason
    rejections: Mapping[Rejection, int] = field(default_factory=lambda: MappingProxyType({}))
    coverage: PoseCoverage = field(default_factory=PoseCoverage)  # poses of the views stored
    self_consistency: float | None = None  # mean cosine between the views, or None with fewer than two
    # the most similar other person of the gallery, or None; the known one if that ended it
    nearest: Candidate | None = None
    known: Candidate | None = None  # the same, where the probability is worth a warning
    gallery_version: int | None = None  # the version that contains the person, or None

    @property
    def success(self) -> bool:
        """True only after the views are durably stored."""
        return self.outcome is Outcome.STORED

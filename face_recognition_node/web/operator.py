"""What the page sees of a robot and can ask of it: the one interface between the page and its backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.vision.faces import ImageArray


class UnavailableError(FaceRecognitionError):
    """This backend cannot do what was asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face of the live picture.

    Attributes:
        track_id: One face followed over frames.
        box: x1, y1, x2, y2 in pixels of the picture.
        state: "known", "stranger" or "undecided".
        person_id: Of the person or stranger; empty: none claimed.
        name: Display name; may be empty.
        probability: Posterior of the claim in [0, 1].
        quality: Of this view, in [0, 1].
        flatness: "unverified", "solid" or "flat".
        runner_up: Name of the second most probable person; empty: none.
        runner_up_probability: In [0, 1].
    """

    track_id: int
    box: tuple[float, float, float, float]
    state: str
    person_id: str
    name: str
    probability: float
    quality: float
    flatness: str
    runner_up: str = ""
    runner_up_probability: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The newest image with its faces.

    Attributes:
        image_bgr: (H, W, 3) uint8; nobody writes to it any more.
        faces: In coordinates of the image.
    """

    image_bgr: ImageArray
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong.

    Attributes:
        what: In words.
        cure: What to do about it; may be empty.
        is_error: Nothing works until it is cured; otherwise a warning.
    """

    what: str
    cure: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class EnrollmentState:
    """An enrollment that runs or has ended.

    Attributes:
        number: Counts the enrollments of this page.
        is_running: False once it has ended.
        track_id: The face that is followed; None while none is chosen.
        name: The name asked for; empty if views are added to a person.
        views_kept: So far.
        wanted_views: The goal.
        rejections: Views not kept, by reason.
        coverage: Directions covered: front, left, right, up, down, as seen in the image.
        hint: What the robot would say.
        known_id: Whom the face resembles; empty: nobody.
        known_name: Their name.
        known_probability: In [0, 1].
        outcome: In a word, once it has ended; "stored" is the success.
        message: In a sentence.
    """

    number: int
    is_running: bool
    track_id: int | None
    name: str
    views_kept: int
    wanted_views: int
    rejections: Mapping[str, int]
    coverage: tuple[str, ...]
    hint: str
    known_id: str = ""
    known_name: str = ""
    known_probability: float = 0.0
    outcome: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How recognition is doing now; asked for several times a second.

    Attributes:
        source: Where the pictures come from.
        received_hz: Pictures received per second.
        rate_hz: Pictures answered per second.
        latency_ms: Median time from picture to answer; None: unknown.
        latency_p95_ms: 95th percentile.
        dropped: Pictures that a newer one replaced.
        backend: What runs the networks, and where.
        backend_reason: Why that.
        version: Grows with every change of what :meth:`Operator.overview` returns.
        problems: What is wrong.
        enrollment: The latest one, or None.
    """

    source: str
    received_hz: float = 0.0
    rate_hz: float = 0.0
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    dropped: int = 0
    backend: str = ""
    backend_reason: str = ""
    version: int = 0
    problems: tuple[Problem, ...] = ()
    enrollment: EnrollmentState | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One person or stranger of the gallery; times are Unix seconds, None: never.

    ``picture`` is a template whose crop is kept, by the owner's choice; None: none is.
    """

    person_id: str
    name: str
    is_stranger: bool
    n_templates: int
    n_adapted: int
    session: str
    created: float | None
    last_seen: float | None
    expires: float | None
    picture: int | None = None


@dataclass(frozen=True, slots=True)
class StoredView:
    """One template of a person, without the embedding."""

    template_id: int
    provenance: str
    quality: float
    yaw: float
    pitch: float
    created: float
    is_set_aside: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two entries of the gallery that may be one person, with the probability of that if it is known."""

    first_id: str
    second_id: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """One change: what it did, when (Unix seconds), undone or not, when undo ends (None: open)."""

    sentence: str
    made: float
    is_done: bool
    deadline: float | None


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session: name ("": default), kind, seconds that its newcomers are kept (None: no limit), members."""

    name: str
    kind: str
    time_to_live_s: float | None
    n_people: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The target false-accept rate and what it costs at this size of the gallery.

    Attributes:
        target: Chance that a stranger's track is ever given a name.
        n_people: Enrolled people.
        strangers_named: Expected share of strangers who are given a name, in [0, 1].
        people_named: Expected share of enrolled people named from a single good view; a track gives several.
        measured: What was measured on videos when the model was calibrated, in a sentence; may be empty.
    """

    target: float
    n_people: int
    strangers_named: float
    people_named: float
    measured: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """All that changes seldom: who is known, what was done, the sessions, the operating point."""

    version: int
    people: tuple[Card, ...]
    pairs: tuple[Pair, ...] = ()
    history: tuple[Step, ...] = ()
    sessions: tuple[SessionInfo, ...] = ()
    session: str = ""
    gallery: str = ""
    operating_point: OperatingPoint | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the gallery found: a summary, and what to do about each problem."""

    is_sound: bool
    summary: str
    problems: tuple[Problem, ...] = ()


class Operator(Protocol):
    """A robot, or a camera and a gallery on this machine.

    The methods may be called from any thread and may wait for the disk. Those that change something return a
    sentence that says what was done, and raise FaceRecognitionError with the reason and the cure otherwise;
    UnavailableError where this backend has no such function: ``Overview.unavailable`` names it beforehand.
    """

    def follow(self, on_picture: Callable[[], None]) -> None:
        """Also call ``on_picture`` from now on, from any thread, whenever :meth:`picture` has changed."""
        ...

    def watch(self, is_watched: bool) -> None:
        """Take note whether anybody looks at the live picture."""
        ...

    def picture(self) -> Picture | None:
        """Return the newest picture; None: there is none yet."""
        ...

    def status(self) -> Status:
        """Return how recognition is doing."""
        ...

    def overview(self) -> Overview:
        """Return who is known, and what belongs to that."""
        ...

    def views(self, person_id: str) -> tuple[StoredView, ...]:
        """Return the templates of a person."""
        ...

    def crop(self, template_id: int) -> bytes | None:
        """Return the kept crop of a template as JPEG; None: none is kept."""
        ...

    def enroll(self, track_id: int, name: str, person_id: str, is_somebody_else: bool) -> str:
        """Begin to enroll the face of a track, as a new person or into ``person_id`` if that is not empty."""
        ...

    def cancel_enrollment(self) -> str:
        """End the running enrollment without storing anything."""
        ...

    def rename(self, person_id: str, name: str) -> str:
        """Give a person another name, or a stranger a name."""
        ...

    def merge(self, keep_id: str, other_ids: Sequence[str]) -> str:
        """Make several entries one person, who keeps the id and name of ``keep_id``."""
        ...

    def split(self, template_ids: Sequence[int], name: str) -> str:
        """Take templates away from a person and make another person of them."""
        ...

    def forget(self, person_ids: Sequence[str], is_final: bool) -> str:
        """Remove people; final: at once and for good, otherwise until the undo window ends."""
        ...

    def undo(self) -> str:
        """Take back the latest change."""
        ...

    def redo(self) -> str:
        """Do again what was undone last."""
        ...

    def start_session(self, name: str, kind: str, time_to_live_s: float | None) -> str:
        """Store newcomers under this session from now on; kind is "permanent", "event" or "run"."""
        ...

    def export_people(self, path: str) -> str:
        """Write everybody to a file on the robot's machine."""
        ...

    def import_people(self, path: str) -> str:
        """Store the people of an exported file on the robot's machine."""
        ...

    def verify(self) -> Verification:
        """Check the gallery; changes nothing."""
        ...

    def set_target(self, rate: float) -> str:
        """Set the target false-accept rate."""
        ...

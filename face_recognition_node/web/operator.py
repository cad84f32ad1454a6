"""What the page sees of a robot and can ask of it: the words of all backends, and what each has to add."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from face_recognition_node.common.errors import InputError
from face_recognition_node.common.files import user_path
from face_recognition_node.common.parameters import with_values
from face_recognition_node.config import Config
from face_recognition_node.gallery.values import Session, SessionKind
from face_recognition_node.identity.adaptation_review import TWIN_PROBABILITY
from face_recognition_node.identity.operating_point import OperatingPoint
from face_recognition_node.vision.faces import ImageArray

TARGET = "identity.target_false_accept_rate"

Text = Annotated[str, Meta(max_length=4096)]
Ids = Annotated[Sequence[str], Meta(min_length=1)]
Numbers = Annotated[Sequence[int], Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Face:
    """One face of the live picture; an empty ``person_id`` or ``runner_up`` is nobody."""

    track_id: int
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the picture
    state: str  # known, stranger or undecided
    person_id: str
    name: str
    probability: float
    quality: float
    flatness: str  # unverified, solid or flat
    runner_up: str = ""
    runner_up_probability: float = 0.0
    flatness_source: str = ""  # depth or motion


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The newest image, (H, W, 3) uint8, to which nobody writes any more, with its faces."""

    image_bgr: ImageArray
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, and what to do about it; an error: nothing works until then."""

    what: str
    cure: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class EnrollmentState:
    """An enrollment that runs or has ended."""

    number: int  # counts the enrollments of this page
    is_running: bool
    track_id: int | None  # the face that is followed; None while none is chosen
    name: str  # the name asked for, or of whom views are added to
    views_kept: int
    wanted_views: int
    rejections: Mapping[str, int]  # views not kept, by reason
    coverage: tuple[str, ...]  # front, left, right, up, down, as seen in the image
    hint: str  # what the robot would say
    known_id: str = ""  # whom the face resembles; empty: nobody
    known_name: str = ""
    known_probability: float = 0.0
    outcome: str = ""  # in a word, once it has ended; "stored" is the success
    message: str = ""  # the same in a sentence


@dataclass(frozen=True, slots=True)
class Status:
    """How recognition is doing now; asked for several times a second."""

    source: str  # where the pictures come from
    received_hz: float = 0.0  # pictures received per second
    rate_hz: float = 0.0  # pictures answered per second
    latency_ms: float | None = None  # median from picture to answer; None: unknown
    latency_p95_ms: float | None = None
    dropped: int = 0  # pictures that a newer one replaced
    backend: str = ""  # what runs the networks, and where
    backend_reason: str = ""  # why that
    version: int = 0  # grows with every change of what :meth:`Operator.overview` returns
    problems: tuple[Problem, ...] = ()
    enrollment: EnrollmentState | None = None  # the latest one


@dataclass(frozen=True, slots=True)
class Card:
    """One person or stranger of the gallery; times are Unix seconds, None: never."""

    person_id: str
    name: str
    is_stranger: bool
    n_templates: int
    n_adapted: int
    session: str
    created: float | None
    last_seen: float | None
    expires: float | None
    picture: int | None = None  # a template whose crop is kept, by the owner's choice; None: none is

    @property
    def label(self) -> str:
        """The name, or the id of somebody without one."""
        return self.name or self.person_id


@dataclass(frozen=True, slots=True)
class StoredView:
    """One template of a person, without the embedding."""

    template_id: int
    person_id: str
    provenance: str
    quality: float
    yaw: float
    pitch: float
    created: float
    is_set_aside: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two entries of the gallery that may be one person, and the probability of that."""

    first_id: str
    second_id: str
    probability: float


@dataclass(frozen=True, slots=True)
class Step:
    """One change that can be undone or done again; times are Unix seconds."""

    sentence: str
    made: float
    is_done: bool
    deadline: float | None  # when undo ends; None: open


@dataclass(frozen=True, slots=True)
class Overview:
    """All that changes seldom: who is known, what was done, the sessions, the operating point."""

    version: int
    people: tuple[Card, ...]
    pairs: tuple[Pair, ...]
    history: tuple[Step, ...]
    sessions: tuple[Session, ...]
    session: str
    gallery: str
    operating_point: OperatingPoint


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the gallery found: a summary, and what to do about each problem."""

    is_sound: bool
    summary: str
    problems: tuple[Problem, ...] = ()


class Operator(ABC):
    """A robot, or a camera and a gallery on this machine.

    The methods may be called from any thread and may wait for the disk. Those that change something return a
    sentence that says what was done, and raise FaceRecognitionError with the reason and the cure otherwise.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._followers: list[Callable[[], None]] = []
        self._picture: Picture | None = None
        self._apart: set[frozenset[str]] = set()
        self._settings = 0

    def follow(self, on_picture: Callable[[], None]) -> None:
        """Also call ``on_picture`` from now on, from any thread, whenever :meth:`picture` has changed."""
        self._followers.append(on_picture)

    def _show(self, picture: Picture) -> None:
        """Take a new picture; faces side by side in it are different people."""
        seen = sorted(face.person_id for face in picture.faces if face.person_id)
        with self._lock:
            self._picture = picture
            self._apart.update(map(frozenset, itertools.combinations(seen, 2)))
        for tell in self._followers:
            tell()

    def watch(self, is_watched: bool) -> None:  # noqa: B027  # most need not know
        """Take note whether anybody looks at the live picture."""

    def picture(self) -> Picture | None:
        """Return the newest picture; None: there is none yet."""
        return self._picture

    @abstractmethod
    def status(self) -> Status:
        """Return how recognition is doing."""

    def _version_of(self, gallery_version: int) -> int:
        return gallery_version * 1000 + self._settings % 1000

    def overview(self) -> Overview:
        """Return who is known, and what belongs to that."""
        overview = self._overview()
        pairs = [pair for pair in overview.pairs if {pair.first_id, pair.second_id} not in self._apart]
        return replace(overview, pairs=tuple(pairs))

    def views(self, person_id: Text) -> list[StoredView]:
        """Return the templates of a person."""
        return [view for view in self._views() if view.person_id == person_id]

    @abstractmethod
    def crop(self, template_id: int) -> bytes | None:
        """Return the kept crop of a template as JPEG; None: none is kept."""

    def enroll(
        self, track_id: int, name: Text = "", person_id: Text = "", is_somebody_else: bool = False
    ) -> str:
        """Begin to enroll the face of a track, as a new person or into ``person_id`` if that is not empty."""
        with self._lock:
            running = self._enrollment()
            if running is not None and running.is_running:
                raise InputError("another enrollment is running; cancel it first")
            self._begin(track_id, name, person_id, is_somebody_else)
        return f"Enrolling {name or 'this face'}"

    def cancel_enrollment(self) -> str:
        """End the running enrollment without storing anything."""
        self._cancel()
        return "Enrollment canceled; nothing was stored"

    def rename(self, person_id: Text, name: Text) -> str:
        """Give a person another name, or a stranger a name."""
        before = self._label(person_id)
        return f"{before} is now called {self._rename(person_id, name).label}"

    def merge(self, keep_id: Text, other_ids: Ids) -> str:
        """Make several entries one person, who keeps the id and name of ``keep_id``."""
        person = self._merge(keep_id, other_ids)
        return f"{person.label} now has {_counted(person.n_templates, 'view')}"

    def split(self, template_ids: Numbers, name: Text) -> str:
        """Take templates away from a person and make another person of them."""
        person = self._split(template_ids, name)
        return f"{person.label} is a person with {_counted(person.n_templates, 'view')} now"

    def forget(self, person_ids: Ids, is_final: bool = False) -> str:
        """Remove people; final: at once and for good, otherwise until the undo window ends."""
        names = ", ".join(self._label(person_id) for person_id in person_ids)
        unfinished = self._forget(person_ids, is_final)
        done = f"{names} forgotten for good" if is_final else f"{names} forgotten; undo brings them back"
        return f"{done}. {unfinished}" if unfinished else done

    def undo(self) -> str:
        """Take back the latest change."""
        return f"Undone: {'; '.join(self._step(is_redo=False))}"

    def redo(self) -> str:
        """Do again what was undone last."""
        return f"Redone: {'; '.join(self._step(is_redo=True))}"

    def start_session(self, name: Text, kind: SessionKind, time_to_live_s: float = 0.0) -> str:
        """Store newcomers under this session from now on, for so long; 0: without a limit."""
        self._set_session(Session(name, kind, time_to_live_s or None))
        return f"Newcomers are stored under {name or 'the default session'}"

    def export_people(self, path: Text, overwrite: bool = False) -> str:
        """Write everybody to a file on the robot's machine."""
        n_people, n_views, written = self._export(_absolute(path), overwrite)
        return f"{_entries(n_people, n_views)} written to {written}"

    def import_people(self, path: Text) -> str:
        """Store the people of an exported file on the robot's machine."""
        n_people, n_views = self._import(_absolute(path))
        if not n_views:
            return f"Nothing was imported: all of the file's entries ({n_people}) existed already"
        return f"{_entries(n_people, n_views)} imported"

    def verify(self) -> Verification:
        """Check the gallery and say what to do about each problem; changes nothing."""
        found, doubtful, n_people, n_views = self._check()
        overview = self.overview()
        labels = {person.person_id: person.label for person in overview.people}
        owners = {view.template_id: labels.get(view.person_id, "somebody") for view in self._views()}
        problems = [Problem(text, _cure(text), is_error=True) for text in found]
        problems += [
            Problem(
                f"View {view} of {owners[view]} does not fit the other views of {owners[view]}, or fits "
                "somebody else better",
                f"Look at the views of {owners[view]} and split this one off if it shows another person.",
            )
            for view in doubtful
            if view in owners
        ]
        problems += [
            Problem(
                f"{labels[pair.first_id]} and {labels[pair.second_id]} look like one person",
                "Merge them if they are; if not, add views of both from other sides.",
            )
            for pair in overview.pairs
            if pair.probability >= TWIN_PROBABILITY and {pair.first_id, pair.second_id} <= labels.keys()
        ]
        n_things = _counted(len(problems), "thing")
        verdict = f"{n_things} to look at" if problems else "no problem found"
        return Verification(not found, f"{_entries(n_people, n_views)}: {verdict}", tuple(problems))

    def set_target(self, rate: float) -> str:
        """Set the target false-accept rate."""
        with_values(Config(), {TARGET: rate})  # says what is expected
        self._set_target(rate)
        self._settings += 1
        return f"Target false-accept rate: {rate:.3%}"

    def _label(self, person_id: str) -> str:
        people = self._people()
        return next((one.label for one in people if one.person_id == person_id), person_id)

    # What each backend adds: everything of the gallery in plain values.

    @abstractmethod
    def _overview(self) -> Overview: ...

    @abstractmethod
    def _people(self) -> Sequence[Card]: ...

    @abstractmethod
    def _views(self) -> Sequence[StoredView]: ...

    @abstractmethod
    def _enrollment(self) -> EnrollmentState | None: ...

    @abstractmethod
    def _begin(self, track_id: int, name: str, person_id: str, is_somebody_else: bool) -> None: ...

    @abstractmethod
    def _cancel(self) -> None: ...

    @abstractmethod
    def _rename(self, person_id: str, name: str) -> Card: ...

    @abstractmethod
    def _merge(self, keep_id: str, other_ids: Sequence[str]) -> Card: ...

    @abstractmethod
    def _split(self, template_ids: Sequence[int], name: str) -> Card: ...

    @abstractmethod
    def _forget(self, person_ids: Sequence[str], is_final: bool) -> str:
        """Return what of it is still to be done; empty: nothing."""

    @abstractmethod
    def _step(self, is_redo: bool) -> Sequence[str]: ...

    @abstractmethod
    def _set_session(self, session: Session) -> None: ...

    @abstractmethod
    def _export(self, path: Path, overwrite: bool) -> tuple[int, int, str]:
        """Return the number of people and of views, and the file."""

    @abstractmethod
    def _import(self, path: Path) -> tuple[int, int]:
        """Return the number of people in the file and of views stored."""

    @abstractmethod
    def _check(self) -> tuple[Sequence[str], Sequence[int], int, int]:
        """Return what is wrong, doubtful views, and the number of entries and of views."""

    @abstractmethod
    def _set_target(self, rate: float) -> None: ...


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _entries(n_people: int, n_views: int) -> str:
    return f"{n_people} {'entry' if n_people == 1 else 'entries'} with {_counted(n_views, 'view')}"


def _absolute(text: str) -> Path:
    path = user_path(text, "any")
    if not path.is_absolute():
        raise InputError(f"path: expected an absolute path on the robot's machine, got {text!r}")
    return path


def _cure(problem: str) -> str:
    """Return what to do about a problem of the gallery that does not name its cure itself."""
    if "chmod" in problem:
        return ""
    if "key is not on this machine" in problem:
        return "Copy the folder of keys from the machine the gallery came from, or go on without undo."
    if "search index" in problem:
        return "Restart the node: it builds the index anew from the file."
    return "Export everybody, move the gallery file away, restart and import the export."

"""What a scenario holds: whom to enroll from what, what to play then, and who is where in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from face_recognition_node.vision.faces import Frame

Range = tuple[float, float]
EVERYWHERE: Range = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class FaceRule:
    """Who a face is, by where and when it is.

    Attributes:
        who: Name of the true person; empty for something that is no person (a print, a poster).
        x: From and to which part of the image's width the centre of the box lies.
        y: The same of its height.
        t: From and to which second of the recording.
    """

    who: str
    x: Range = EVERYWHERE
    y: Range = EVERYWHERE
    t: Range = (0.0, float("inf"))

    def fits(self, x: float, y: float, t: float) -> bool:
        """Whether a face centred at ``x``, ``y`` (parts of the image) at second ``t`` is this person."""
        return self.x[0] <= x < self.x[1] and self.y[0] <= y < self.y[1] and self.t[0] <= t < self.t[1]


@dataclass(frozen=True, slots=True)
class VisibleFace:
    """A person's face in one frame.

    Attributes:
        who: The person; empty for a picture of one.
        box_xyxy: (x1, y1, x2, y2) pixels.
        visible: Share of the box that is in the image and not covered.
    """

    who: str
    box_xyxy: tuple[float, float, float, float]
    visible: float

    @property
    def height_px(self) -> float:
        """Height of the box."""
        return self.box_xyxy[3] - self.box_xyxy[1]


class Recording(Protocol):
    """Frames that know who is in them, in place of a file and rules; its text is its name for the report."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames with stamps from 0."""
        ...

    def truth(self, seconds: float) -> Sequence[VisibleFace]:
        """Return whose faces are where at the stamp of a frame."""
        ...


@dataclass(frozen=True, slots=True)
class Enrollment:
    """Whom to enroll, and from what.

    Attributes:
        name: Name in the gallery and in the ground truth.
        source: A recording to enroll from before the play, or empty: a path or a composed one.
        at: Second of the played recording at which to begin, where ``source`` is empty.
        x: Region of the played recording, parts of its width.
        y: Region of the played recording, parts of its height.
        pictures: 1-based numbers of the pictures of ``source`` to add as they are, instead of as a video.
    """

    name: str
    source: str | Recording = ""
    at: float = 0.0
    x: Range = EVERYWHERE
    y: Range = EVERYWHERE
    pictures: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Play:
    """One recording with its ground truth.

    Attributes:
        source: Path below the data root, ``archive.zip!folder``, ``"sample"``, or a composed recording, whose
            own truth holds in place of ``faces``.
        faces: Rules; a face that none fits belongs to no person.
        enroll: Enrollments while it plays.
        rate: Frames per second in place of the recording's own, or None.
        skip: 1-based numbers of the pictures to leave out.
    """

    source: str | Recording
    faces: tuple[FaceRule, ...] = ()
    enroll: tuple[Enrollment, ...] = ()
    rate: float | None = None
    skip: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """What happens to one gallery from empty to end.

    Attributes:
        name: For the report.
        enroll: Enrollments before anything is played.
        play: Recordings, one after the other.
    """

    name: str
    enroll: tuple[Enrollment, ...]
    play: tuple[Play, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario file.

    Attributes:
        name: For the report.
        description: What it shows.
        episodes: Independent of each other.
        settings: Parameters that differ from their defaults, by dotted name.
        pause: Seconds between one recording and the next.
        require: What must come out, by the names of requirements.py.
    """

    name: str
    description: str
    episodes: tuple[Episode, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    pause: float = 5.0
    require: dict[str, Any] = field(default_factory=dict)

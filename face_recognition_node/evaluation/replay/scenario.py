"""Scenarios: whom to enroll from what, what to play then, who is where in it; and the files that say so.

A scenario is a list of *episodes*; each begins with an empty gallery::

    name: both
    description: two enrolled people side by side
    settings: {identity.target_false_accept_rate: 0.01}     # optional, for every episode
    require: {wrong_seconds: 0, named_share: {W: 0.6}}      # optional, see requirements.py
    episodes:
      - name: both
        enroll:
          - {name: W, source: clips/woman.gif}              # before the play, as a person would do it
        play:
          - source: clips/both.gif
            faces:                                          # the first rule that fits a face's centre wins
              - {who: W, x: [0.0, 0.45]}                    # parts of the image, 0 to 1; t is in seconds
              - {who: M, x: [0.45, 1.0], t: [0.0, 9.0]}
            enroll:
              - {name: M, at: 1.5, x: [0.45, 1.0]}          # while it plays, with the face in that region

Two short forms spare repetition: ``rounds`` (each person's clips take turns to be the one enrolled from) and
``folders`` (a folder of pictures per person; some people are enrolled, the rest of the pictures are tracks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import msgspec
import numpy as np

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.vision.faces import Frame

Range = tuple[float, float]
EVERYWHERE: Range = (0.0, 1.0)
Text = Annotated[str, msgspec.Meta(min_length=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
if TYPE_CHECKING:
    Source: TypeAlias = "str | Recording"
else:
    Source = Text  # what a file can say


@dataclass(frozen=True, slots=True)
class VisibleFace:
    """A person's face in one frame."""

    who: str  # the person; empty for a picture of one
    box_xyxy: tuple[float, float, float, float]  # (x1, y1, x2, y2) pixels
    visible: float  # share of the box that is in the image and not covered

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


def _require_ascending(*ranges: Range) -> None:
    for low, high in ranges:
        if not low < high:
            raise ValueError(f"Expected [from, to] with from < to, got {[low, high]}")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a scenario file."""


class FaceRule(_Table, frozen=True):
    """Who a face is, by where its centre is (parts of the image) and when (seconds of the recording)."""

    who: str = ""
    x: Range = EVERYWHERE
    y: Range = EVERYWHERE
    t: Range = (0.0, float("inf"))

    def __post_init__(self) -> None:
        _require_ascending(self.x, self.y, self.t)

    def fits(self, x: float, y: float, t: float) -> bool:
        """Whether a face centred at ``x``, ``y`` (parts of the image) at second ``t`` is this person."""
        return self.x[0] <= x < self.x[1] and self.y[0] <= y < self.y[1] and self.t[0] <= t < self.t[1]


class Enrollment(_Table, frozen=True):
    """Whom to enroll, and from what."""

    name: Text  # name in the gallery and in the ground truth
    source: Source = ""  # a recording to enroll from before the play, or empty: a path or a composed one
    at: NotNegative = 0.0  # second of the played recording at which to begin, where `source` is empty
    x: Range = EVERYWHERE  # region of the played recording, parts of its width
    y: Range = EVERYWHERE  # region of the played recording, parts of its height
    # 1-based numbers of the pictures of `source` to add as they are, instead of as a video
    pictures: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require_ascending(self.x, self.y)


class Play(_Table, frozen=True):
    """One recording with its ground truth."""

    # path below the data root, `archive.zip!folder`, `"sample"`, or a composed recording, whose own truth
    # holds in place of `faces`
    source: Source
    faces: tuple[FaceRule, ...] = ()  # rules; a face that none fits belongs to no person
    enroll: tuple[Enrollment, ...] = ()  # enrollments while it plays
    rate: NotNegative | None = None  # frames per second in place of the recording's own, or None
    skip: tuple[int, ...] = ()  # 1-based numbers of the pictures to leave out

    def __post_init__(self) -> None:
        if isinstance(self.source, str) and not self.faces:
            raise ValueError("Expected rules under `faces` that say who is in the recording, got none")


class Episode(_Table, frozen=True):
    """What happens to one gallery: enrollments before anything is played, and recordings one by one."""

    name: str = ""
    enroll: tuple[Enrollment, ...] = ()
    play: tuple[Play, ...] = ()

    def __post_init__(self) -> None:
        if not self.play:
            raise ValueError("Expected recordings under `play`, got none")


class Rounds(_Table, frozen=True):
    """Episode n enrolls everybody from their n-th clip and plays all the other clips."""

    people: dict[str, Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]]
    faces: FaceRule = FaceRule()

    def episodes(self) -> list[Episode]:
        """Write the episodes out."""
        found = []
        for turn in range(max(map(len, self.people.values()), default=0)):
            chosen = {who: clips[turn % len(clips)] for who, clips in self.people.items()}
            enroll = tuple(Enrollment(who, clip) for who, clip in chosen.items())
            play = tuple(
                Play(clip, (FaceRule(who, self.faces.x, self.faces.y),))
                for who, clips in self.people.items()
                for clip in clips
                if clip != chosen[who]
            )
            found.append(Episode(f"round {turn + 1}", enroll, play))
        return found


class Folders(_Table, frozen=True):
    """People, a folder of pictures each, split into enrolled and strangers: in order, then at random."""

    source: Text  # archive or folder
    # 1-based numbers of those to enroll from
    pictures: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]
    rate: NotNegative = 5.0  # at which the others are played
    enrolled: Count = 0  # people
    strangers: Count = 0  # people
    splits: Count = 1  # episodes
    seed: int = 0  # of the random ones
    # pictures that a person needs to take part; one more than `pictures` if not given
    minimum: Count | None = None

    def episodes(self, root: Path) -> list[Episode]:
        """Write the episodes out."""
        from face_recognition_node.evaluation.replay.sequences import list_people

        minimum = len(self.pictures) + 1 if self.minimum is None else self.minimum
        pictures = list_people(root / self.source)
        people = [name for name, names in pictures.items() if len(names) >= minimum]
        n_needed = self.enrolled + self.strangers
        if len(people) < n_needed:
            raise ConfigurationError(
                f"folders: expected {self.enrolled} + {self.strangers} people, got {len(people)} in "
                f"{self.source}"
            )
        generator = np.random.default_rng(self.seed)
        found = []
        for split in range(self.splits):
            order = people if split == 0 else [people[i] for i in generator.permutation(len(people))]
            known, unknown = order[: self.enrolled], order[self.enrolled : n_needed]
            path = f"{self.source}!{{}}".format
            enroll = tuple(Enrollment(who, path(who), pictures=self.pictures) for who in known)
            play = [Play(path(who), (FaceRule(who),), rate=self.rate, skip=self.pictures) for who in known]
            play += [Play(path(who), (FaceRule(who),), rate=self.rate) for who in unknown]
            found.append(Episode(f"split {split + 1}", enroll, tuple(play)))
        return found


class Scenario(_Table, frozen=True):
    """A whole scenario file."""

    name: str = ""  # for the report
    description: str = ""  # what it shows
    episodes: tuple[Episode, ...] = ()  # independent of each other
    settings: dict[str, Any] = {}  # parameters that differ from their defaults, by dotted name
    pause: NotNegative = 5.0  # seconds between one recording and the next
    require: dict[str, Any] = {}  # what must come out, by the names of requirements.py
    rounds: Rounds | None = None  # more episodes, in short
    folders: Folders | None = None  # more episodes, in short


def read_scenario(path: Path, root: Path) -> Scenario:
    """Read a scenario file, its sources below ``root``; ConfigurationError tells the place of a mistake."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: is not YAML: {error}") from error
    return parse_scenario(document, root, str(path))


def parse_scenario(document: object, root: Path, where: str = "scenario") -> Scenario:
    """Turn the parsed YAML into a Scenario, short forms written out."""
    try:
        stated = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    episodes = [
        episode if episode.name else msgspec.structs.replace(episode, name=f"episode {number}")
        for number, episode in enumerate(stated.episodes, 1)
    ]
    if stated.rounds is not None:
        episodes += stated.rounds.episodes()
    if stated.folders is not None:
        episodes += stated.folders.episodes(root)
    if not episodes:
        raise ConfigurationError(f"{where}: expected episodes, rounds or folders, got none of them")
    return msgspec.structs.replace(
        stated, name=stated.name or where, description=stated.description.strip(), episodes=tuple(episodes),
        rounds=None, folders=None,
    )  # fmt: skip

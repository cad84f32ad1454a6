"""What a robot's claims about faces were worth, track by track.

A *true track* is one person in one recording, as the ground truth tells; what the tracker makes of it (one
track or several) does not matter here. An enrolled person's track is *identified* when the right name was
claimed at some time and a wrong one never; a track of somebody who is not enrolled is a *false positive*
when any name was ever claimed. The open-set identification rate and the false-positive identification rate
are the shares of such tracks (terms of ISO/IEC 19795-1:2021, there per attempt).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from face_recognition_node.vision.faces import IdentityState
from face_recognition_node.vision.flatness import UNVERIFIED


@dataclass(frozen=True, slots=True)
class FrameClaim:
    """What was claimed of one true face in one frame.

    Attributes:
        stamp: Time of the frame, seconds.
        duration: How long the claim stood, until the next frame, seconds.
        person_id: Of the claimed person or stranger.
        expected_id: person_id of the true person if enrolled by then, else None.
    """

    stamp: float
    duration: float
    state: IdentityState
    person_id: str | None = None
    name: str = ""
    expected_id: str | None = None
    flatness: str = UNVERIFIED

    @property
    def is_right(self) -> bool:
        """Whether the right person was named."""
        return self.state is IdentityState.KNOWN and self.person_id == self.expected_id

    @property
    def is_wrong(self) -> bool:
        """Whether somebody else was named, or somebody who is not enrolled was named at all."""
        return self.state is IdentityState.KNOWN and self.person_id != self.expected_id


@dataclass(frozen=True, slots=True)
class TrueTrack:
    """One person (or one thing that is no face) in one recording.

    Attributes:
        recording: Which.
        who: The person's name in the ground truth; empty for whatever was found outside every true face.
        claims: In the order of time; only frames in which a face was found there.
        visible: Stamps of the frames in which the face is in plain view, found or not; composed only.
    """

    recording: str
    who: str
    claims: tuple[FrameClaim, ...]
    visible: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TrackOutcome:
    """One true track, judged.

    Attributes:
        who: The true person; empty for no person.
        is_enrolled: Whether the person was enrolled during any of it.
        frames: Those in which the face was found; ``enrolled_frames`` of them with the person enrolled,
            ``right_frames`` and ``wrong_frames`` under a right and a wrong name.
        stranger_frames: Frames in which the person, although enrolled, was called a stranger.
        seconds_to_name: From the first frame (as an enrolled person) to the first right name, or None.
        swaps: How often the claimed person changed to another person.
        stranger_ids: Frames by stranger id, while not enrolled.
        is_named_at_end: Whether the last claim was right.
    """

    recording: str
    who: str
    is_enrolled: bool
    frames: int
    enrolled_frames: int
    right_frames: int
    wrong_frames: int
    stranger_frames: int
    wrong_seconds: float
    wrong_names: tuple[str, ...]
    seconds_to_name: float | None
    swaps: int
    stranger_ids: dict[str, int]
    is_named_at_end: bool

    @property
    def is_identified(self) -> bool:
        """Whether the right name was claimed, and no other ever."""
        return self.right_frames > 0 and self.wrong_frames == 0

    @property
    def is_false_positive(self) -> bool:
        """Whether somebody who is not enrolled got a name."""
        return not self.is_enrolled and self.wrong_frames > 0

    @property
    def named_share(self) -> float:
        """Share of the enrolled frames under the right name; NaN for a stranger."""
        return self.right_frames / self.enrolled_frames if self.enrolled_frames else float("nan")


def judge(track: TrueTrack) -> TrackOutcome:
    """Judge one true track."""
    enrolled = [claim for claim in track.claims if claim.expected_id is not None]
    right = [claim for claim in track.claims if claim.is_right]
    wrong = [claim for claim in track.claims if claim.is_wrong]
    named = [claim.person_id for claim in track.claims if claim.state is IdentityState.KNOWN]
    strangers = Counter(
        claim.person_id
        for claim in track.claims
        if claim.state is IdentityState.STRANGER and claim.person_id is not None and claim.expected_id is None
    )
    return TrackOutcome(
        recording=track.recording,
        who=track.who,
        is_enrolled=bool(enrolled),
        frames=len(track.claims),
        enrolled_frames=len(enrolled),
        right_frames=len(right),
        wrong_frames=len(wrong),
        stranger_frames=sum(claim.state is IdentityState.STRANGER for claim in enrolled),
        wrong_seconds=sum(claim.duration for claim in wrong),
        wrong_names=tuple(sorted({claim.name for claim in wrong})),
        seconds_to_name=right[0].stamp - enrolled[0].stamp if right else None,
        swaps=sum(before != after for before, after in pairwise(named)),
        stranger_ids=dict(strangers),
        is_named_at_end=bool(track.claims) and track.claims[-1].is_right,
    )


@dataclass(frozen=True, slots=True)
class StrangerOutcome:
    """How steadily one stranger was told from the others, over all recordings of one gallery.

    Attributes:
        frames: Those in which the face was found.
        ids: Frames by stranger id.
        shared_ids: Ids that somebody else got as well.
    """

    who: str
    frames: int
    ids: dict[str, int]
    shared_ids: tuple[str, ...]

    @property
    def main_id_share(self) -> float:
        """Share of all frames under the most frequent id; frames before it was created count against it."""
        return max(self.ids.values(), default=0) / self.frames if self.frames else float("nan")

    @property
    def id_consistency(self) -> float:
        """Share of the frames with any stranger id that have the most frequent one; NaN where none had."""
        return max(self.ids.values()) / sum(self.ids.values()) if self.ids else float("nan")

    @property
    def fragments(self) -> int:
        """How many ids the one person got; 1 is best."""
        return len(self.ids)


def follow_strangers(outcomes: Sequence[TrackOutcome]) -> list[StrangerOutcome]:
    """Join the tracks of each person that was never enrolled; all must come from the same gallery."""
    frames: Counter[str] = Counter()
    ids: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        if outcome.who and not outcome.is_enrolled:
            frames[outcome.who] += outcome.frames
            ids.setdefault(outcome.who, Counter()).update(outcome.stranger_ids)
    owners: dict[str, set[str]] = {}
    for outcome in outcomes:
        for stranger_id in outcome.stranger_ids:
            owners.setdefault(stranger_id, set()).add(outcome.who)
    return [
        StrangerOutcome(
            who, frames[who], dict(ids[who]), tuple(sorted(key for key in ids[who] if len(owners[key]) > 1))
        )
        for who in ids
    ]

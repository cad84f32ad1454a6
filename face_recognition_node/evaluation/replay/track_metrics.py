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
from functools import cached_property
from itertools import pairwise
from typing import Any

from face_recognition_node.vision.faces import IdentityState
from face_recognition_node.vision.flatness import UNVERIFIED


@dataclass(frozen=True, slots=True)
class FrameClaim:
    """What was claimed of one true face in one frame."""

    stamp: float  # time of the frame, seconds
    duration: float  # how long the claim stood, until the next frame, seconds
    state: IdentityState
    person_id: str | None = None  # of the claimed person or stranger
    name: str = ""
    expected_id: str | None = None  # person_id of the true person if enrolled by then, else None
    flatness: str = UNVERIFIED

    @property
    def is_right(self) -> bool:
        """Whether the right person was named."""
        return self.state is IdentityState.KNOWN and self.person_id == self.expected_id

    @property
    def is_wrong(self) -> bool:
        """Whether somebody else was named, or somebody who is not enrolled was named at all."""
        return self.state is IdentityState.KNOWN and self.person_id != self.expected_id


@dataclass(frozen=True)
class TrueTrack:
    """One person (or one thing that is no face) in one recording, what was claimed of them, and its worth."""

    recording: str  # which
    who: str  # the person's name in the ground truth; empty for whatever was found outside every true face
    claims: tuple[FrameClaim, ...]  # in the order of time; only frames in which a face was found there
    # stamps of the frames in which the face is in plain view, found or not; composed only
    visible: tuple[float, ...] = ()

    @cached_property
    def enrolled(self) -> list[FrameClaim]:
        """Claims made while the person was enrolled."""
        return [claim for claim in self.claims if claim.expected_id is not None]

    @cached_property
    def right(self) -> list[FrameClaim]:
        """Claims of the right name."""
        return [claim for claim in self.claims if claim.is_right]

    @cached_property
    def wrong(self) -> list[FrameClaim]:
        """Claims of a wrong name."""
        return [claim for claim in self.claims if claim.is_wrong]

    @property
    def is_enrolled(self) -> bool:
        """Whether the person was enrolled during any of it."""
        return bool(self.enrolled)

    @property
    def is_identified(self) -> bool:
        """Whether the right name was claimed, and no other ever."""
        return bool(self.right) and not self.wrong

    @property
    def is_false_positive(self) -> bool:
        """Whether somebody who is not enrolled got a name."""
        return bool(self.wrong) and not self.enrolled

    @property
    def named_share(self) -> float:
        """Share of the enrolled frames under the right name; NaN for a stranger."""
        return len(self.right) / len(self.enrolled) if self.enrolled else float("nan")

    @property
    def stranger_frames(self) -> int:
        """In how many frames the person, although enrolled, was called a stranger."""
        return sum(claim.state is IdentityState.STRANGER for claim in self.enrolled)

    @property
    def wrong_seconds(self) -> float:
        """Time under wrong names."""
        return sum(claim.duration for claim in self.wrong)

    @property
    def wrong_names(self) -> list[str]:
        """Which wrong names."""
        return sorted({claim.name for claim in self.wrong})

    @property
    def seconds_to_name(self) -> float | None:
        """From the first frame (as an enrolled person) to the first right name, or None."""
        return self.right[0].stamp - self.enrolled[0].stamp if self.right else None

    @property
    def swaps(self) -> int:
        """How often the claimed person changed to another person."""
        named = [claim.person_id for claim in self.claims if claim.state is IdentityState.KNOWN]
        return sum(before != after for before, after in pairwise(named))

    @property
    def stranger_ids(self) -> Counter[str]:
        """Frames by stranger id, while not enrolled."""
        return Counter(
            claim.person_id
            for claim in self.claims
            if claim.state is IdentityState.STRANGER and claim.person_id and claim.expected_id is None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = (
            "recording", "who", "is_enrolled", "stranger_frames", "wrong_seconds", "wrong_names",
            "seconds_to_name", "swaps", "stranger_ids", "is_identified", "is_false_positive",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "frames": len(self.claims),
            "enrolled_frames": len(self.enrolled),
            "right_frames": len(self.right),
            "wrong_frames": len(self.wrong),
            "is_named_at_end": bool(self.claims) and self.claims[-1].is_right,
            "named_share": round(self.named_share, 4) if self.enrolled else None,
        }


@dataclass(frozen=True, slots=True)
class StrangerOutcome:
    """How steadily one stranger was told from the others, over all recordings of one gallery."""

    who: str
    frames: int  # those in which the face was found
    ids: dict[str, int]  # frames by stranger id
    shared_ids: tuple[str, ...]  # ids that somebody else got as well

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


def follow_strangers(tracks: Sequence[TrueTrack]) -> list[StrangerOutcome]:
    """Join the tracks of each person that was never enrolled; all must come from the same gallery."""
    frames: Counter[str] = Counter()
    ids: dict[str, Counter[str]] = {}
    owners: dict[str, set[str]] = {}
    for track in tracks:
        found = track.stranger_ids
        if track.who and not track.is_enrolled:
            frames[track.who] += len(track.claims)
            ids.setdefault(track.who, Counter()).update(found)
        for stranger_id in found:
            owners.setdefault(stranger_id, set()).add(track.who)
    return [
        StrangerOutcome(
            who, frames[who], dict(ids[who]), tuple(sorted(key for key in ids[who] if len(owners[key]) > 1))
        )
        for who in ids
    ]

"""The figures of a replay: dataclasses that print themselves and turn into JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from face_recognition_node.common.tables import aligned
from face_recognition_node.evaluation.bootstrap import Estimate, estimate, median
from face_recognition_node.evaluation.replay.track_metrics import StrangerOutcome, TrueTrack, follow_strangers


@dataclass(frozen=True, slots=True)
class EnrollmentOutcome:
    """How one enrollment of the scenario ended."""

    name: str
    source: str
    success: bool
    message: str  # what the session said at its end
    views: int  # how many were kept; `views_of` by the person they show, of composed recordings
    rejections: dict[str, int]  # rejected views by reason
    seconds: float  # how much video it took
    views_of: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EpisodeReport:
    """One gallery from empty to end."""

    name: str
    enrollments: tuple[EnrollmentOutcome, ...]  # in the order they ended
    tracks: tuple[TrueTrack, ...]  # in the order of play

    @property
    def strangers(self) -> list[StrangerOutcome]:
        """One for each person who was never enrolled."""
        return follow_strangers(self.tracks)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What came out of a scenario; ``settings`` are the parameters that differed from their defaults."""

    name: str
    description: str
    settings: dict[str, Any]
    episodes: tuple[EpisodeReport, ...]

    @property
    def tracks(self) -> list[TrueTrack]:
        """All true tracks."""
        return [track for episode in self.episodes for track in episode.tracks]

    @property
    def followed(self) -> list[StrangerOutcome]:
        """Everybody who was never enrolled, once for each gallery."""
        return [stranger for episode in self.episodes for stranger in episode.strangers]

    @property
    def enrolled(self) -> list[TrueTrack]:
        """Tracks of enrolled people; one in which the face was never found counts as not identified."""
        names = {(e.name, enrollment.name) for e in self.episodes for enrollment in e.enrollments}
        return [
            track
            for e in self.episodes
            for track in e.tracks
            if track.is_enrolled or (track.who and not track.claims and (e.name, track.who) in names)
        ]

    @property
    def strangers(self) -> list[TrueTrack]:
        """Tracks of people who were not enrolled."""
        return [track for track in self.tracks if track.who and track.claims and not track.is_enrolled]

    @property
    def identification_rate(self) -> Estimate:
        """Share of enrolled people's tracks given the right name and never a wrong one."""
        return _estimate([(o.is_identified, o) for o in self.enrolled])

    @property
    def false_positive_rate(self) -> Estimate:
        """Share of strangers' tracks ever given a name."""
        return _estimate([(o.is_false_positive, o) for o in self.strangers])

    @property
    def seconds_to_name(self) -> Estimate:
        """Median time from the first sight of an enrolled person to the right name, where it came."""
        named = [(o.seconds_to_name, o) for o in self.enrolled if o.seconds_to_name is not None]
        return _estimate(named, median)

    @property
    def stranger_share(self) -> Estimate:
        """Mean over strangers of the share of their frames under their most frequent stranger id."""
        return _estimate([(s.main_id_share, s) for s in self.followed if s.frames])

    @property
    def id_consistency(self) -> Estimate:
        """Mean over strangers who got an id of the share of frames with an id that have the main one."""
        return _estimate([(s.id_consistency, s) for s in self.followed if s.ids])

    @property
    def wrong_seconds(self) -> float:
        """Time under a wrong name, all tracks and what is no person together."""
        return sum(track.wrong_seconds for track in self.tracks)

    @property
    def stranger_frames(self) -> int:
        """In how many frames somebody enrolled was called a stranger."""
        return sum(track.stranger_frames for track in self.tracks)

    @property
    def swaps(self) -> int:
        """How often a face's name changed to another person's."""
        return sum(track.swaps for track in self.tracks)

    @property
    def shared_ids(self) -> int:
        """How many stranger ids were given to more than one person."""
        return len({(e.name, shared) for e in self.episodes for s in e.strangers for shared in s.shared_ids})

    @property
    def named_share(self) -> dict[str, float]:
        """Share of each enrolled person's frames under the right name, the worst of their tracks."""
        shares: dict[str, float] = {}
        for track in self.enrolled:
            share = track.named_share if track.is_enrolled else 0.0
            shares[track.who] = min(share, shares.get(track.who, 1.0))
        return shares

    @property
    def failed_enrollments(self) -> list[EnrollmentOutcome]:
        """Enrollments that stored nobody."""
        return [enrollment for e in self.episodes for enrollment in e.enrollments if not enrollment.success]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "scenario": self.name,
            "settings": self.settings,
            "identification_rate": self.identification_rate.to_dict(),
            "false_positive_identification_rate": self.false_positive_rate.to_dict(),
            "seconds_to_name": self.seconds_to_name.to_dict(),
            "seconds_under_a_wrong_name": round(self.wrong_seconds, 4),
            "enrolled_called_stranger_frames": self.stranger_frames,
            "swaps": self.swaps,
            "stranger_id_share": self.stranger_share.to_dict(),
            "stranger_id_consistency": self.id_consistency.to_dict(),
            "stranger_ids_shared_by_persons": self.shared_ids,
            "named_share": {who: round(share, 4) for who, share in self.named_share.items()},
            "episodes": [_episode_dict(episode) for episode in self.episodes],
        }

    def __str__(self) -> str:
        """Return the summary and, where they are few, one line for each track."""
        lines = [
            f"{self.name}: {len(self.episodes)} episode(s)",
            "",
            f"  identified, enrolled people's tracks    {self.identification_rate}",
            f"  named, strangers' tracks                {self.false_positive_rate}",
            f"  median seconds to the right name        {self.seconds_to_name}, where it came",
            f"  seconds under a wrong name              {self.wrong_seconds:.2f}",
            f"  frames as a stranger, enrolled people   {self.stranger_frames}",
            f"  swaps                                   {self.swaps}",
            f"  strangers' frames under one id          {self.stranger_share}",
            f"  ... of their frames with an id          {self.id_consistency}",
        ]
        fragments = Counter(stranger.fragments for stranger in self.followed)
        if fragments:
            counts = ", ".join(f"{count} with {ids}" for ids, count in sorted(fragments.items()))
            lines.append(
                f"  ids a stranger                          {counts}; {self.shared_ids} shared by two people"
            )
        lines += [f"  enrollment of {one.name} failed: {one.message}" for one in self.failed_enrollments]
        for episode in self.episodes:
            lines += _episode_lines(episode)
        return "\n".join(lines)


_HEADER = ("who", "frames", "named", "wrong", "after s", "swaps", "recording")


def _row(track: TrueTrack) -> tuple[str, ...]:
    notes = [track.recording]
    if track.wrong:
        notes.append(f"named {', '.join(track.wrong_names)}!")
    if ids := track.stranger_ids:
        notes.append(", ".join(f"{key} x{count}" for key, count in ids.items()))
    return (
        (track.who or "(no person)")[:20],
        str(len(track.claims)),
        f"{track.named_share:.2f}" if track.is_enrolled else "-",
        str(len(track.wrong)),
        "-" if track.seconds_to_name is None else f"{track.seconds_to_name:.2f}",
        str(track.swaps),
        "  ".join(notes),
    )


def _episode_lines(episode: EpisodeReport) -> list[str]:
    """Return a line for each track where they are few, else for those that are not as they should be."""
    shown: Sequence[TrueTrack] = episode.tracks
    if len(shown) > 16:
        shown = [track for track in shown if track.wrong or (track.is_enrolled and not track.is_identified)]
    rest = len(episode.tracks) - len(shown)
    if not shown:
        return ["", f"  {episode.name}: all {rest} tracks as they should be"] if rest else []
    rows = [_HEADER, *map(_row, shown)]
    lines = ["", f"  {episode.name}", aligned(rows, right=range(1, 6), indent="    ")]
    return [*lines, f"    and {rest} tracks as they should be"] if rest else lines


def _episode_dict(episode: EpisodeReport) -> dict[str, Any]:
    return {
        "name": episode.name,
        "enrollments": [asdict(enrollment) for enrollment in episode.enrollments],
        "tracks": [track.to_dict() for track in episode.tracks],
        "strangers": [
            {
                **asdict(s),
                "main_id_share": round(s.main_id_share, 4) if s.frames else None,
                "id_consistency": round(s.id_consistency, 4) if s.ids else None,
                "fragments": s.fragments,
            }
            for s in episode.strangers
        ],
    }


def _estimate(
    measured: Sequence[tuple[float, TrueTrack | StrangerOutcome]],
    statistic: Callable[[np.ndarray], float] = np.mean,
) -> Estimate:
    """Return a figure of values with whose they are: tracks of one person are alike."""
    return estimate([float(value) for value, _ in measured], [one.who for _, one in measured], statistic)

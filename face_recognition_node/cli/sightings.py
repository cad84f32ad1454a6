"""Who was seen from when to when: the table at the end of ``recognize``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from face_recognition_node.vision.faces import IdentityState, RecognitionResult


@dataclass
class Sighting:
    """One person in one recording.

    Attributes:
        state: Known or stranger.
        label: Name, or the id of somebody without one.
        person_id: Permanent id; empty for strangers without one.
        first: Stamp of the first frame, seconds.
        last: Stamp of the last frame, seconds.
        frames: Frames in which the person was claimed.
        probability: Highest probability of the claim.
    """

    state: IdentityState
    label: str
    person_id: str
    first: float
    last: float
    frames: int = 0
    probability: float = 0.0


class Sightings:
    """Collects who was claimed in the frames of a recording.

    Args:
        begin: Stamp from which times are counted, seconds; None: the first frame's.
    """

    def __init__(self, begin: float | None = None) -> None:
        self.frames = 0
        self.frames_with_faces = 0
        self._begin = begin
        self._found: dict[tuple[IdentityState, str], Sighting] = {}

    @property
    def is_anybody_known(self) -> bool:
        """Whether a known person was recognised in at least one frame."""
        return any(sighting.state is IdentityState.KNOWN for sighting in self._found.values())

    def add(self, result: RecognitionResult) -> None:
        """Note one frame's claims."""
        self._begin = result.stamp if self._begin is None else self._begin
        self.frames += 1
        self.frames_with_faces += bool(result.faces)
        for face in result.faces:
            identity = face.identity
            if identity.state is IdentityState.UNDECIDED:
                continue
            key = (identity.state, identity.person_id or "")
            label = identity.name or identity.person_id or "(somebody unknown)"
            stamp = result.stamp
            sighting = self._found.setdefault(key, Sighting(identity.state, label, key[1], stamp, stamp))
            sighting.label, sighting.last = label, stamp
            sighting.frames += 1
            sighting.probability = max(sighting.probability, identity.probability)

    def __iter__(self) -> Iterator[Sighting]:
        """Yield known people first, each group by first sight."""
        order = {IdentityState.KNOWN: 0, IdentityState.STRANGER: 1}
        return iter(sorted(self._found.values(), key=lambda found: (order[found.state], found.first)))

    def __str__(self) -> str:
        """Return the table."""
        lines = [f"{self.frames} frames, faces in {self.frames_with_faces} of them"]
        if not self._found:
            return lines[0] + "; nobody recognised"
        begin = self._begin or 0.0
        width = max(len(found.label) for found in self._found.values())
        lines.append(f"  {'who':<{width}}  {'from':>8}  {'to':>8}  {'frames':>6}  probability  person id")
        for found in self:
            lines.append(
                f"  {found.label:<{width}}  {found.first - begin:>6.2f} s  {found.last - begin:>6.2f} s"
                f"  {found.frames:>6}  {found.probability:>11.3f}  {found.person_id or '-'}"
            )
        return "\n".join(lines)

"""Which directions of the head a set of views covers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from face_recognition_node.vision.faces import HeadPose

SIDE_YAW = 14.0  # degrees to the side from which on a view is of that side
SIDE_PITCH = 12.0  # degrees up or down likewise
# a view from somewhat below or above is still frontal: a robot's camera is seldom at eye level
FRONT_PITCH = 25.0
DIRECTIONS = ("front", "left", "right", "up", "down")


@dataclass(frozen=True, slots=True)
class PoseCoverage:
    """Which directions are covered, **as seen in the image**.

    ``left`` means that the person looks towards the left edge of the image. In an image that is not mirrored
    that is the person's own right; what a robot says to the person is in :mod:`hints`.
    """

    left: bool = False
    front: bool = False
    right: bool = False
    up: bool = False
    down: bool = False

    @classmethod
    def of(cls, poses: Iterable[HeadPose]) -> PoseCoverage:
        """Return what these poses cover."""
        covered = {direction for pose in poses for direction in directions(pose)}
        return cls(**{direction: direction in covered for direction in DIRECTIONS})

    def missing(self) -> tuple[str, ...]:
        """Return the directions not covered, the most useful first."""
        return tuple(direction for direction in DIRECTIONS if not getattr(self, direction))

    def adds(self, pose: HeadPose) -> bool:
        """Return whether a view in this pose covers something new."""
        return any(not getattr(self, direction) for direction in directions(pose))

    def __str__(self) -> str:
        return ", ".join(direction for direction in DIRECTIONS if getattr(self, direction)) or "nothing"


def directions(pose: HeadPose) -> tuple[str, ...]:
    """Return the directions a pose belongs to: front or a side, and up or down if the head is so inclined."""
    found = []
    if abs(pose.yaw) >= SIDE_YAW:
        found.append("right" if pose.yaw > 0 else "left")
    elif abs(pose.pitch) < FRONT_PITCH:
        found.append("front")
    if abs(pose.pitch) >= SIDE_PITCH:
        found.append("up" if pose.pitch > 0 else "down")
    return tuple(found)

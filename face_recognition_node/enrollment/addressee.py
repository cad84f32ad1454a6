"""Whom the robot is talking to: the near, frontal, central face, held on to until another one clearly wins.

The sign is that by which an enrollment chooses (:func:`~.target_selection.prominence`), averaged over half a
second; a face that looks away cannot be chosen, and loses its place after a while.
"""

from __future__ import annotations

import math

from face_recognition_node.enrollment.target_selection import prominence
from face_recognition_node.vision.faces import CLOCK_JUMP_S, IdentifiedFace, RecognitionResult

AVERAGED_S = 0.5
"""Time constant of the average."""
ADVANTAGE = 1.4
"""Another face has to be this many times as prominent as the present addressee ..."""
PATIENCE_S = 0.6
"""... for this long; and one that looks away or is lost stays the addressee for this long."""
LEAST_SIZE_PX = 32.0
_FACING_DEG, _STILL_FACING_DEG = 25.0, 40.0
"""Largest yaw and pitch of a new addressee, and of the present one."""


class AddresseeSelector:
    """Follows who faces the robot; show it every result of one camera."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everybody."""
        self._averages: dict[int, float] = {}
        self._chosen: int | None = None
        self._doubt_since: float | None = None
        self._last_stamp: float | None = None

    def choose(self, result: RecognitionResult) -> int | None:
        """Return the track id of the addressee, or None."""
        passed = 0.0 if self._last_stamp is None else result.stamp - self._last_stamp
        if passed < -CLOCK_JUMP_S:
            self.reset()  # another recording
            passed = 0.0
        self._last_stamp = result.stamp
        weight = 1.0 - math.exp(-max(passed, 0.0) / AVERAGED_S)
        now = {face.track_id: self._prominence(face, result.image_size) for face in result.faces}
        for track_id in now.keys() | self._averages.keys():
            before, value = self._averages.get(track_id, 0.0), now.get(track_id, 0.0)
            self._averages[track_id] = (
                before + weight * (value - before)
                if track_id in self._averages
                else (value * min(weight, 0.5))
            )
        self._averages = {key: value for key, value in self._averages.items() if value >= 1.0 or key in now}
        best = max(now, key=lambda key: (now[key] > 0, self._averages[key]), default=None)
        if best is not None and now[best] <= 0:
            best = None
        self._decide(best, now, result.stamp)
        return self._chosen

    def _decide(self, best: int | None, now: dict[int, float], stamp: float) -> None:
        """Keep the present addressee unless there has been reason for another long enough."""
        chosen = self._chosen
        if chosen is None:
            self._chosen, self._doubt_since = best, None
            return
        is_beaten = best not in (None, chosen) and self._averages[best] > ADVANTAGE * self._averages.get(
            chosen, 0.0
        )
        if now.get(chosen, 0.0) > 0 and not is_beaten:
            self._doubt_since = None
        elif self._doubt_since is None:
            self._doubt_since = stamp
        elif stamp - self._doubt_since >= PATIENCE_S:
            self._chosen, self._doubt_since = best, None

    def _prominence(self, face: IdentifiedFace, image_size: tuple[int, int]) -> float:
        """Return how prominent a face is; 0 if it does not face the robot."""
        limit = _STILL_FACING_DEG if face.track_id == self._chosen else _FACING_DEG
        pose = face.view.pose
        is_facing = abs(pose.yaw) <= limit and abs(pose.pitch) <= limit
        if not is_facing or face.flatness == "flat" or face.view.detection.size_px < LEAST_SIZE_PX:
            return 0.0
        return prominence(face, image_size)

"""Whom the robot is talking to: the near, frontal, central face, held on to until another one clearly wins.

The sign is that by which an enrollment chooses (:func:`~.target_selection.prominence`), averaged over half a
second, and more of it for a face whose mouth moves; a face that looks away cannot be chosen, and loses its
place after a while. The mouth is a weak sign: five landmarks follow a wide movement of the jaw only.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from face_recognition_node.enrollment.target_selection import prominence
from face_recognition_node.vision.faces import CLOCK_JUMP_S, IdentifiedFace, RecognitionResult

AVERAGED_S = 0.5  # time constant of the average
ADVANTAGE = 1.4  # another face has to be this many times as prominent as the present addressee ...
PATIENCE_S = 0.6  # ... for this long; and one that looks away or is lost stays the addressee for this long
LEAST_SIZE_PX = 32.0
# largest yaw and pitch of a new addressee, and of the present one
_FACING_DEG, _STILL_FACING_DEG = 25.0, 40.0
# how many times as prominent a face is while its mouth moves: enough among faces that are alike
SPEAKING = 1.5
_MOUTH_S, _MOUTH_SAMPLES = 1.0, 8
# least motion of a mouth, in distances between the eyes, and by that of the nose; to begin and to go on. Of
# 20 recorded tracks, in which people walk, turn and sign, 19 never reach the first pair
_MOVES, _STILL_MOVES = (0.03, 1.5), (0.02, 1.2)


class MouthMotion:
    """Whether the mouth of one face moves, by its landmarks of the last second.

    The distance from the nose down to the mouth varies while somebody speaks. It also does when the head nods
    or the detector trembles, but then the nose does not stay between the eyes either.
    """

    def __init__(self) -> None:
        self.is_moving = False
        self._seen: deque[tuple[float, float, float, float]] = deque()

    def observe(self, stamp: float, landmarks_xy: np.ndarray) -> bool:
        """Note the landmarks (5, 2) of one image and return whether the mouth moves."""
        right, left, nose = landmarks_xy[:3]
        across = (left - right) / max(float(np.linalg.norm(left - right)), 1e-6)
        turn = np.stack([across, (-across[1], across[0])]) / max(float(np.linalg.norm(left - right)), 1e-6)
        x, y = turn @ (nose - (left + right) / 2)
        gap = turn[1] @ (landmarks_xy[3:].mean(axis=0) - nose)
        if self._seen and not 0 < stamp - self._seen[-1][0] < _MOUTH_S:
            self._seen.clear()
        self._seen.append((stamp, float(gap), float(x), float(y)))
        while stamp - self._seen[0][0] > _MOUTH_S:
            self._seen.popleft()
        enough, ratio = _STILL_MOVES if self.is_moving else _MOVES
        self.is_moving = False
        if len(self._seen) >= _MOUTH_SAMPLES:
            values = np.array(self._seen) - np.mean(self._seen, axis=0)
            times = values[:, :1]
            # a head that turns steadily is no motion
            values -= times * (times.T @ values) / (times.T @ times)
            _, mouth, *head = values.std(axis=0)
            self.is_moving = bool(mouth > enough and mouth > ratio * math.hypot(*head))
        return self.is_moving


class AddresseeSelector:
    """Follows who faces the robot; show it every result of one camera."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everybody."""
        self._averages: dict[int, float] = {}
        self._mouths: dict[int, MouthMotion] = {}
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
        self._mouths = {
            face.track_id: self._mouths.get(face.track_id) or MouthMotion() for face in result.faces
        }
        now = {face.track_id: self._prominence(face, result) for face in result.faces}
        for track_id in now.keys() | self._averages.keys():
            value, before = now.get(track_id, 0.0), self._averages.get(track_id)
            self._averages[track_id] = (
                value * min(weight, 0.5) if before is None else before + weight * (value - before)
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
        present = self._averages.get(chosen, 0.0)
        is_beaten = best not in (None, chosen) and self._averages[best] > ADVANTAGE * present
        if now.get(chosen, 0.0) > 0 and not is_beaten:
            self._doubt_since = None
        elif self._doubt_since is None:
            self._doubt_since = stamp
        elif stamp - self._doubt_since >= PATIENCE_S:
            self._chosen, self._doubt_since = best, None

    def _prominence(self, face: IdentifiedFace, result: RecognitionResult) -> float:
        """Return how prominent a face is; 0 if it does not face the robot."""
        limit = _STILL_FACING_DEG if face.track_id == self._chosen else _FACING_DEG
        pose, detection = face.view.pose, face.view.detection
        is_facing = abs(pose.yaw) <= limit and abs(pose.pitch) <= limit
        if not is_facing or face.flatness == "flat" or detection.size_px < LEAST_SIZE_PX:
            return 0.0
        is_speaking = self._mouths[face.track_id].observe(result.stamp, detection.landmarks_xy)
        return prominence(face, result.image_size) * (SPEAKING if is_speaking else 1.0)

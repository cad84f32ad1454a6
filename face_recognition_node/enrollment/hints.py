"""What a robot says to the person it gets to know.

Directions are those of the person who is spoken to. The camera's image is not mirrored: a person who looks
towards the *right* edge of the image turns the head to the person's own *left*.
"""

from __future__ import annotations

from collections import deque

from face_recognition_node.enrollment.coverage import PoseCoverage
from face_recognition_node.enrollment.goal import Rejection
from face_recognition_node.vision.faces import Detection
from face_recognition_node.vision.rotation import rotate_box

STEP_IN_FRONT = "Please come in front of me and look at me."
ONE_AT_A_TIME = "I see several of you. Please let one person come closer."
COME_BACK = "I have lost you. Please look at me again."

# direction not yet covered, as seen in the image -> what to say
FOR_MISSING_POSE = {
    "front": "Please look straight at me.",
    "left": "Please turn your head a little to your right.",
    "right": "Please turn your head a little to your left.",
    "up": "Please lift your chin a little.",
    "down": "Please lower your chin a little.",
}

# why views are not kept -> what to say; the others are no fault of the person's
FOR_REJECTION = {
    Rejection.TOO_SMALL: "Please come a little closer.",
    Rejection.BLURRED: "Please hold still for a moment.",
    Rejection.TURNED_TOO_FAR: "Please look at me.",
    Rejection.POOR_LANDMARKS: "I cannot see your whole face. Is something in front of it?",
    Rejection.TOO_DARK: "It is too dark to see you well. Please turn towards the light.",
    Rejection.TOO_BRIGHT: "There is too much light on your face. Please turn away from it a little.",
    Rejection.DIFFERENT_PERSON: "Somebody else is in front of me. One person at a time, please.",
    Rejection.LOW_SCORE: "I cannot see your face well. Please look at me.",
    Rejection.FLAT: "I would like to see you yourself, not a picture.",
}

WINDOW_S = 0.8  # seconds over which the reasons for rejection are counted
HOLD_S = 1.5  # seconds for which a hint stays, so that the robot can finish its sentence


def cut_off_hint(detection: Detection, image_size: tuple[int, int], rotate: int = 0) -> str:
    """Return where the person should go whose face the image border cuts.

    The detection is in the image as it came, of (width, height) ``image_size``, which has to be turned
    clockwise by ``rotate`` degrees to be upright.
    """
    x1, y1, x2, y2 = rotate_box(detection.box_xyxy, rotate, image_size).tolist()
    width, height = image_size if rotate in (0, 180) else image_size[::-1]
    outside = {
        "Please step a little to your left.": -x1,
        "Please step a little to your right.": x2 - width,
        "Please step back a little.": max(-y1, y2 - height),
    }
    return max(outside, key=lambda hint: outside[hint])


class HintChooser:
    """Says one thing at a time: what keeps most views from being kept, else the pose that is missing."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Rejection | None, str]] = deque()
        self._hint, self._since = "", float("-inf")

    def note(self, stamp: float, rejection: Rejection | None, cut_off: str = "") -> None:
        """Take note of one view: its fault (None: no fault of its own), and how to step into the image."""
        self._recent.append((stamp, rejection, cut_off))
        while self._recent and self._recent[0][0] < stamp - WINDOW_S:
            self._recent.popleft()

    def choose(self, stamp: float, coverage: PoseCoverage, wanted_directions: tuple[str, ...]) -> str:
        """Return the sentence to say now; it is kept for a while unless what it asked for has been done."""
        hint = self._fault() or next(
            (FOR_MISSING_POSE[d] for d in coverage.missing() if d in wanted_directions), ""
        )
        is_done = self._hint not in (hint, *FOR_REJECTION.values()) and self._is_fulfilled(coverage)
        if stamp - self._since >= HOLD_S or is_done or not self._hint:
            if hint != self._hint:
                self._since = stamp
            self._hint = hint
        return self._hint

    def _is_fulfilled(self, coverage: PoseCoverage) -> bool:
        return any(getattr(coverage, d) and hint == self._hint for d, hint in FOR_MISSING_POSE.items())

    def _fault(self) -> str:
        """Return what to say if more than half of the recent views share one fault."""
        faults = [(reason, text) for _, reason, text in self._recent if reason is not None]
        if not faults:
            return ""
        reasons = [reason for reason, _ in faults]
        reason = max(set(reasons), key=lambda r: (reasons.count(r), r.value))
        if 2 * reasons.count(reason) <= len(self._recent):
            return ""
        if reason is Rejection.CUT_OFF:
            return next((text for r, text in reversed(faults) if r is reason and text), "")
        return FOR_REJECTION.get(reason, "")

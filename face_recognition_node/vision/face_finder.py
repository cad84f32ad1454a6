"""Where the faces of a frame are: searched by the detector in every n-th frame, followed in between."""

from __future__ import annotations

from face_recognition_node.common.stages import StageClock
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.faces import Detection, ImageArray
from face_recognition_node.vision.following import FacePatch, follow_face, remember_face


class FaceFinder:
    """Finds the faces of one camera, frame by frame.

    A face that cannot be followed is no face lost: the detector is asked at once. What following cannot see
    is a face that comes into view; it waits for the next search.

    Args:
        detector: Searches whole frames.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._patches: list[FacePatch] = []
        self._shape: tuple[int, ...] = ()
        self._since_search = 0

    def reset(self) -> None:
        """Search the next frame, whatever came before."""
        self._shape = ()

    def find(self, image_bgr: ImageArray, interval: int, clock: StageClock) -> list[Detection]:
        """Return the faces of a (H, W, 3) BGR image.

        Args:
            image_bgr: The frame, brightened if it was dark.
            interval: The detector searches every this many frames, at least 1.
            clock: Takes the time: "detect", "resize", and "track" for what is followed.
        """
        followed = None
        if self._since_search + 1 < interval and image_bgr.shape == self._shape:
            with clock.stage("track"):
                followed = self._follow(image_bgr)
        if followed is None:
            with clock.stage("detect"):
                detections = self._detector.search(image_bgr, clock)
            self._since_search = 0
        else:
            detections = followed
            self._since_search += 1
        self._shape = image_bgr.shape if interval > 1 else ()
        with clock.stage("track"):
            self._patches = [remember_face(image_bgr, d) for d in detections] if interval > 1 else []
        return detections

    def _follow(self, image_bgr: ImageArray) -> list[Detection] | None:
        """Return every face at its new place, None as soon as one cannot be followed."""
        moved = []
        for patch in self._patches:
            detection = follow_face(patch, image_bgr)
            if detection is None:
                return None
            moved.append(detection)
        return moved

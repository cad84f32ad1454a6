"""The faces by the conventions of ROS4HRI (REP 155), for robots whose software follows people that way.

The node plays two parts of REP 155: it detects faces (``/humans/faces/...``) and says whose they are
(``/humans/candidate_matches``). A person manager makes ``/humans/persons/...`` of it.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.ros.messages import FACE_REGION, FACES_TRACKED, MATCHES

IMAGES_BEFORE_ANNOUNCED = 3
"""A face is announced in this image of its track: each one means a topic of its own, which all hear of."""


class HumansOutput:
    """Publishes who is tracked, where, and whose face it is.

    Args:
        node: Makes the publishers.

    Raises:
        ImportError: hri_msgs is not installed.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._messages: Any = importlib.import_module("hri_msgs.msg")
        self._tracked = node.create_publisher(self._messages.IdsList, FACES_TRACKED.name, FACES_TRACKED.qos)
        self._matches = node.create_publisher(self._messages.IdsMatch, MATCHES.name, MATCHES.qos)
        self._regions: dict[int, Any] = {}
        self._images: dict[int, int] = {}
        self._claims: dict[int, str] = {}
        self._last_header = Header()
        self._lock = threading.Lock()

    def count_subscribers(self) -> int:
        """Return how many want to know who is tracked or whose face it is."""
        return int(self._tracked.get_subscription_count() + self._matches.get_subscription_count())

    def publish(self, faces: FaceArray) -> None:
        """Publish the answer to one image."""
        with self._lock:
            self._publish(faces)

    def _publish(self, faces: FaceArray) -> None:
        self._last_header = faces.header
        present = {face.track_id: face for face in faces.faces}
        for track_id in [track_id for track_id in self._images if track_id not in present]:
            self._drop(track_id)
        for track_id in present:
            self._images[track_id] = self._images.get(track_id, 0) + 1
        announced = [face for face in faces.faces if self._images[face.track_id] >= IMAGES_BEFORE_ANNOUNCED]
        tracked = self._messages.IdsList()
        tracked.header, tracked.ids = faces.header, [face_id(face.track_id) for face in announced]
        self._tracked.publish(tracked)
        for face in announced:
            self._region(face.track_id).publish(to_region(face, faces, self._messages))
            self._claim(face)

    def clear(self) -> None:
        """Say that nobody is tracked any more."""
        with self._lock:  # called from another thread when the camera falls silent
            if self._regions:
                self._publish(FaceArray(header=self._last_header))

    def close(self) -> None:
        """Take the publishers off the network."""
        for publisher in (self._tracked, self._matches, *self._regions.values()):
            self._node.destroy_publisher(publisher)
        self._regions.clear()

    def _region(self, track_id: int) -> Any:
        if track_id not in self._regions:
            topic = FACE_REGION.name.replace("FACE", face_id(track_id))
            self._regions[track_id] = self._node.create_publisher(
                self._messages.NormalizedRegionOfInterest2D, topic, FACE_REGION.qos
            )
        return self._regions[track_id]

    def _claim(self, face: Face) -> None:
        """Publish whose face it is, and take back what was said before of another person."""
        before, person = self._claims.get(face.track_id, ""), human_id(face.person_id)
        if before and before != person:
            self._match(face.track_id, before, 0.0)
        self._claims[face.track_id] = person
        if person:
            self._match(face.track_id, person, face.probability)

    def _match(self, track_id: int, person: str, confidence: float) -> None:
        """Publish a match; a confidence of 0 says by REP 155 that the two do not belong together."""
        kinds = self._messages.IdsMatch
        match = kinds()
        match.id1, match.id1_type = face_id(track_id), kinds.FACE
        match.id2, match.id2_type = person, kinds.PERSON
        match.confidence = float(confidence)
        self._matches.publish(match)

    def _drop(self, track_id: int) -> None:
        person = self._claims.pop(track_id, "")
        if person:
            self._match(track_id, person, 0.0)
        publisher = self._regions.pop(track_id, None)
        if publisher is not None:
            self._node.destroy_publisher(publisher)
        del self._images[track_id]


def to_region(face: Face, faces: FaceArray, messages: Any) -> Any:
    """Return the box of a face, cut to the image, as a NormalizedRegionOfInterest2D of hri_msgs.msg."""
    region = messages.NormalizedRegionOfInterest2D()
    region.header = faces.header
    x1, y1, x2, y2 = (float(value) for value in face.box_xyxy)
    width, height = faces.image_width, faces.image_height
    region.xmin, region.ymin = _within(x1 / width), _within(y1 / height)
    region.xmax, region.ymax = _within(x2 / width), _within(y2 / height)
    region.c = float(face.detection_score)
    return region


def face_id(track_id: int) -> str:
    """Return the id of a face: REP 155 wants a valid part of a topic's name."""
    return f"face_{track_id}"


def human_id(person_id: str) -> str:
    """Return a person's id with underscores for hyphens, which names of topics may not contain."""
    return person_id.replace("-", "_")


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)

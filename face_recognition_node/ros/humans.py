"""The faces by the conventions of ROS4HRI (REP 155), for robots whose software follows people that way.

The node plays two parts of REP 155: it detects faces (``/humans/faces/...``) and says whose they are
(``/humans/candidate_matches``). A person manager makes ``/humans/persons/...`` of it; only the display name,
which it cannot know, is published there by this node.
"""

from __future__ import annotations

import importlib
import secrets
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header, String

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.ros.conversions import bgr_to_image
from face_recognition_node.ros.messages import (
    FACE_ALIGNED,
    FACE_CROPPED,
    FACE_LANDMARKS,
    FACE_REGION,
    FACES_TRACKED,
    MATCHES,
    PERSON_NAME,
    OptionalTopic,
)
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.faces import ImageArray

IMAGES_BEFORE_ANNOUNCED = 3
"""A face is announced in this image of its track: each one means topics of its own, which all hear of."""
CHANGE = 0.05
"""A match is published again when its confidence has changed by this much."""


class HumansOutput:
    """Publishes who is tracked, where, and whose face it is.

    Ids of faces carry a random part, new at each activation: those of other nodes and of earlier runs differ.

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
        self._faces: dict[int, dict[str, Any]] = {}
        self._images: dict[int, int] = {}
        self._claims: dict[int, tuple[str, float]] = {}
        self._names: dict[str, tuple[Any, str]] = {}
        self._prefix = _new_prefix()
        self._last_header = Header()
        self._lock = threading.Lock()

    def count_subscribers(self) -> int:
        """Return how many want to know who is tracked or whose face it is."""
        return int(self._tracked.get_subscription_count() + self._matches.get_subscription_count())

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image."""
        with self._lock:
            self._publish(faces, image_bgr)

    def _publish(self, faces: FaceArray, image_bgr: ImageArray | None) -> None:
        self._last_header = faces.header
        present = {face.track_id: face for face in faces.faces}
        for track_id in [track_id for track_id in self._images if track_id not in present]:
            self._drop(track_id)
        for track_id in present:
            self._images[track_id] = self._images.get(track_id, 0) + 1
        announced = [face for face in faces.faces if self._images[face.track_id] >= IMAGES_BEFORE_ANNOUNCED]
        tracked = self._messages.IdsList()
        tracked.header, tracked.ids = faces.header, [self._face_id(face.track_id) for face in announced]
        self._tracked.publish(tracked)
        for face in announced:
            topics = self._topics(face.track_id)
            topics[FACE_REGION.name].publish(to_region(face, faces, self._messages))
            if image_bgr is not None:
                self._publish_details(face, faces, image_bgr, topics)
            self._claim(face)

    def _publish_details(
        self, face: Face, faces: FaceArray, image_bgr: ImageArray, topics: Mapping[str, Any]
    ) -> None:
        """Publish the pictures and points of a face to those who look at them."""
        if topics[FACE_CROPPED.name].get_subscription_count():
            height, width = image_bgr.shape[:2]
            x1, y1, x2, y2 = (round(float(value)) for value in face.box_xyxy)
            crop = image_bgr[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
            if crop.size:
                topics[FACE_CROPPED.name].publish(bgr_to_image(crop, faces.header))
        if topics[FACE_ALIGNED.name].get_subscription_count():
            landmarks = np.asarray(face.landmarks_xy, np.float32).reshape(1, 5, 2)
            topics[FACE_ALIGNED.name].publish(
                bgr_to_image(align_faces(image_bgr, landmarks)[0], faces.header)
            )
        if topics[FACE_LANDMARKS.name].get_subscription_count():
            topics[FACE_LANDMARKS.name].publish(to_landmarks(face, faces, self._messages))

    def clear(self) -> None:
        """Say that nobody is tracked any more; the next face has another id."""
        with self._lock:  # called from another thread when the camera falls silent
            if self._images:
                self._publish(FaceArray(header=self._last_header), None)
            self._prefix = _new_prefix()

    def close(self) -> None:
        """Take the publishers off the network."""
        regions = [publisher for topics in self._faces.values() for publisher in topics.values()]
        names = [publisher for publisher, _ in self._names.values()]
        for publisher in (self._tracked, self._matches, *regions, *names):
            self._node.destroy_publisher(publisher)
        self._faces.clear()
        self._names.clear()

    def _face_id(self, track_id: int) -> str:
        return f"{self._prefix}_{track_id}"

    def _topics(self, track_id: int) -> dict[str, Any]:
        """Return the publishers of one face by the name of their topic."""
        if track_id not in self._faces:
            self._faces[track_id] = {
                topic.name: self._node.create_publisher(
                    kind, topic.name.replace("FACE", self._face_id(track_id)), topic.qos
                )
                for topic, kind in self._kinds()
            }
        return self._faces[track_id]

    def _kinds(self) -> list[tuple[OptionalTopic, Any]]:
        messages = self._messages
        image = importlib.import_module("sensor_msgs.msg").Image
        return [
            (FACE_REGION, messages.NormalizedRegionOfInterest2D),
            (FACE_CROPPED, image),
            (FACE_ALIGNED, image),
            (FACE_LANDMARKS, messages.FacialLandmarks),
        ]

    def _claim(self, face: Face) -> None:
        """Publish whose face it is when that changes, and take back what was said before."""
        before, said = self._claims.get(face.track_id, ("", 0.0))
        person, probability = human_id(face.person_id), float(face.probability)
        if person:
            self._name(person, face.name if face.identity_state == Face.KNOWN else "")
        if person == before and abs(probability - said) < CHANGE:
            return
        if before and before != person:
            self._match(face.track_id, before, 0.0)
        self._claims[face.track_id] = person, probability
        if person:
            self._match(face.track_id, person, probability)

    def _name(self, person: str, name: str) -> None:
        """Publish the display name of a person, latched, when it is new or has changed."""
        publisher, said = self._names.get(person, (None, ""))
        if name == said:
            return
        if publisher is None:
            topic = PERSON_NAME.name.replace("PERSON", person)
            publisher = self._node.create_publisher(String, topic, PERSON_NAME.qos)
        self._names[person] = publisher, name
        publisher.publish(String(data=name))

    def _match(self, track_id: int, person: str, confidence: float) -> None:
        """Publish a match; a confidence of 0 says by REP 155 that the two do not belong together."""
        kinds = self._messages.IdsMatch
        match = kinds()
        match.id1, match.id1_type = self._face_id(track_id), kinds.FACE
        match.id2, match.id2_type = person, kinds.PERSON
        match.confidence = float(confidence)
        self._matches.publish(match)

    def _drop(self, track_id: int) -> None:
        person, _ = self._claims.pop(track_id, ("", 0.0))
        if person:
            self._match(track_id, person, 0.0)
        for publisher in self._faces.pop(track_id, {}).values():
            self._node.destroy_publisher(publisher)
        del self._images[track_id]


def _new_prefix() -> str:
    return f"face_{secrets.token_hex(4)}"


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


_PUPILS_NOSE_MOUTH = (68, 69, 30, 48, 54)
"""Where FacialLandmarks keeps our five points: RIGHT_PUPIL, LEFT_PUPIL, NOSE, MOUTH_OUTER_RIGHT and _LEFT."""
_N_LANDMARKS = 70


def to_landmarks(face: Face, faces: FaceArray, messages: Any) -> Any:
    """Return the five points as a FacialLandmarks of hri_msgs.msg; a confidence of 0: not measured."""
    message = messages.FacialLandmarks()
    message.header, message.height, message.width = faces.header, faces.image_height, faces.image_width
    message.landmarks = [messages.NormalizedPointOfInterest2D() for _ in range(_N_LANDMARKS)]
    points = np.asarray(face.landmarks_xy, np.float64).reshape(5, 2)
    for index, (x, y) in zip(_PUPILS_NOSE_MOUTH, points.tolist(), strict=True):
        point = message.landmarks[index]
        point.x, point.y = _within(x / faces.image_width), _within(y / faces.image_height)
        point.c = float(face.detection_score)
    return message


def human_id(person_id: str) -> str:
    """Return a person's id with underscores for hyphens, which names of topics may not contain."""
    return person_id.replace("-", "_")


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)

"""The faces in the messages of packages that need not be installed: vision_msgs, RViz, TF, ROS4HRI."""

from __future__ import annotations

import importlib
import secrets
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header, String

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.ros.messages import (
    DETECTIONS,
    DETECTIONS_3D,
    FACE_ALIGNED,
    FACE_CROPPED,
    FACE_LANDMARKS,
    FACE_REGION,
    FACES_TRACKED,
    FRAMES,
    MARKERS,
    MATCHES,
    PERSON_NAME,
    Topic,
    bgr_to_image,
)
from face_recognition_node.ros.parameters import NodeConfig
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.faces import ImageArray


class OptionalOutput:
    """Publishes each answer in another package's messages, all of one package; ImportError without it."""

    def __init__(self, node: LifecycleNode, *topics: Topic) -> None:
        self._node = node
        self._messages: Any = importlib.import_module(f"{topics[0].type.partition('/')[0]}.msg")
        self._publishers = [self._make(topic) for topic in topics]

    def _make(self, topic: Topic, **ids: str) -> Any:
        """Make the publisher of a topic, its name filled in with the ids that it stands for."""
        package, _, kind = topic.type.split("/")
        name = topic.name
        for word, one in ids.items():
            name = name.replace(word, one)
        return self._node.create_publisher(
            getattr(importlib.import_module(f"{package}.msg"), kind), name, topic.qos
        )

    def count_subscribers(self) -> int:
        """Return how many want it."""
        return sum(int(publisher.get_subscription_count()) for publisher in self._publishers)

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image."""
        raise NotImplementedError

    def clear(self) -> None:
        """End what is said of the faces: no more images are answered."""

    def close(self) -> None:
        """Take the publishers off the network."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)


UNKNOWN = "unknown"  # class of a face of whom nothing is claimed


class VisionOutput(OptionalOutput):
    """Publishes Detection2DArray and Detection3DArray while somebody subscribes."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node, DETECTIONS, DETECTIONS_3D)

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image, if somebody wants it."""
        for publisher, convert in zip(self._publishers, (to_detections, to_detections_3d), strict=True):
            if publisher.get_subscription_count():
                publisher.publish(convert(faces, self._messages))


def to_detections_3d(faces: FaceArray, messages: Any) -> Any:
    """Return the faces that have a position as a Detection3DArray of ``messages``."""
    array = messages.Detection3DArray()
    array.header = faces.header
    for face in faces.faces:
        if face.has_position:
            detection = messages.Detection3D()
            detection.header, detection.id = faces.header, str(face.track_id)
            detection.bbox.center.position = face.position
            size = detection.bbox.size
            size.x, size.y, size.z = HEAD_M
            detection.results = _hypotheses(face, messages)
            array.detections.append(detection)
    return array


def to_detections(faces: FaceArray, messages: Any) -> Any:
    """Return the faces as a Detection2DArray of ``messages``, the module vision_msgs.msg (version 4)."""
    array = messages.Detection2DArray()
    array.header = faces.header
    array.detections = [_detection(face, faces.header, messages) for face in faces.faces]
    return array


def _detection(face: Face, header: Any, messages: Any) -> Any:
    x1, y1, x2, y2 = (float(value) for value in face.box_xyxy)
    detection = messages.Detection2D()
    detection.header = header
    detection.id = str(face.track_id)
    detection.bbox.center.position.x = (x1 + x2) / 2
    detection.bbox.center.position.y = (y1 + y2) / 2
    detection.bbox.size_x, detection.bbox.size_y = x2 - x1, y2 - y1
    detection.results = _hypotheses(face, messages)
    return detection


def _hypotheses(face: Face, messages: Any) -> list[Any]:
    """Return whose face it may be; never empty, because receivers that read only [0] are common."""
    claims = [
        (face.person_id, face.name, face.probability),
        (face.runner_up_person_id, face.runner_up_name, face.runner_up_probability),
    ]
    results = []
    for person_id, name, score in [claim for claim in claims if claim[0]] or [
        (UNKNOWN, "", face.probability)
    ]:
        result = messages.ObjectHypothesisWithPose()
        result.hypothesis.class_id = person_id if name in ("", person_id) else f"{person_id} {name}"
        result.hypothesis.score = float(score)
        if face.has_position:
            result.pose.pose.position = face.position
            covariance = np.zeros((6, 6))
            covariance[:3, :3] = np.asarray(face.position_covariance).reshape(3, 3)
            result.pose.covariance = covariance.ravel()
        results.append(result)
    return results


HEAD_M = (0.16, 0.23, 0.19)  # width, height and depth of an adult's head: the box that is drawn
_TEXT_M = 0.08
_COLORS = {Face.KNOWN: (0.2, 0.8, 0.3), Face.STRANGER: (1.0, 0.6, 0.1), Face.UNDECIDED: (0.7, 0.7, 0.7)}
_WORDS = {Face.KNOWN: "", Face.STRANGER: "stranger", Face.UNDECIDED: "undecided"}


class MarkersOutput(OptionalOutput):
    """Publishes a box and a label for each face that has a position."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node, MARKERS)

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image, if somebody wants it."""
        if self.count_subscribers():
            self._publishers[0].publish(to_markers(faces, self._messages))

    def clear(self) -> None:
        """Take the markers away."""
        if self.count_subscribers():
            self._publishers[0].publish(to_markers(FaceArray(), self._messages))


def to_markers(faces: FaceArray, messages: Any) -> Any:
    """Return a MarkerArray of ``messages`` that replaces the one before."""
    array = messages.MarkerArray()
    wipe = messages.Marker()
    wipe.header, wipe.action = faces.header, messages.Marker.DELETEALL
    array.markers = [wipe]
    for face in faces.faces:
        if not face.has_position:
            continue
        box, label = messages.Marker(), messages.Marker()
        for marker, namespace, kind in (
            (box, "heads", messages.Marker.CUBE),
            (label, "names", messages.Marker.TEXT_VIEW_FACING),
        ):
            marker.header, marker.ns, marker.id, marker.type = faces.header, namespace, face.track_id, kind
            marker.action = messages.Marker.ADD
            marker.pose.orientation.w = 1.0
            position, color = marker.pose.position, marker.color
            position.x, position.y, position.z = face.position.x, face.position.y, face.position.z
            color.r, color.g, color.b = _COLORS[face.identity_state]
        box.scale.x, box.scale.y, box.scale.z = HEAD_M
        box.color.a, label.color.a = 0.4, 1.0
        label.pose.position.y -= 0.5 * HEAD_M[1] + _TEXT_M
        label.scale.z = _TEXT_M
        label.text = " ".join(filter(None, (face.name or face.person_id, _WORDS[face.identity_state])))
        array.markers += [box, label]
    return array


class FramesOutput(OptionalOutput):
    """Publishes a coordinate frame for everybody who has an id and a position."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node, FRAMES)

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image."""
        transforms = [
            to_transform(face, faces) for face in faces.faces if face.has_position and face.person_id
        ]
        if transforms:
            message = self._messages.TFMessage()
            message.transforms = transforms
            self._publishers[0].publish(message)


def to_transform(face: Face, faces: FaceArray) -> TransformStamped:
    """Return the frame of a person, turned like the camera's optical frame."""
    transform = TransformStamped(header=faces.header)
    transform.child_frame_id = f"person_{ros_name(face.person_id)}"
    place = transform.transform.translation
    place.x, place.y, place.z = face.position.x, face.position.y, face.position.z
    transform.transform.rotation.w = 1.0
    return transform


# a face is announced in this image of its track: each one means topics of its own, which all hear of
IMAGES_BEFORE_ANNOUNCED = 3
CHANGE = 0.05  # a match is published again when its confidence has changed by this much


class HumansOutput(OptionalOutput):
    """Publishes by REP 155 who is tracked, where, and whose face it is.

    A person manager makes ``/humans/persons/...`` of it; only the display name, which it cannot know, is
    published there by this node.

    Ids of faces carry a random part, new at each activation: those of other nodes and of earlier runs differ.
    """

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node, FACES_TRACKED, MATCHES)
        self._tracked, self._matches = self._publishers
        self._faces: dict[int, dict[str, Any]] = {}
        self._images: dict[int, int] = {}
        self._claims: dict[int, tuple[str, float]] = {}
        self._names: dict[str, tuple[Any, str]] = {}
        self._prefix = _new_prefix()
        self._last_header = Header()
        self._lock = threading.Lock()

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
        super().close()
        regions = [publisher for topics in self._faces.values() for publisher in topics.values()]
        for publisher in (*regions, *(publisher for publisher, _ in self._names.values())):
            self._node.destroy_publisher(publisher)
        self._faces.clear()
        self._names.clear()

    def _face_id(self, track_id: int) -> str:
        return f"{self._prefix}_{track_id}"

    def _topics(self, track_id: int) -> dict[str, Any]:
        """Return the publishers of one face by the name of their topic."""
        if track_id not in self._faces:
            topics = (FACE_REGION, FACE_CROPPED, FACE_ALIGNED, FACE_LANDMARKS)
            self._faces[track_id] = {
                topic.name: self._make(topic, FACE=self._face_id(track_id)) for topic in topics
            }
        return self._faces[track_id]

    def _claim(self, face: Face) -> None:
        """Publish whose face it is when that changes, and take back what was said before."""
        before, published = self._claims.get(face.track_id, ("", 0.0))
        person, probability = ros_name(face.person_id), float(face.probability)
        if person:
            self._name(person, face.name if face.identity_state == Face.KNOWN else "")
        if person == before and abs(probability - published) < CHANGE:
            return
        if before and before != person:
            self._match(face.track_id, before, 0.0)
        self._claims[face.track_id] = person, probability
        if person:
            self._match(face.track_id, person, probability)

    def _name(self, person: str, name: str) -> None:
        """Publish the display name of a person, latched, when it is new or has changed."""
        publisher, published = self._names.get(person, (None, ""))
        if name == published:
            return
        if publisher is None:
            publisher = self._make(PERSON_NAME, PERSON=person)
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


# where FacialLandmarks keeps our five points: RIGHT_PUPIL, LEFT_PUPIL, NOSE, MOUTH_OUTER_RIGHT and _LEFT
_PUPILS_NOSE_MOUTH = (68, 69, 30, 48, 54)
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


def ros_name(person_id: str) -> str:
    """Return a person's id with underscores for hyphens, which names of topics may not contain."""
    return person_id.replace("-", "_")


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def make_outputs(node: LifecycleNode, config: NodeConfig) -> list[OptionalOutput]:
    """Return the outputs asked for; ConfigurationError if one is ``always``, and its package is missing."""
    outputs: list[OptionalOutput] = []
    for wish, parameter, package, make in (
        (config.publish_detections, "publish_detections", "vision_msgs", VisionOutput),
        (config.publish_markers, "publish_markers", "visualization_msgs", MarkersOutput),
        (config.publish_frames, "publish_frames", "tf2_msgs", FramesOutput),
        (config.publish_humans, "publish_humans", "hri_msgs", HumansOutput),
    ):
        if wish == "never":
            continue
        try:
            outputs.append(make(node))
        except ImportError as error:
            if wish == "always":
                for output in outputs:
                    output.close()
                raise ConfigurationError(
                    f"{parameter} is always, but the package {package} cannot be imported ({error}); cure: "
                    f"sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, or set it to never"
                ) from error
    return outputs

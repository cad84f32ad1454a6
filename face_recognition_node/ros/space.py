"""Where people are, for RViz and TF: faces that have a position, as markers and as coordinate frames."""

from __future__ import annotations

import importlib
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.lifecycle import LifecycleNode

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.ros.messages import FRAMES, MARKERS
from face_recognition_node.vision.faces import ImageArray

HEAD_M = (0.16, 0.23, 0.19)
"""Width, height and depth of an adult's head: the box that is drawn."""
_TEXT_M = 0.08
_COLORS = {Face.KNOWN: (0.2, 0.8, 0.3), Face.STRANGER: (1.0, 0.6, 0.1), Face.UNDECIDED: (0.7, 0.7, 0.7)}
_WORDS = {Face.KNOWN: "", Face.STRANGER: "stranger", Face.UNDECIDED: "undecided"}


class SpaceOutput:
    """Publishes on one topic in the messages of a package that need not be installed."""

    def __init__(self, node: LifecycleNode, package: str, kind: str, topic: Any) -> None:
        self._node = node
        self._messages: Any = importlib.import_module(f"{package}.msg")
        self._publisher = node.create_publisher(getattr(self._messages, kind), topic.name, topic.qos)

    def count_subscribers(self) -> int:
        """Return how many want it."""
        return int(self._publisher.get_subscription_count())

    def clear(self) -> None:
        """Nothing is kept from one image to the next."""

    def close(self) -> None:
        """Take the publisher off the network."""
        self._node.destroy_publisher(self._publisher)


class MarkersOutput(SpaceOutput):
    """Publishes a box and a label for each face that has a position."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node, "visualization_msgs", "MarkerArray", MARKERS)

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image, if somebody wants it."""
        if self.count_subscribers():
            self._publisher.publish(to_markers(faces, self._messages))

    def clear(self) -> None:
        """Take the markers away."""
        if self.count_subscribers():
            self._publisher.publish(to_markers(FaceArray(), self._messages))


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


class FramesOutput(SpaceOutput):
    """Publishes a coordinate frame for everybody who has an id and a position."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node, "tf2_msgs", "TFMessage", FRAMES)

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image."""
        transforms = [
            to_transform(face, faces) for face in faces.faces if face.has_position and face.person_id
        ]
        if transforms:
            message = self._messages.TFMessage()
            message.transforms = transforms
            self._publisher.publish(message)


def to_transform(face: Face, faces: FaceArray) -> TransformStamped:
    """Return the frame of a person, turned like the camera's optical frame."""
    transform = TransformStamped(header=faces.header)
    transform.child_frame_id = f"person_{face.person_id.replace('-', '_')}"
    place = transform.transform.translation
    place.x, place.y, place.z = face.position.x, face.position.y, face.position.z
    transform.transform.rotation.w = 1.0
    return transform

"""The faces as vision_msgs/Detection2DArray, for programs that understand no other message."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.lifecycle import LifecycleNode

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.ros.interface import DETECTIONS

UNNAMED = "face"
"""Class of a face of whom nothing is claimed."""


class VisionOutput:
    """Publishes each answer as Detection2DArray while somebody subscribes.

    Args:
        node: Makes the publisher.

    Raises:
        ImportError: vision_msgs is not installed.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._messages: Any = importlib.import_module("vision_msgs.msg")
        self._publisher = node.create_publisher(
            self._messages.Detection2DArray, DETECTIONS.name, DETECTIONS.qos
        )

    def count_subscribers(self) -> int:
        """Return how many want the detections."""
        return int(self._publisher.get_subscription_count())

    def publish(self, faces: FaceArray) -> None:
        """Publish the answer to one image, if somebody wants it."""
        if self.count_subscribers():
            self._publisher.publish(to_detections(faces, self._messages))

    def clear(self) -> None:
        """Nothing is kept from one image to the next."""

    def close(self) -> None:
        """Take the publisher off the network."""
        self._node.destroy_publisher(self._publisher)


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
    claims = [(face.person_id, face.probability), (face.runner_up_person_id, face.runner_up_probability)]
    # Receivers that read results[0] without a look at the length are common.
    for class_id, score in [claim for claim in claims if claim[0]] or [(UNNAMED, face.detection_score)]:
        result = messages.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = class_id, float(score)
        if face.has_position:
            result.pose.pose.position = face.position
        detection.results.append(result)
    return detection

"""Publishes what the pipeline finds: faces, the annotated picture, the gallery, other packages' messages."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any, Protocol

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from face_recognition_interfaces.msg import Addressee, Face, FaceArray
from face_recognition_node.common.errors import ConfigurationError, FrameError
from face_recognition_node.enrollment.addressee import AddresseeSelector
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.media.annotate import draw_faces
from face_recognition_node.ros.conversions import bgr_to_image
from face_recognition_node.ros.humans import HumansOutput
from face_recognition_node.ros.messages import (
    ADDRESSEE,
    ANNOTATED,
    DETECTIONS,
    DETECTIONS_3D,
    FACES,
    GALLERY,
    Topic,
    to_face_array,
    to_gallery_info,
)
from face_recognition_node.ros.parameters import NodeConfig
from face_recognition_node.ros.space import HEAD_M, FramesOutput, MarkersOutput
from face_recognition_node.vision.faces import ImageArray, RecognitionResult
from face_recognition_node.vision.rotation import rotate_image, to_original

UNKNOWN = "unknown"
"""Class of a face of whom nothing is claimed."""


class VisionOutput:
    """Publishes each answer as Detection2DArray and Detection3DArray while somebody subscribes.

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
        self._in_space = node.create_publisher(
            self._messages.Detection3DArray, DETECTIONS_3D.name, DETECTIONS_3D.qos
        )

    def count_subscribers(self) -> int:
        """Return how many want the detections."""
        return int(self._publisher.get_subscription_count() + self._in_space.get_subscription_count())

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image, if somebody wants it."""
        if self._publisher.get_subscription_count():
            self._publisher.publish(to_detections(faces, self._messages))
        if self._in_space.get_subscription_count():
            self._in_space.publish(to_detections_3d(faces, self._messages))

    def clear(self) -> None:
        """Nothing is kept from one image to the next."""

    def close(self) -> None:
        """Take the publisher off the network."""
        self._node.destroy_publisher(self._publisher)
        self._node.destroy_publisher(self._in_space)


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


class OptionalOutput(Protocol):
    """Publishes the faces in other words."""

    def count_subscribers(self) -> int:
        """Return how many want them."""
        ...

    def publish(self, faces: FaceArray, image_bgr: ImageArray) -> None:
        """Publish the answer to one image."""
        ...

    def clear(self) -> None:
        """End what is said of the faces: no more images are answered."""
        ...

    def close(self) -> None:
        """Take the publishers off the network."""
        ...


def make_outputs(node: LifecycleNode, config: NodeConfig) -> list[OptionalOutput]:
    """Return the outputs that the parameters ask for.

    Raises:
        ConfigurationError: One is to be made ``always``, and its message package is not installed.
    """
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


class AnswerPublisher:
    """The publishers of a configured node; the pipeline's Outputs.

    Args:
        node: Makes the publishers.
        config: Parameters; may be replaced at any time.

    Raises:
        ConfigurationError: An output is asked for whose messages are not installed.
    """

    def __init__(self, node: LifecycleNode, config: NodeConfig) -> None:
        self.config = config
        self._node = node
        self._optional = make_outputs(node, config)
        self._made = {topic.name: self._make(topic) for topic in (FACES, ADDRESSEE, ANNOTATED)}
        self._addressee = AddresseeSelector()
        # A plain publisher: the gallery can be read and edited while the node is inactive.
        self._gallery = node.create_publisher(GALLERY.type, GALLERY.name, GALLERY.qos)
        self._gallery_lock = threading.Lock()
        self._published_version: int | None = None
        self._next_drawing = 0.0

    def _make(self, topic: Topic) -> Any:
        return self._node.create_lifecycle_publisher(topic.type, topic.name, topic.qos)

    def activate(self) -> None:
        """Let faces and annotated images out."""
        for publisher in self._made.values():
            publisher.on_activate(None)

    def deactivate(self) -> None:
        """Hold faces and annotated images back."""
        for publisher in self._made.values():
            publisher.on_deactivate(None)
        self.clear()

    def clear(self) -> None:
        """Say in the other packages' messages that nobody is in view any more."""
        for output in self._optional:
            output.clear()

    def close(self) -> None:
        """Take the publishers off the network."""
        for publisher in self._made.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_publisher(self._gallery)
        for output in self._optional:
            output.close()

    def count_subscribers(self) -> int:
        """Return how many want faces, in whatever form, or annotated images."""
        subscribers: int = sum(publisher.get_subscription_count() for publisher in self._made.values())
        return subscribers + sum(output.count_subscribers() for output in self._optional)

    def now(self) -> float:
        """Return seconds of the node's clock."""
        return float(self._node.get_clock().now().nanoseconds) * 1e-9

    def publish_faces(self, result: RecognitionResult, header: Header, image_bgr: ImageArray) -> None:
        """Publish the answer to one image."""
        message = to_face_array(result, header, self.config.publish_embeddings)
        self._made[FACES.name].publish(message)
        self._publish_addressee(result, message)
        for output in self._optional:
            output.publish(message, image_bgr)

    def _publish_addressee(self, result: RecognitionResult, faces: FaceArray) -> None:
        publisher = self._made[ADDRESSEE.name]
        if publisher.get_subscription_count():
            track_id = self._addressee.choose(result)
            chosen = [face for face in faces.faces if face.track_id == track_id]
            message = Addressee(header=faces.header, is_present=bool(chosen))
            if chosen:
                message.face = chosen[0]
            publisher.publish(message)

    def publish_annotated(self, image_bgr: ImageArray, result: RecognitionResult, header: Header) -> None:
        """Publish the upright picture with the faces drawn in, if somebody looks and it is time."""
        publisher = self._made[ANNOTATED.name]
        now = time.monotonic()
        if publisher.get_subscription_count() == 0 or now < self._next_drawing:
            return
        # Due times keep their grid, so that 10 Hz of a 30 Hz stream is every third image; half a frame early
        # is on time.
        period = 1 / self.config.annotated_rate
        self._next_drawing = max(self._next_drawing + period, now + 0.5 * period)
        turn = self.config.rotate
        upright = to_original(result, (360 - turn) % 360)  # the original seen from its turned copy
        publisher.publish(bgr_to_image(draw_faces(rotate_image(image_bgr, turn), upright.faces), header))

    def publish_gallery(self, snapshot: Snapshot) -> None:
        """Publish who is known, unless this version was published already."""
        with self._gallery_lock:
            if snapshot.version != self._published_version:
                self._published_version = snapshot.version
                self._gallery.publish(to_gallery_info(snapshot, self._node.get_clock().now().to_msg()))

    def report_bad_frame(self, error: FrameError, is_first: bool) -> None:
        """Log the first bad image of a kind; the others are only counted."""
        if is_first:
            self._node.get_logger().warning(
                f"bad image ({error.kind}): {error}. Further ones of this kind are counted in /diagnostics."
            )

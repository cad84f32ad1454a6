"""Publishes what the pipeline finds: faces, the annotated picture, the gallery, other packages' messages."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from face_recognition_interfaces.msg import Addressee, FaceArray
from face_recognition_node.common.errors import FrameError
from face_recognition_node.enrollment.addressee import AddresseeSelector
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.media.annotate import draw_faces
from face_recognition_node.ros.messages import (
    ADDRESSEE,
    ANNOTATED,
    FACES,
    GALLERY,
    Topic,
    bgr_to_image,
    to_face_array,
    to_gallery_info,
)
from face_recognition_node.ros.optional_outputs import make_outputs
from face_recognition_node.ros.parameters import NodeConfig
from face_recognition_node.vision.faces import ImageArray, RecognitionResult
from face_recognition_node.vision.rotation import rotate_image, to_original


class AnswerPublisher:
    """Where a configured node's answers go; ConfigurationError for an output whose messages are missing."""

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
                f"bad image ({error.kind}): {error} (further ones of this kind are counted in /diagnostics)"
            )

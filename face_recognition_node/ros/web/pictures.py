"""What the operator's page shows of a robot's camera: each image with the faces found in it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from face_recognition_interfaces.msg import FaceArray
from face_recognition_node.common.errors import FrameError
from face_recognition_node.media.face_fields import FLATNESS, STATES
from face_recognition_node.media.pixels import compressed_to_bgr, image_to_bgr
from face_recognition_node.ros.messages import FACES
from face_recognition_node.ros.remote import Remote
from face_recognition_node.web.operator import Face, Picture

STATE_WORDS = {number: state.value for state, number in STATES.items()}
FLATNESS_WORDS = {number: word for word, number in FLATNESS.items()}
MOST_KEPT = 12  # images that wait for the faces of their stamp
BARE_AFTER_S = 1.0  # without faces for this long, images are shown as they are


class WebPictures:
    """The images that a recognition node reads, with the faces it finds in them.

    The subscriptions belong to a companion node with an executor of its own: beside the clients of a dozen
    services a stream of 30 Hz would cost a third of a core. ``on_picture`` is called on its thread.
    """

    def __init__(self, node: Node, recognition: str, on_picture: Callable[[Picture], None]) -> None:
        self._on_picture = on_picture
        self._faces_topic = FACES.name.replace("~", recognition, 1)
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._topic = ""
        self._images: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._early: OrderedDict[tuple[int, int], FaceArray] = OrderedDict()
        self._answered = 0.0
        self._companion = Remote(
            f"{node.get_name()}_pictures",
            namespace=node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._companion.__enter__()

    def close(self) -> None:
        """Take the companion off the network."""
        self._companion.__exit__()

    def subscribe(self, is_wanted: bool, topic: str) -> None:
        """Subscribe to faces and images of ``topic`` (empty: not known yet), or to nothing, if need be."""
        with self._lock:
            topic = topic if is_wanted else ""
            if topic == self._topic and bool(self._subscriptions) == is_wanted:
                return
            node = self._companion.node
            while self._subscriptions:
                node.destroy_subscription(self._subscriptions.pop())
            self._topic = topic
            self._images.clear()
            self._early.clear()
            if is_wanted:
                self._subscriptions.append(
                    node.create_subscription(FaceArray, self._faces_topic, self._on_faces, FACES.qos)
                )
            if topic:
                kind = CompressedImage if topic.endswith("/compressed") else Image
                qos = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
                self._subscriptions.append(node.create_subscription(kind, topic, self._on_image, qos))

    def _on_image(self, message: Any) -> None:
        faces = self._other(message, self._early, self._images)
        if faces is not None:
            self._show(message, faces)
        elif time.monotonic() - self._answered > BARE_AFTER_S:
            self._show(message, FaceArray())

    def _on_faces(self, faces: FaceArray) -> None:
        self._answered = time.monotonic()
        image = self._other(faces, self._images, self._early)
        if image is not None:
            self._show(image, faces)

    def _other(self, message: Any, others: OrderedDict[Any, Any], own: OrderedDict[Any, Any]) -> Any:
        """Return what has the same stamp, and drop what is older; keep the message if there is none yet."""
        key = (message.header.stamp.sec, message.header.stamp.nanosec)
        with self._lock:
            other = others.pop(key, None)
            if other is None:
                own[key] = message
                while len(own) > MOST_KEPT:
                    own.popitem(last=False)
            for kept in (own, others) if other is not None else ():
                for older in [one for one in kept if one < key]:
                    del kept[older]
        return other

    def _show(self, image: Any, faces: FaceArray) -> None:
        try:
            is_compressed = isinstance(image, CompressedImage)
            image_bgr = compressed_to_bgr(image) if is_compressed else image_to_bgr(image)
        except FrameError:  # the node counts it and says so in its diagnostics
            return
        self._on_picture(Picture(image_bgr, tuple(_face(face) for face in faces.faces)))


def _face(face: Any) -> Face:
    x1, y1, x2, y2 = (round(float(value), 1) for value in face.box_xyxy)
    return Face(
        int(face.track_id), (x1, y1, x2, y2), STATE_WORDS[face.identity_state], face.person_id, face.name,
        round(face.probability, 3), round(face.quality, 2), FLATNESS_WORDS[face.flatness],
        face.runner_up_name, round(face.runner_up_probability, 3), face.flatness_source,
    )  # fmt: skip

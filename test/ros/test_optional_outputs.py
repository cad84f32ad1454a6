"""Outputs in the messages of packages that are not installed here: with stand-ins of the same fields."""

from __future__ import annotations

import re
import sys
import types
from typing import Any

import numpy as np
import pytest

pytest.importorskip("built_interfaces")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Vector3
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import ColorRGBA, Header

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.ros.messages import (
    DETECTIONS,
    DETECTIONS_3D,
    FACES_TRACKED,
    FRAMES,
    MARKERS,
    MATCHES,
)
from face_recognition_node.ros.optional_outputs import IMAGES_BEFORE_ANNOUNCED, make_outputs
from face_recognition_node.ros.parameters import NodeConfig

IMAGE = np.full((200, 100, 3), 7, np.uint8)
LANDMARKS = [20.0, 40.0, 40.0, 40.0, 30.0, 55.0, 22.0, 70.0, 38.0, 70.0]
HEADER = Header(stamp=Time(sec=7), frame_id="camera")
FIELDS = {
    "vision_msgs": {
        "Point2D": {"x": 0.0, "y": 0.0},
        "Pose2D": {"position": "Point2D", "theta": 0.0},
        "BoundingBox2D": {"center": "Pose2D", "size_x": 0.0, "size_y": 0.0},
        "ObjectHypothesis": {"class_id": "", "score": 0.0},
        "Pose": {"position": None, "orientation": None},
        "PoseWithCovariance": {"pose": "Pose", "covariance": None},
        "ObjectHypothesisWithPose": {"hypothesis": "ObjectHypothesis", "pose": "PoseWithCovariance"},
        "Detection2D": {"header": None, "results": list, "bbox": "BoundingBox2D", "id": ""},
        "Detection2DArray": {"header": None, "detections": list},
        "BoundingBox3D": {"center": Pose, "size": Vector3},
        "Detection3D": {"header": None, "results": list, "bbox": "BoundingBox3D", "id": ""},
        "Detection3DArray": {"header": None, "detections": list},
    },
    "visualization_msgs": {
        "Marker": {
            "header": None, "ns": "", "id": 0, "type": 0, "action": 0, "pose": Pose, "scale": Vector3,
            "color": ColorRGBA, "text": "",
        },
        "MarkerArray": {"markers": list},
    },
    "tf2_msgs": {"TFMessage": {"transforms": list}},
    "hri_msgs": {
        "IdsList": {"header": None, "ids": list},
        "IdsMatch": {"id1": "", "id1_type": 0, "id2": "", "id2_type": 0, "confidence": 0.0},
        "NormalizedRegionOfInterest2D": {
            "header": None, "xmin": 0.0, "ymin": 0.0, "xmax": 0.0, "ymax": 0.0, "c": 0.0,
        },
        "NormalizedPointOfInterest2D": {"x": 0.0, "y": 0.0, "c": 0.0},
        "FacialLandmarks": {"header": None, "landmarks": list, "height": 0, "width": 0},
    },
}  # fmt: skip
"""The fields of vision_msgs 4 (Humble and later) and hri_msgs 2; a name stands for that message."""


CONSTANTS = {
    "IdsMatch": {"UNSET": 0, "PERSON": 1, "FACE": 2},
    "Marker": {"CUBE": 1, "TEXT_VIEW_FACING": 9, "ADD": 0, "DELETEALL": 3},
}


def message_class(kind: str, fields: dict[str, Any], module: types.ModuleType) -> type:
    """Return a class that has these fields and, as the generated ones do, no others."""

    def fill(self: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, str) and value:
                setattr(self, name, getattr(module, value)())
            else:
                setattr(self, name, value() if callable(value) else value)

    constants = CONSTANTS.get(kind, {})
    return type(kind, (), {"__slots__": tuple(fields), "__init__": fill, **constants})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, kinds in FIELDS.items():
        module = types.ModuleType(f"{package}.msg")
        for kind, fields in kinds.items():
            setattr(module, kind, message_class(kind, fields, module))
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setitem(sys.modules, f"{package}.msg", module)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in FIELDS:
        monkeypatch.setitem(sys.modules, f"{package}.msg", None)  # what makes an import fail


class Publisher:
    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sent: list[Any] = []
        self.subscribers = 1

    def publish(self, message: Any) -> None:
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return self.subscribers


class Publishers:
    """A node that only makes publishers."""

    def __init__(self) -> None:
        self.there: dict[str, Publisher] = {}

    def create_publisher(self, kind: type, topic: str, qos: object) -> Publisher:
        assert topic not in self.there
        self.there[topic] = Publisher(topic)
        return self.there[topic]

    def destroy_publisher(self, publisher: Publisher) -> None:
        del self.there[publisher.topic]


def config(
    detections: str = "never", humans: str = "never", markers: str = "never", frames: str = "never"
) -> NodeConfig:
    return NodeConfig(
        publish_detections=detections, publish_humans=humans, publish_markers=markers, publish_frames=frames
    )


def known(track_id: int, person: str, probability: float = 0.97) -> Face:
    return Face(
        track_id=track_id,
        box_xyxy=[10.0, 20.0, 50.0, 80.0],
        detection_score=0.9,
        identity_state=Face.KNOWN,
        person_id=person,
        probability=probability,
        landmarks_xy=LANDMARKS,
    )


def array(*faces: Face) -> FaceArray:
    return FaceArray(header=HEADER, faces=list(faces), image_width=100, image_height=200)


def nobody(track_id: int) -> Face:
    return Face(
        track_id=track_id, box_xyxy=[-5.0, 150.0, 45.0, 210.0], detection_score=0.75, landmarks_xy=LANDMARKS
    )


@pytest.mark.usefixtures("installed")
class TestDetections:
    def test_box_track_and_claims_arrive(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("auto"))
        face = known(4, "p-anna")
        face.name = "Anna"
        face.runner_up_person_id, face.runner_up_probability = "p-bob", 0.02
        face.has_position, face.position = True, Point(z=1.5)
        output.publish(array(face, nobody(5)), IMAGE)
        (message,) = node.there[DETECTIONS.name].sent
        assert message.header == HEADER
        first, second = message.detections
        assert (first.header, first.id, second.id) == (HEADER, "4", "5")
        assert (first.bbox.center.position.x, first.bbox.center.position.y) == (30.0, 50.0)
        assert (first.bbox.size_x, first.bbox.size_y) == (40.0, 60.0)
        claims = [(result.hypothesis.class_id, result.hypothesis.score) for result in first.results]
        assert claims == [("p-anna Anna", pytest.approx(0.97)), ("p-bob", pytest.approx(0.02))]
        assert first.results[0].pose.pose.position.z == 1.5
        (unnamed,) = second.results
        assert (unnamed.hypothesis.class_id, unnamed.hypothesis.score) == ("unknown", 0.0)
        assert unnamed.pose.pose.position is None

    def test_an_image_without_faces_is_answered_too(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("always"))
        output.publish(array(), IMAGE)
        assert node.there[DETECTIONS.name].sent[0].detections == []

    def test_nothing_is_made_while_nobody_subscribes(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("auto"))
        publisher = node.there[DETECTIONS.name]
        assert output.count_subscribers() == 2
        publisher.subscribers = node.there[DETECTIONS_3D.name].subscribers = 0
        output.publish(array(nobody(1)), IMAGE)
        assert (output.count_subscribers(), publisher.sent) == (0, [])
        output.clear()
        output.close()
        assert node.there == {}


def placed(track_id: int, person: str, name: str) -> Face:
    face = known(track_id, person)
    face.name, face.has_position, face.position_source = name, True, Face.FROM_SIZE
    face.position = Point(x=0.1, y=-0.2, z=1.5)
    face.position_covariance = np.diag([0.01, 0.02, 0.09]).ravel()
    return face


@pytest.mark.usefixtures("installed")
class TestSpace:
    def test_faces_with_a_position_are_detections_in_space(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("auto"))
        output.publish(array(placed(1, "p-anna", "Anna"), nobody(2)), IMAGE)
        (message,) = node.there[DETECTIONS_3D.name].sent
        (detection,) = message.detections
        assert (detection.id, detection.bbox.center.position.z, detection.bbox.size.x) == ("1", 1.5, 0.16)
        (result,) = detection.results
        assert (result.hypothesis.class_id, result.pose.pose.position.z) == ("p-anna Anna", 1.5)
        assert result.pose.covariance[[0, 7, 14, 21]] == pytest.approx([0.01, 0.02, 0.09, 0.0])

    def test_markers_replace_those_before(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config(markers="auto"))
        output.publish(array(placed(1, "p-anna", "Anna"), nobody(2)), IMAGE)
        output.clear()
        first, last = node.there[MARKERS.name].sent
        wipe, box, label = first.markers
        assert (wipe.action, [marker.action for marker in last.markers]) == (3, [3])
        assert (box.type, box.ns, box.id, box.pose.position.z, box.pose.orientation.w) == (
            1,
            "heads",
            1,
            1.5,
            1.0,
        )
        assert (label.type, label.text) == (9, "Anna")
        assert label.pose.position.y < box.pose.position.y == -0.2
        assert box.header == HEADER
        output.close()
        assert node.there == {}

    def test_a_person_with_an_id_has_a_frame(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config(frames="auto"))
        output.publish(array(placed(1, "p-anna", "Anna"), placed(2, "", ""), known(3, "p-bob")), IMAGE)
        output.publish(array(nobody(2)), IMAGE)
        (message,) = node.there[FRAMES.name].sent
        (transform,) = message.transforms
        assert (transform.header, transform.child_frame_id) == (HEADER, "person_p_anna")
        assert (transform.transform.translation.z, transform.transform.rotation.w) == (1.5, 1.0)


@pytest.mark.usefixtures("installed")
class TestHumans:
    @pytest.fixture
    def node(self) -> Publishers:
        return Publishers()

    @pytest.fixture
    def output(self, node: Publishers) -> Any:
        (output,) = make_outputs(node, config(humans="auto"))
        return output

    def tracked(self, node: Publishers) -> list[list[str]]:
        return [list(map(self.track, message.ids)) for message in node.there[FACES_TRACKED.name].sent]

    def track(self, face_id: str) -> str:
        assert re.fullmatch(r"face_[0-9a-f]{8}_\d+", face_id)
        return face_id.rpartition("_")[2]

    def matches(self, node: Publishers) -> list[tuple[str, str, float]]:
        found = node.there[MATCHES.name].sent
        assert {(match.id1_type, match.id2_type) for match in found} <= {(2, 1)}
        return [(self.track(match.id1), match.id2, round(match.confidence, 3)) for match in found]

    def topic(self, node: Publishers, end: str) -> Publisher:
        (found,) = [publisher for topic, publisher in node.there.items() if topic.endswith(end)]
        return found

    def test_a_face_is_announced_in_the_third_image(self, node: Publishers, output: Any) -> None:
        for _ in range(4):
            output.publish(array(nobody(3)), IMAGE)
        assert self.tracked(node) == [[], [], ["3"], ["3"]]
        regions = self.topic(node, "_3/roi").sent
        assert len(regions) == 2
        region = regions[0]
        assert region.header == HEADER
        corners = (region.xmin, region.ymin, region.xmax, region.ymax)
        assert corners == pytest.approx((0.0, 0.75, 0.45, 1.0)), "cut to the image"
        assert region.c == pytest.approx(0.75)
        assert self.matches(node) == []

    def test_a_match_is_sent_on_change_and_taken_back(self, node: Publishers, output: Any) -> None:
        for person in ("p-anna", "p-anna", "p-anna", "p-anna", "p-anna", "stranger-2", ""):
            output.publish(array(known(1, person)), IMAGE)
        output.publish(array(known(1, "p-anna", 0.5)), IMAGE)
        output.publish(array(known(1, "p-anna", 0.53)), IMAGE)
        output.publish(array(known(1, "p-anna", 0.7)), IMAGE)
        output.publish(array(), IMAGE)
        assert self.matches(node) == [
            ("1", "p_anna", 0.97),
            ("1", "p_anna", 0.0),
            ("1", "stranger_2", 0.97),
            ("1", "stranger_2", 0.0),
            ("1", "p_anna", 0.5),
            ("1", "p_anna", 0.7),
            ("1", "p_anna", 0.0),
        ]
        assert self.tracked(node)[-1] == []
        assert set(node.there) == {FACES_TRACKED.name, MATCHES.name}

    def test_the_name_is_latched_and_follows_a_change(self, node: Publishers, output: Any) -> None:
        face = known(1, "p-anna")
        for name in ("Anna", "Anna", "Anna", "Anna", "Anne"):
            face.name = name
            output.publish(array(face), IMAGE)
        assert [message.data for message in node.there["/humans/persons/p_anna/name"].sent] == [
            "Anna",
            "Anne",
        ]
        output.publish(array(), IMAGE)
        assert "/humans/persons/p_anna/name" in node.there, "latched: it outlives the face"

    def test_pictures_and_points_while_somebody_looks(self, node: Publishers, output: Any) -> None:
        for _ in range(3):
            output.publish(array(known(1, "")), IMAGE)
        ends = ("/cropped", "/aligned", "/landmarks")
        cropped, aligned, landmarks = (self.topic(node, end) for end in ends)
        assert [len(topic.sent) for topic in (cropped, aligned, landmarks)] == [1, 1, 1]
        assert (cropped.sent[0].width, cropped.sent[0].height, cropped.sent[0].encoding) == (40, 60, "bgr8")
        assert (aligned.sent[0].width, aligned.sent[0].height) == (112, 112)
        assert cropped.sent[0].header == HEADER
        points = landmarks.sent[0].landmarks
        assert len(points) == 70
        assert {k: (p.x, p.y) for k, p in enumerate(points) if p.c} == {
            68: (0.2, 0.2), 69: (0.4, 0.2), 30: (0.3, 0.275), 48: (0.22, 0.35), 54: (0.38, 0.35),
        }  # fmt: skip
        for topic in (cropped, aligned, landmarks):
            topic.subscribers = 0
        output.publish(array(known(1, "")), IMAGE)
        assert [len(topic.sent) for topic in (cropped, aligned, landmarks)] == [1, 1, 1]

    def test_at_the_end_nobody_is_tracked(self, node: Publishers, output: Any) -> None:
        for _ in range(3):
            output.publish(array(known(1, "p-anna")), IMAGE)
        output.clear()
        assert self.tracked(node)[-1] == []
        assert self.matches(node)[-1] == ("1", "p_anna", 0.0)
        before = len(self.tracked(node))
        output.clear()
        assert len(self.tracked(node)) == before
        output.close()
        assert node.there == {}

    def test_ids_of_faces_are_those_of_no_other_node_or_run(self, node: Publishers, output: Any) -> None:
        (other,) = make_outputs(Publishers(), config(humans="auto"))
        for one in (output, other, output):
            for _ in range(3):
                one.publish(array(known(1, "")), IMAGE)
            one.clear()
        ids = {
            face_id
            for there in (node.there, other._node.there)
            for message in there[FACES_TRACKED.name].sent
            for face_id in message.ids
        }
        assert len(ids) == 3


@pytest.mark.usefixtures("absent")
class TestWithoutThePackages:
    def test_auto_goes_on_without(self) -> None:
        assert make_outputs(Publishers(), config("auto", "auto", "auto", "auto")) == []

    @pytest.mark.parametrize(
        ("wish", "package"),
        [
            (config("always"), "vision-msgs"),
            (config("auto", "always"), "hri-msgs"),
            (config(markers="always"), "visualization-msgs"),
            (config(frames="always"), "tf2-msgs"),
        ],
        ids=["vision_msgs", "hri_msgs", "visualization_msgs", "tf2_msgs"],
    )
    def test_always_names_the_cure(self, wish: NodeConfig, package: str) -> None:
        with pytest.raises(ConfigurationError, match=f"apt install ros-.*-{package}"):
            make_outputs(Publishers(), wish)


def test_a_missing_package_leaves_no_publisher_behind(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hri_msgs.msg", None)
    node = Publishers()
    with pytest.raises(ConfigurationError):
        make_outputs(node, config("always", "always"))
    assert node.there == {}


def test_never_means_never(installed: None) -> None:
    assert make_outputs(Publishers(), config()) == []


@pytest.mark.parametrize(
    ("package", "wish"),
    [
        ("vision_msgs", config("always")),
        ("hri_msgs", config(humans="always")),
        ("visualization_msgs", config(markers="always")),
        ("tf2_msgs", config(frames="always")),
    ],
)
def test_the_real_messages_take_what_is_published(package: str, wish: NodeConfig) -> None:
    pytest.importorskip(f"{package}.msg", reason=f"needs {package}, which no requirement brings")
    node = Publishers()
    (output,) = make_outputs(node, wish)
    for _ in range(IMAGES_BEFORE_ANNOUNCED):
        output.publish(array(placed(1, "p-anna", "Anna"), nobody(2)), IMAGE)
    publishers = list(node.there.values())
    output.clear()
    for publisher in publishers:
        assert publisher.sent, publisher.topic
        for message in publisher.sent:
            received = deserialize_message(serialize_message(message), type(message))
            again = deserialize_message(serialize_message(received), type(message))
            assert again == received
            assert getattr(received, "header", HEADER) == HEADER

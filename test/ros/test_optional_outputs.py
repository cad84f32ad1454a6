"""Outputs in the messages of packages that are not installed here: with stand-ins of the same fields."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("face_recognition_interfaces.msg", reason="needs the built interface package")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import Header

from face_recognition_interfaces.msg import Face, FaceArray
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.ros.messages import DETECTIONS, FACES_TRACKED, MATCHES
from face_recognition_node.ros.outputs import make_outputs
from face_recognition_node.ros.parameters import NodeConfig

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
    },
    "hri_msgs": {
        "IdsList": {"header": None, "ids": list},
        "IdsMatch": {"id1": "", "id1_type": 0, "id2": "", "id2_type": 0, "confidence": 0.0},
        "NormalizedRegionOfInterest2D": {
            "header": None, "xmin": 0.0, "ymin": 0.0, "xmax": 0.0, "ymax": 0.0, "c": 0.0,
        },
    },
}  # fmt: skip
"""The fields of vision_msgs 4 (Humble and later) and hri_msgs 2; a name stands for that message."""


def message_class(kind: str, fields: dict[str, Any], module: types.ModuleType) -> type:
    """Return a class that has these fields and, as the generated ones do, no others."""

    def fill(self: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, str) and value:
                setattr(self, name, getattr(module, value)())
            else:
                setattr(self, name, value() if callable(value) else value)

    constants = {"UNSET": 0, "PERSON": 1, "FACE": 2} if kind == "IdsMatch" else {}
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


def config(detections: str = "never", humans: str = "never") -> NodeConfig:
    return NodeConfig(publish_detections=detections, publish_humans=humans)


def known(track_id: int, person: str, probability: float = 0.97) -> Face:
    return Face(
        track_id=track_id,
        box_xyxy=[10.0, 20.0, 50.0, 80.0],
        detection_score=0.9,
        identity_state=Face.KNOWN,
        person_id=person,
        probability=probability,
    )


def array(*faces: Face) -> FaceArray:
    return FaceArray(header=HEADER, faces=list(faces), image_width=100, image_height=200)


def nobody(track_id: int) -> Face:
    return Face(track_id=track_id, box_xyxy=[-5.0, 150.0, 45.0, 210.0], detection_score=0.75)


@pytest.mark.usefixtures("installed")
class TestDetections:
    def test_box_track_and_claims_arrive(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("auto"))
        face = known(4, "p-anna")
        face.runner_up_person_id, face.runner_up_probability = "p-bob", 0.02
        face.has_position, face.position = True, Point(z=1.5)
        output.publish(array(face, nobody(5)))
        (message,) = node.there[DETECTIONS.name].sent
        assert message.header == HEADER
        first, second = message.detections
        assert (first.header, first.id, second.id) == (HEADER, "4", "5")
        assert (first.bbox.center.position.x, first.bbox.center.position.y) == (30.0, 50.0)
        assert (first.bbox.size_x, first.bbox.size_y) == (40.0, 60.0)
        claims = [(result.hypothesis.class_id, result.hypothesis.score) for result in first.results]
        assert claims == [("p-anna", pytest.approx(0.97)), ("p-bob", pytest.approx(0.02))]
        assert first.results[0].pose.pose.position.z == 1.5
        (unnamed,) = second.results
        assert (unnamed.hypothesis.class_id, unnamed.hypothesis.score) == ("face", pytest.approx(0.75))
        assert unnamed.pose.pose.position is None

    def test_an_image_without_faces_is_answered_too(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("always"))
        output.publish(array())
        assert node.there[DETECTIONS.name].sent[0].detections == []

    def test_nothing_is_made_while_nobody_subscribes(self) -> None:
        node = Publishers()
        (output,) = make_outputs(node, config("auto"))
        publisher = node.there[DETECTIONS.name]
        assert output.count_subscribers() == 1
        publisher.subscribers = 0
        output.publish(array(nobody(1)))
        assert (output.count_subscribers(), publisher.sent) == (0, [])
        output.clear()
        output.close()
        assert node.there == {}


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
        return [message.ids for message in node.there[FACES_TRACKED.name].sent]

    def matches(self, node: Publishers) -> list[tuple[str, str, float]]:
        found = node.there[MATCHES.name].sent
        assert {(match.id1_type, match.id2_type) for match in found} <= {(2, 1)}
        return [(match.id1, match.id2, round(match.confidence, 3)) for match in found]

    def test_a_face_is_announced_in_the_third_image(self, node: Publishers, output: Any) -> None:
        for _ in range(4):
            output.publish(array(nobody(3)))
        assert self.tracked(node) == [[], [], ["face_3"], ["face_3"]]
        regions = node.there["/humans/faces/face_3/roi"].sent
        assert len(regions) == 2
        region = regions[0]
        assert region.header == HEADER
        corners = (region.xmin, region.ymin, region.xmax, region.ymax)
        assert corners == pytest.approx((0.0, 0.75, 0.45, 1.0)), "cut to the image"
        assert region.c == pytest.approx(0.75)
        assert self.matches(node) == []

    def test_a_match_is_taken_back_when_the_claim_or_the_face_goes(
        self, node: Publishers, output: Any
    ) -> None:
        for person in ("p-anna", "p-anna", "p-anna", "stranger-2", ""):
            output.publish(array(known(1, person)))
        output.publish(array(known(1, "p-anna")))
        output.publish(array())
        assert self.matches(node) == [
            ("face_1", "p_anna", 0.97),
            ("face_1", "p_anna", 0.0),
            ("face_1", "stranger_2", 0.97),
            ("face_1", "stranger_2", 0.0),
            ("face_1", "p_anna", 0.97),
            ("face_1", "p_anna", 0.0),
        ]
        assert self.tracked(node)[-1] == []
        assert set(node.there) == {FACES_TRACKED.name, MATCHES.name}

    def test_at_the_end_nobody_is_tracked(self, node: Publishers, output: Any) -> None:
        for _ in range(3):
            output.publish(array(known(1, "p-anna")))
        output.clear()
        assert self.tracked(node)[-1] == []
        assert self.matches(node)[-1] == ("face_1", "p_anna", 0.0)
        before = len(self.tracked(node))
        output.clear()
        assert len(self.tracked(node)) == before
        output.close()
        assert node.there == {}


@pytest.mark.usefixtures("absent")
class TestWithoutThePackages:
    def test_auto_goes_on_without(self) -> None:
        assert make_outputs(Publishers(), config("auto", "auto")) == []

    @pytest.mark.parametrize(
        ("wish", "package"),
        [(config("always"), "vision-msgs"), (config("auto", "always"), "hri-msgs")],
        ids=["vision_msgs", "hri_msgs"],
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

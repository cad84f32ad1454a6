"""One declaration, seen three times: the parameter files, the table in the README, and the node itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("built_interfaces")

import rclpy
import ros_world  # noqa: F401  # a network of our own, before rclpy joins one
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import Parameter, flatten
from face_recognition_node.ros.parameters import (
    NodeParameters,
    Settings,
    bounds,
    declarations,
    declare,
    describe,
    unknown_overrides,
)
from face_recognition_node.ros.video_source import VideoSourceConfig
from face_recognition_node.ros.web.node import WebConfig
from tools.reference import DOCUMENTS, MAIN_PARAMETERS, PARAMETER_FILES, TABLES, fill_tables

ROOT = Path(__file__).resolve().parents[2]


def flat(tree: dict, prefix: str = "") -> dict:
    found: dict = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


@pytest.mark.parametrize(
    ("file", "items"),
    [
        ("face_recognition.yaml", list(declarations())),
        ("video_source.yaml", list(flatten(VideoSourceConfig()))),
        ("web.yaml", list(flatten(WebConfig()))),
    ],
)
def test_a_file_holds_every_parameter_with_its_default(file: str, items: list) -> None:
    tree = yaml.safe_load((ROOT / "config" / file).read_text())
    assert list(tree) == ["/**"]
    in_file = flat(tree["/**"]["ros__parameters"])
    declared = {name: value for name, _, value in items}
    assert in_file == declared
    # A whole number in YAML would be an integer for ROS, which then refuses it for a float.
    assert {name: type(value) for name, value in in_file.items()} == {n: type(v) for n, v in declared.items()}


@pytest.mark.parametrize("file", PARAMETER_FILES)
def test_a_file_is_the_generated_one(file: str) -> None:
    assert (ROOT / file).read_text() == PARAMETER_FILES[file](), "run: python tools/reference.py config"


def test_a_file_says_when_a_parameter_can_be_set() -> None:
    text = PARAMETER_FILES["config/face_recognition.yaml"]()
    comments = re.findall(r"((?:^ +# .*\n)+) +(\w+): ", text, re.MULTILINE)
    for (comment, leaf), (name, declared, _) in zip(comments, declarations(), strict=True):
        mark = re.search(r"\[(\w+)\]$", comment.strip())
        expected = "start" if name in NodeParameters.FIXED else "configure" if declared.read_only else None
        assert (leaf, mark and mark[1]) == (name.rpartition(".")[2], expected)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_tables_in_the_docs_are_the_generated_ones(document: str) -> None:
    path = ROOT / document
    if not path.exists():
        pytest.skip(f"{document} is not part of this installation")
    text = path.read_text()
    assert any(f"<!-- begin {name} -->" in text for name in TABLES), f"{document} has no generated table"
    assert text == fill_tables(text), "run: python tools/reference.py docs"


def test_the_docs_have_every_table() -> None:
    text = "".join((ROOT / document).read_text() for document in DOCUMENTS)
    for name in TABLES:
        assert f"<!-- begin {name} -->\n" in text
        assert f"<!-- end {name} -->" in text


def test_the_short_table_names_parameters_that_exist() -> None:
    assert set(MAIN_PARAMETERS) <= {name for name, _, _ in declarations()}


def test_a_description_says_what_it_is_for() -> None:
    for name, declared, value in declarations():
        assert len(declared.description) > 5, name
        assert declared.check(name, value) == value


@pytest.fixture
def node():
    rclpy.init()
    node = Node("parameters_test")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


class Holder:
    def __init__(self, node: Node) -> None:
        self.is_configured = False
        self.seen: list[Settings] = []
        self.parameters = NodeParameters(node, lambda: self.is_configured, self.seen.append)


@pytest.fixture
def holder(node):
    return Holder(node)


def test_the_node_declares_them_all_with_bounds(node, holder) -> None:
    for name, declared, default in declarations():
        descriptor = node.describe_parameter(name)
        assert descriptor.description == declared.description
        assert node.get_parameter(name).value == default
        assert descriptor.read_only == (name in NodeParameters.FIXED)
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        if declared.minimum is not None and declared.maximum is not None:
            assert (ranges[0].from_value, ranges[0].to_value) == (declared.minimum, declared.maximum)


def test_a_change_is_handed_on(node, holder) -> None:
    name = "identity.target_false_accept_rate"
    (result,) = node.set_parameters([RosParameter(name, value=0.001)])
    assert result.successful
    assert holder.seen[-1].recognition.identity.target_false_accept_rate == 0.001
    assert holder.parameters.settings is holder.seen[-1]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("identity.target_false_accept_rate", 7.0, "target_false_accept_rate"),
        ("rotate", 45, "one of"),
        ("image_transport", "carrier pigeon", "one of"),
        ("qos_depth", 0, "qos_depth"),
        ("annotated_rate", "often", ""),
        ("autostart", True, ""),
    ],
)
def test_a_wrong_change_is_refused_and_changes_nothing(node, holder, name, value, reason) -> None:
    before = holder.parameters.settings
    (result,) = node.set_parameters([RosParameter(name, value=value)])
    assert not result.successful
    assert reason in result.reason
    assert holder.seen == []
    assert holder.parameters.settings is before


@pytest.mark.parametrize("name", ["image_topic", "depth_topic", "camera_info_topic"])
def test_a_topic_that_cannot_be_is_refused(node, holder, name) -> None:
    for topic in ("/camera-1/image", "//camera/image", "{foo}/image"):
        (result,) = node.set_parameters([RosParameter(name, value=topic)])
        assert not result.successful
        assert "expected the name of a topic" in result.reason
    (result,) = node.set_parameters([RosParameter(name, value="")])
    assert result.successful == (name != "image_topic")


def test_of_several_changes_at_once_all_or_none_happen(node, holder) -> None:
    changes = [RosParameter("always_on", value=True), RosParameter("rotate", value=33)]
    assert not node.set_parameters_atomically(changes).successful
    assert not holder.parameters.settings.node.always_on
    assert node.set_parameters_atomically([changes[0], RosParameter("rotate", value=90)]).successful
    assert (holder.seen[-1].node.always_on, holder.seen[-1].node.rotate) == (True, 90)


def test_what_configure_reads_can_be_set_only_before(node, holder) -> None:
    holder.is_configured = True
    (result,) = node.set_parameters([RosParameter("gallery_path", value="/elsewhere")])
    assert not result.successful
    assert "configure" in result.reason
    holder.is_configured = False
    (result,) = node.set_parameters([RosParameter("gallery_path", value="/elsewhere")])
    assert result.successful
    assert holder.seen[-1].node.gallery_path == "/elsewhere"


def test_foreign_parameters_are_left_alone(node, holder) -> None:
    node.declare_parameter("somebody_elses", 1)
    (result,) = node.set_parameters([RosParameter("somebody_elses", value=2)])
    assert result.successful
    assert holder.seen == []


@pytest.mark.parametrize("given", ["qos_depth:=0", "qos_depth:=many", "annotated_rate:=often"])
def test_a_wrong_value_at_start_names_parameter_and_bounds(given: str) -> None:
    rclpy.init(args=["--ros-args", "-p", given])
    node = Node("parameters_test")
    try:
        with pytest.raises(ConfigurationError, match=rf"{given.split(':=')[0]}: expected (int|float) \d"):
            Holder(node)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def test_a_whole_number_at_start_is_accepted_for_a_float() -> None:
    rclpy.init(args=["--ros-args", "-p", "annotated_rate:=3"])
    node = Node("parameters_test")
    try:
        assert Holder(node).parameters.settings.node.annotated_rate == 3.0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def test_a_misspelt_name_at_start_is_reported_with_the_nearest_one() -> None:
    known = {name for name, _, _ in declarations()}
    given = {"identity.target_false_acept_rate", "rotate", "qos_overrides./image.subscription.depth"}
    (text,) = unknown_overrides(given, known)
    assert "'identity.target_false_acept_rate'" in text
    assert "did you mean identity.target_false_accept_rate?" in text


def test_one_sided_bounds_are_described_in_words(node) -> None:
    declared = Parameter(2.0, "something in metres", minimum=1.0)
    assert bounds(declared) == "at least 1"
    assert describe(declared).additional_constraints == "at least 1"
    with pytest.raises(ConfigurationError, match="at least 1"):
        declare(node, [("too_small", declared, 0.5)])

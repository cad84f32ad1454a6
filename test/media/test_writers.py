"""Files of what was seen: private, whole or not at all, and what Foxglove and ROS read from them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_recognition_node.common.errors import SourceError
from face_recognition_node.media.bag_writer import ANNOTATIONS, FACES, IMAGES, BagWriter
from face_recognition_node.media.face_fields import FLATNESS, SOURCES, STATES
from face_recognition_node.media.sources import open_source
from face_recognition_node.media.writer import VideoWriter
from face_recognition_node.vision.faces import (
    Candidate,
    Detection,
    FaceQuality,
    FaceView,
    Frame,
    HeadPose,
    IdentifiedFace,
    Identity,
    IdentityState,
    Position,
    RecognitionResult,
)

ENDINGS = ["mp4", "mkv", "avi", "png"]
SLOW = pytest.mark.slow


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8)


def write_noise(path: Path, n: int) -> None:
    if path.suffix == ".mcap":
        with BagWriter(path) as bag:
            for number in range(n):
                result = RecognitionResult(number / 10, "camera", (320, 240), (), 0)
                bag.write(Frame(noise(number), number / 10), result)
    else:
        with VideoWriter(path, 10) as video:
            for number in range(n):
                video.write(noise(number))


@pytest.mark.parametrize("ending", [*ENDINGS, "mcap"])
def test_files_with_faces_are_private_whatever_the_umask(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"seen.{ending}"
    path.touch(0o666)
    before = os.umask(0)
    try:
        write_noise(path, 3)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "ending", [e if e in ("avi", "mcap") else pytest.param(e, marks=SLOW) for e in (*ENDINGS, "mcap")]
)
@pytest.mark.slow
def test_a_full_disk_replaces_nothing_and_is_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"seen.{ending}"
    path.write_bytes(b"of an earlier run")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    script = (
        "import sys; from pathlib import Path; from test_writers import write_noise\n"
        "try: write_noise(Path(sys.argv[1]), 40)\n"
        "except Exception as error: print(type(error).__name__, error); sys.exit(3)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, preexec_fn=limit, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "full" in done.stdout or "too large" in done.stdout
    assert path.read_bytes() == b"of an earlier run"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_error_while_writing_leaves_the_older_bag(tmp_path: Path) -> None:
    path = tmp_path / "seen.mcap"
    path.write_bytes(b"of an earlier run")
    with pytest.raises(ZeroDivisionError), BagWriter(path):
        raise ZeroDivisionError
    assert path.read_bytes() == b"of an earlier run"
    with BagWriter(path):
        pass  # no frame, no file
    assert path.read_bytes() == b"of an earlier run"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with pytest.raises(SourceError, match=r"ending in \.mcap"):
        BagWriter(tmp_path / "seen.db3")


def faces() -> tuple[IdentifiedFace, ...]:
    """Return two faces, one of a known person with all that can be known, one undecided."""

    def view(left: float) -> FaceView:
        points = np.array([[10, 20], [30, 20], [20, 30], [12, 40], [28, 40]], np.float32) + left
        box = np.array([left, 10, left + 40, 60], np.float32)
        return FaceView(Detection(box, 0.9, points), 3.5, FaceQuality(*[0.5] * 6), HeadPose(4, 5, 6))

    runner_up = Candidate("p-2", "Ben", 0.04)
    known = Identity(IdentityState.KNOWN, "p-1", "Renée", 0.95, runner_up, 0.7, 0.25)
    position = Position(np.array([0.1, 0.2, 1.5], np.float32), np.eye(3, dtype=np.float32), "size")
    return (
        IdentifiedFace(7, view(20), known, position, "solid"),
        IdentifiedFace(9, view(120), Identity()),
    )


def written(tmp_path: Path) -> tuple[RecognitionResult, dict[str, tuple[int, Any]]]:
    """Return a result, and what a bag of it holds: topic → time of recording and serialized message."""
    result = RecognitionResult(1_700_000_000.25, "camera_optical", (320, 240), faces(), 5)
    with BagWriter(tmp_path / "seen.mcap") as bag:
        bag.write(Frame(noise(1), result.stamp, "camera_optical"), result)
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    with rosbag2.Reader(tmp_path / "seen.mcap") as reader:
        return result, {each.topic: (at, data) for each, at, data in reader.messages()}


def test_the_node_would_have_published_the_same(tmp_path: Path) -> None:
    pytest.importorskip("built_interfaces")
    from rclpy.serialization import deserialize_message, serialize_message
    from std_msgs.msg import Header

    from face_recognition_interfaces.msg import FaceArray
    from face_recognition_node.ros.messages import seconds_to_stamp, to_face_array

    result, messages = written(tmp_path)
    read = deserialize_message(messages[FACES][1], FaceArray)
    header = Header(stamp=seconds_to_stamp(result.stamp), frame_id="camera_optical")
    published = deserialize_message(serialize_message(to_face_array(result, header)), FaceArray)
    assert str(read) == str(published)


def test_states_sources_and_flatness_have_the_numbers_of_the_message() -> None:
    pytest.importorskip("built_interfaces")
    from face_recognition_interfaces.msg import Face

    assert {state.name: number for state, number in STATES.items()} == {
        name: getattr(Face, name) for name in ("UNDECIDED", "STRANGER", "KNOWN")
    }
    assert SOURCES == {"depth": Face.FROM_DEPTH, "size": Face.FROM_SIZE}
    assert FLATNESS == {"unverified": Face.UNVERIFIED, "solid": Face.SOLID, "flat": Face.FLAT}


def test_foxglove_finds_boxes_and_labels_at_the_stamp_of_the_image(tmp_path: Path) -> None:
    anyreader = pytest.importorskip("rosbags.highlevel")
    written(tmp_path)
    with anyreader.AnyReader([tmp_path / "seen.mcap"]) as reader:  # by the definitions in the file
        read = {each.topic: reader.deserialize(data, each.msgtype) for each, _, data in reader.messages()}
        types = {each.topic: each.msgtype for each in reader.connections}
    assert types[ANNOTATIONS] == "foxglove_msgs/msg/ImageAnnotations", "Foxglove knows it by this name"
    drawn, stamp = read[ANNOTATIONS], read[IMAGES].header.stamp
    assert (stamp.sec, stamp.nanosec) == (1_700_000_000, 250_000_000)
    assert {(each.timestamp.sec, each.timestamp.nanosec) for each in (*drawn.points, *drawn.texts)} == {
        (stamp.sec, stamp.nanosec)
    }
    loops = [each for each in drawn.points if each.type == each.LINE_LOOP]
    assert [(point.x, point.y) for point in loops[0].points] == [(20, 10), (60, 10), (60, 60), (20, 60)]
    assert [len(each.points) for each in drawn.points if each.type == each.POINTS] == [5, 5]
    assert [each.text for each in drawn.texts] == ["Renée  95 %", "9"]
    assert next(iter(open_source(str(tmp_path / "seen.mcap")))).image_bgr.shape == (240, 320, 3)


PUBLISHED = {
    "Color": {"r": "float64", "g": "float64", "b": "float64", "a": "float64"},
    "Point2": {"x": "float64", "y": "float64"},
    "CircleAnnotation": {
        "timestamp": "time", "position": "Point2", "diameter": "float64", "thickness": "float64",
        "fill_color": "Color", "outline_color": "Color",
    },
    "PointsAnnotation": {
        "timestamp": "time", "type": "uint8", "points": "Point2[]", "outline_color": "Color",
        "outline_colors": "Color[]", "fill_color": "Color", "thickness": "float64",
    },
    "TextAnnotation": {
        "timestamp": "time", "position": "Point2", "text": "string", "font_size": "float64",
        "text_color": "Color", "background_color": "Color",
    },
    "ImageAnnotations": {
        "circles": "CircleAnnotation[]", "points": "PointsAnnotation[]", "texts": "TextAnnotation[]",
    },
}  # fmt: skip
"""What Foxglove publishes (foxglove/foxglove-sdk on GitHub, schemas/ros2); later versions add fields only."""


def test_the_reader_of_mcap_finds_the_messages_that_foxglove_publishes(tmp_path: Path) -> None:
    """By the definitions in the file, as Foxglove reads it; checksums included."""
    reader = pytest.importorskip("mcap.reader", reason="needs mcap (requirements/test.txt)")
    decoder = pytest.importorskip("mcap_ros2.decoder", reason="needs mcap-ros2-support")
    written(tmp_path)
    with (tmp_path / "seen.mcap").open("rb") as stream:
        found = reader.make_reader(stream, validate_crcs=True, decoder_factories=[decoder.DecoderFactory()])
        messages = {
            channel.topic: (schema, message.log_time, content)
            for schema, channel, message, content in found.iter_decoded_messages()
        }
        assert found.get_header().profile == "ros2"
    assert {(schema.encoding, at) for schema, at, _ in messages.values()} == {
        ("ros2msg", 1_700_000_000_250_000_000)
    }
    schema, _, drawn = messages[ANNOTATIONS]
    assert schema.name == "foxglove_msgs/msg/ImageAnnotations"
    assert [text.text for text in drawn.texts] == ["Renée  95 %", "9"]
    own, _, others = schema.data.decode().partition("=" * 80)
    definitions = {"ImageAnnotations": own}
    for part in others.split("=" * 80):
        name, _, text = part.strip().partition("\n")
        definitions[name.rpartition("/")[2]] = text
    words = {"builtin_interfaces/Time": "time"}
    for name, fields in PUBLISHED.items():
        lines = [line.split() for line in definitions[name].splitlines() if line and "=" not in line]
        assert {field: words.get(type_, type_.rpartition("/")[2]) for type_, field in lines} == fields
    constants = {line.split()[1] for line in definitions["PointsAnnotation"].splitlines() if "=" in line}
    assert constants == {"UNKNOWN=0", "POINTS=1", "LINE_LOOP=2", "LINE_STRIP=3", "LINE_LIST=4"}

"""Bags: the same pictures, stamps and names as the recording itself; depth; and errors that tell the cure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from face_recognition_node.assembly import Pipeline
from face_recognition_node.common.errors import SourceError
from face_recognition_node.config import Config
from face_recognition_node.enrollment.session import EnrollmentGoal, EnrollmentSession
from face_recognition_node.evaluation.replay.sequences import open_sequence
from face_recognition_node.media.sources import FrameSource, open_source
from face_recognition_node.vision.faces import Frame

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="bags are read by rosbags: requirements/bags.txt")
typesys = pytest.importorskip("rosbags.typesys")

STORE = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
TYPES = STORE.types
BEGIN = 1_700_000_000_000_000_000
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, TEXT = "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
STORAGES = {"mcap": rosbag2.StoragePlugin.MCAP, "db3": rosbag2.StoragePlugin.SQLITE3}
Entry = tuple[str, str, float, Any]
"""Topic, type, time of recording after BEGIN in seconds, and the message (bytes: as they are)."""


def write_bag(
    folder: Path, entries: Iterable[Entry], storage: str = "mcap", topics: tuple[str, ...] = ()
) -> Path:
    with rosbag2.Writer(folder, version=9, storage_plugin=STORAGES[storage]) as writer:
        connections = {}
        for name in topics:
            connections[name] = writer.add_connection(name, IMAGE, typestore=STORE)
        for topic, type_, at, message in entries:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_, typestore=STORE)
            data = message if isinstance(message, bytes) else STORE.serialize_cdr(message, type_)
            writer.write(connections[topic], BEGIN + round(at * 1e9), data)
    return folder


def header(at: float, frame_id: str = "camera") -> Any:
    nanoseconds = BEGIN + round(at * 1e9)
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def raw(at: float, pixels: np.ndarray, encoding: str = "bgr8", frame_id: str = "camera") -> Any:
    height, width = pixels.shape[:2]
    return TYPES[IMAGE](
        header=header(at, frame_id), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=pixels.strides[0], data=np.ascontiguousarray(pixels).view(np.uint8).ravel(),
    )  # fmt: skip


def png(at: float, pixels: np.ndarray) -> Any:
    return TYPES[COMPRESSED](header=header(at), format="png", data=cv2.imencode(".png", pixels)[1].ravel())


def entries_of(frames: Iterable[Frame], *, is_raw: bool = True, delay: float = 0.004) -> Iterable[Entry]:
    """Yield the frames as messages that are recorded a little after their stamps."""
    for frame in frames:
        at = frame.stamp
        if is_raw:
            yield "/camera/image_raw", IMAGE, at + delay, raw(at, frame.image_bgr)
        else:
            yield "/camera/image_raw/compressed", COMPRESSED, at + delay, png(at, frame.image_bgr)


def plain(level: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def levels(source: FrameSource) -> list[int]:
    return [int(frame.image_bgr[0, 0, 0]) for frame in source]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("is_raw", [True, False])
def test_pictures_stamps_and_frame_come_from_the_messages(tmp_path: Path, storage: str, is_raw: bool) -> None:
    frames = [Frame(plain(10 * n), n / 20) for n in range(8)]
    folder = write_bag(tmp_path / "bag", entries_of(frames, is_raw=is_raw), storage)
    for place in (folder, folder / f"bag.{storage}"):
        source = open_source(str(place))
        assert (source.n_frames, source.is_live, round(source.rate_hz, 6)) == (8, False, 20)
        for _ in range(2):
            read = list(source)
            assert all(np.array_equal(a.image_bgr, b.image_bgr) for a, b in zip(read, frames, strict=True))
            assert [frame.stamp for frame in read] == pytest.approx([BEGIN / 1e9 + n / 20 for n in range(8)])
            assert {frame.frame_id for frame in read} == {"camera"}
        assert source.problems == []
        assert next(iter(source.from_zero())).stamp == 0
        assert levels(source.between(0.1, 0.2)) == [20, 30]
        assert [frame.stamp for frame in open_source(str(place), rate=2).from_zero()][:3] == [0, 0.5, 1]
    (folder / "metadata.yaml").unlink()
    assert levels(open_source(str(folder))) == [10 * n for n in range(8)], "a recorder that was killed"


@pytest.mark.parametrize(("storage", "is_raw"), [("mcap", True), ("db3", False)])
def test_a_bag_of_a_clip_gives_the_names_of_the_clip(
    clips: Path, tmp_path: Path, storage: str, is_raw: bool
) -> None:
    clip = clips / "head-pose-face-detection-female-and-male.gif"
    write_bag(tmp_path / "bag", entries_of(open_source(str(clip)), is_raw=is_raw), storage)
    woman = clips / "head-pose-face-detection-female.gif"
    write_bag(tmp_path / "woman", entries_of(open_source(str(woman)), is_raw=is_raw), storage)

    def names(enrolled: FrameSource, seen: FrameSource) -> list[list[tuple[str, str, str]]]:
        with Pipeline.open(Config(), None) as pipeline:
            session = EnrollmentSession(
                EnrollmentGoal("Woman"), pipeline.gallery, pipeline.models.calibration, Config().enrollment
            )
            for frame in enrolled:
                session.observe(pipeline.process(frame, embed_all=True))
                if session.finished:
                    break
            session.finish()
            assert session.result().person_id
            pipeline.recognizer.reset()
            results = [pipeline.process(frame) for frame in seen]
        return [
            [
                (face.identity.state.value, face.identity.name, str(face.view.detection.box_xyxy))
                for face in r.faces
            ]
            for r in results
        ]

    expected = names(open_source(str(woman)), open_source(str(clip)))
    assert any(state == "known" for frame in expected for state, _, _ in frame)
    assert names(open_source(str(tmp_path / "woman")), open_source(str(tmp_path / "bag"))) == expected
    replayed = open_sequence(tmp_path, "bag!/camera/image_raw" + ("" if is_raw else "/compressed"))
    assert [f.stamp for f in replayed] == pytest.approx([f.stamp for f in open_source(str(clip))], abs=1e-6)


def colour_and_depth(
    n: int, *, depth_delay: float, frame_id: str = "camera", size: tuple[int, int] = (24, 32)
) -> list[Entry]:
    info = TYPES[INFO](
        header=header(0), height=48, width=64, distortion_model="plumb_bob", d=np.zeros(5),
        k=np.array([60, 0, 32, 0, 60, 24, 0, 0, 1.0]), r=np.eye(3).ravel(),
        p=np.array([60, 0, 32, 0, 0, 60, 24, 0, 0, 0, 1.0, 0]), binning_x=0, binning_y=0,
        roi=TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )  # fmt: skip
    entries: list[Entry] = [("/camera/camera_info", INFO, n / 10, info)]  # once, after all images
    for number in range(n):
        at = number / 10
        millimetres = np.full(size, 1000 + number, np.uint16)
        entries.append(("/camera/image_raw", IMAGE, at, raw(at, plain(number))))
        depth = raw(at + 0.001, millimetres, "16UC1", frame_id)
        entries.append(("/camera/aligned_depth", IMAGE, at + depth_delay, depth))
    return sorted(entries, key=lambda entry: entry[2])


@pytest.mark.parametrize("depth_delay", [-0.02, 0.0, 0.15])
def test_depth_and_camera_model_go_with_their_image(tmp_path: Path, depth_delay: float) -> None:
    entries = [e for e in colour_and_depth(6, depth_delay=depth_delay) if e[2] >= 0]
    frames = list(open_source(str(write_bag(tmp_path / "bag", entries))))
    assert [int(frame.image_bgr[0, 0, 0]) for frame in frames] == list(range(6))
    for number, frame in enumerate(frames):
        assert frame.intrinsics is not None
        assert (frame.intrinsics.fx, frame.intrinsics.cx) == (30, 16), "scaled to half the size"
        if number == 0 and depth_delay < 0:
            continue  # was cut off
        assert frame.depth_m is not None
        assert frame.depth_m[0, 0] == pytest.approx(1 + number / 1000)


def test_depth_of_another_frame_or_size_is_not_used(tmp_path: Path) -> None:
    other = write_bag(tmp_path / "a", colour_and_depth(3, depth_delay=0, frame_id="infrared"))
    source = open_source(str(other))
    assert [frame.depth_m for frame in source] == [None] * 3
    assert source.problems == []
    source = open_source(str(write_bag(tmp_path / "b", colour_and_depth(3, depth_delay=0, size=(12, 16)))))
    assert [frame.depth_m for frame in source] == [None] * 3
    assert len(source.problems) == 1
    assert "expected 32x24 like the image, got 16x12" in source.problems[0]


def test_a_broken_message_costs_one_image(tmp_path: Path) -> None:
    entries = list(entries_of(Frame(plain(n), n / 10) for n in range(5)))
    broken = raw(0.1, plain(1))
    broken.data = broken.data[:-5]
    entries[1] = (*entries[1][:3], broken)
    entries[3] = (*entries[3][:3], b"\0\1\0\0 no message")
    source = open_source(str(write_bag(tmp_path / "bag", entries)))
    assert levels(source) == [0, 2, 4]
    assert len(source.problems) == 2
    assert "expected 2304 bytes" in source.problems[0]
    assert "no message" in source.problems[1]


def test_what_is_damaged_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (12, 200, 200, 3), np.uint8)
    folder = write_bag(tmp_path / "bag", entries_of(Frame(image, n / 10) for n, image in enumerate(noise)))
    data = bytearray((folder / "bag.mcap").read_bytes())
    data[10 * noise[0].size : 11 * noise[0].size] = b"\xff" * noise[0].size  # a damaged block of the disk
    (folder / "bag.mcap").write_bytes(data)
    source = open_source(str(folder))
    assert len(list(source)) == 9, "the chunks before it"
    assert len(source.problems) == 1
    assert "breaks off" in source.problems[0]


def text(at: float) -> Entry:
    return "/chatter", TEXT, at, TYPES[TEXT](data="hello")


def cut(folder: Path, share: float, storage: str = "mcap") -> None:
    path = folder / f"{folder.name}.{storage}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def spoil_metadata(folder: Path) -> None:
    (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: {")


def image_on(topic: str) -> Entry:
    return topic, IMAGE, 0.0, raw(0.0, plain(1))


@pytest.mark.parametrize(
    ("make", "topic", "expected"),
    [
        (lambda f: cut(write_bag(f, [image_on("/a")]), 0.7), "", "mcap recover"),
        (lambda f: cut(write_bag(f, [image_on("/a")]), 0), "", "empty.*reindex"),
        (lambda f: cut(write_bag(f, [image_on("/a")], "db3"), 0, "db3"), "", "cannot be read as a ROS 2 bag"),
        (lambda f: cut(write_bag(f, [image_on("/a")], "db3"), 0.5, "db3"), "", "malformed"),
        (lambda f: write_bag(f, [], topics=("/a",)), "", "found none; its topics: /a"),
        (lambda f: write_bag(f, [], topics=("/a",)), "/a", "got none that can be read"),
        (lambda f: write_bag(f, [text(0)]), "", r"its topics: /chatter \(std_msgs.*ros2 bag record"),
        (lambda f: write_bag(f, [image_on("/a"), image_on("/b")]), "", "choose one by --topic: /a, /b"),
        (lambda f: write_bag(f, [image_on("/a"), text(0)]), "chatter", "expected Image or"),
        (lambda f: write_bag(f, [image_on("/a")]), "/b", "no topic /b; recorded are: /a"),
        (lambda f: (f.mkdir(), (f / "a.mcap").touch(), (f / "b.mcap").touch()), "", "ros2 bag reindex"),
        (lambda f: (f.mkdir(), spoil_metadata(f)), "", "YAML"),
        (lambda f: (f.mkdir(), cv2.imwrite(str(f / "a.png"), plain(1))), "/a", "expected a ROS 2 bag"),
    ],
)  # fmt: skip
def test_what_is_no_bag_with_images_names_the_cure(
    tmp_path: Path, make: Callable[[Path], object], topic: str, expected: str
) -> None:
    make(tmp_path / "bag")
    with pytest.raises(SourceError, match=expected) as caught:
        open_source(str(tmp_path / "bag"), topic=topic)
    assert "\n" not in str(caught.value)


def test_types_that_nobody_knows_do_not_matter(tmp_path: Path) -> None:
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    store.register(typesys.get_types_from_msg("float32 level", "battery_msgs/msg/Battery"))
    folder = tmp_path / "bag"
    with rosbag2.Writer(folder, version=9, storage_plugin=STORAGES["mcap"]) as writer:
        battery = writer.add_connection("/battery", "battery_msgs/msg/Battery", typestore=store)
        writer.write(
            battery,
            BEGIN,
            store.serialize_cdr(store.types["battery_msgs/msg/Battery"](0.5), "battery_msgs/msg/Battery"),
        )
        image = writer.add_connection("/a", IMAGE, typestore=STORE)
        writer.write(image, BEGIN, STORE.serialize_cdr(raw(0, plain(7)), IMAGE))
    assert levels(open_source(str(folder))) == [7]


def test_the_raw_pictures_are_preferred_to_the_same_compressed(tmp_path: Path) -> None:
    both = [image_on("/camera/image"), ("/camera/image/compressed", COMPRESSED, 0.0, png(0.0, plain(9)))]
    folder = write_bag(tmp_path / "bag", both)
    assert levels(open_source(str(folder))) == [1]
    assert levels(open_source(str(folder), topic="/camera/image/compressed")) == [9]


def test_other_files_and_a_missing_library_name_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(SourceError, match="rosbags-convert"):
        open_source(str(tmp_path / "old.bag"))
    write_bag(tmp_path / "bag", [image_on("/a")])
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(SourceError, match="pip install rosbags"):
        open_source(str(tmp_path / "bag"))

"""Images of a rosbag2 recording as frames, with the depth and the camera model recorded beside them.

Needs no ROS: ``rosbags`` reads both storages (mcap and sqlite3), and the few message types that matter here
are the same in every ROS 2 distribution. Messages of other types are never looked at.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face_recognition_node.common.errors import FaceRecognitionError, FrameError, SourceError
from face_recognition_node.media.pixels import camera_intrinsics, depth_to_metres, image_to_bgr
from face_recognition_node.vision.faces import FloatArray, Frame, Intrinsics

STORAGES = (".mcap", ".db3")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_DEPTH_ENCODINGS = ("16UC1", "32FC1")
_DEPTH_TOLERANCE_S = 0.05  # largest difference of stamps between an image and its depth
_DEPTH_DELAY_S = 0.2  # how much later than its image a depth image may have been recorded
_FALLBACK_RATE_HZ = 30.0


def is_bag(path: Path) -> bool:
    """Return whether a file or folder is a rosbag2 recording, or a bag of ROS 1 (refused later)."""
    if path.is_dir():
        return _has_metadata(path) or bool(_storages(path))
    return path.suffix.lower() in (*STORAGES, ".bag")


def _has_metadata(folder: Path) -> bool:
    try:
        with (folder / "metadata.yaml").open("rb") as stream:
            return b"rosbag2_bagfile_information" in stream.read(1000)
    except OSError:
        return False


def _storages(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix in STORAGES and entry.is_file())


@dataclass(frozen=True)
class Bag:
    """One stream of images of a recording."""

    path: Path  # storage file, or folder with metadata.yaml
    topic: str  # of the images
    depth_topic: str  # of depth images registered to them, or empty
    info_topic: str  # of their CameraInfo, or empty
    n_images: int  # messages on topic
    rate_hz: float
    begin: float  # stamp of the first image, seconds

    def frames(self, problems: list[str]) -> Iterator[Frame]:
        """Yield the images in the order in which they were recorded, with the stamps of their headers.

        ``problems`` gets a sentence for each message that cannot be used, and one where the bag breaks off.

        Raises:
            SourceError: If the bag cannot be opened any more.
        """
        waiting: deque[tuple[int, float, Any]] = deque()
        depths: deque[tuple[float, Any]] = deque(maxlen=30)
        camera: Any = None
        with _opened(self.path) as recording:
            if self.info_topic:  # some drivers send it once, late
                camera = recording.first(self.info_topic)
            topics = [name for name in (self.topic, self.depth_topic, self.info_topic) if name]
            for topic, recorded, message in recording.messages(topics, problems):
                if topic == self.info_topic:
                    camera = message
                elif topic == self.depth_topic:
                    depths.append((_stamp(message, recorded), message))
                else:
                    waiting.append((recorded, _stamp(message, recorded), message))
                while waiting and self._has_its_depth(waiting[0], depths, recorded):
                    yield from self._frame(*waiting.popleft()[1:], depths, camera, problems)
            for _, stamp, message in waiting:
                yield from self._frame(stamp, message, depths, camera, problems)

    def _has_its_depth(
        self, image: tuple[int, float, Any], depths: deque[tuple[float, Any]], recorded: int
    ) -> bool:
        """Return whether there is nothing better to wait for."""
        if not self.depth_topic or recorded - image[0] > _DEPTH_DELAY_S * 1e9:
            return True
        return any(stamp >= image[1] - 1e-6 for stamp, _ in depths)

    def _frame(
        self, stamp: float, message: Any, depths: deque[tuple[float, Any]], camera: Any, problems: list[str]
    ) -> Iterator[Frame]:
        """Yield one frame, or none and a problem; without depth where that is bad."""
        where = f"{self.topic} at {stamp:.3f} s"
        try:
            image = image_to_bgr(message)
        except FaceRecognitionError as error:
            problems.append(f"{where}: {error}")
            return
        size = (image.shape[0], image.shape[1])
        depth: FloatArray | None = None
        intrinsics: Intrinsics | None = None
        nearest = min(depths, key=lambda item: abs(item[0] - stamp), default=None)
        try:
            if camera is not None:
                intrinsics = camera_intrinsics(camera, size)
            if nearest is not None and abs(nearest[0] - stamp) <= _DEPTH_TOLERANCE_S:
                depth = depth_to_metres(nearest[1])
        except FrameError as error:
            _note_once(problems, str(error), where)
        if depth is not None and depth.shape != size:
            got = f"{depth.shape[1]}x{depth.shape[0]}"
            _note_once(
                problems, f"depth image: expected {size[1]}x{size[0]} like the image, got {got}", where
            )
            depth = None
        yield Frame(image, stamp, message.header.frame_id, depth, intrinsics)


def _note_once(problems: list[str], text: str, where: str) -> None:
    """Add what is wrong with every frame for the first one only."""
    if not any(problem.endswith(text) for problem in problems):
        problems.append(f"{where}: {text}")


def open_bag(path: Path, topic: str = "") -> Bag:
    """Look into a recording, a storage file or a folder, and choose what to read; no topic: the only one.

    Raises:
        SourceError: If it is no readable bag, holds no images, or images on several topics and none is named.
    """
    if path.suffix.lower() == ".bag":
        raise SourceError(
            f"{path}: this is a bag of ROS 1; convert it first: rosbags-convert --src IN.bag --dst OUT"
        )
    if path.is_dir() and not _has_metadata(path):
        storages = _storages(path)
        if len(storages) > 1:
            raise SourceError(
                f"{path}: expected a metadata.yaml beside {len(storages)} storage files; write it anew: "
                f"ros2 bag reindex {path}"
            )
        path = storages[0]
    with _opened(path) as recording:
        first = {
            name: message
            for name, type_ in recording.types.items()
            if type_ in IMAGE_TYPES and (message := recording.first(name)) is not None
        }
        chosen = _choose_topic(path, topic, recording, first)
        count = recording.counts[chosen]
        depth = next(
            (
                name
                for name in sorted(first, key=lambda name: "aligned" not in name)
                if name != chosen
                and _is_depth(name, first[name])
                and hasattr(first[name], "encoding")
                and first[name].header.frame_id == first[chosen].header.frame_id
            ),
            "",
        )
        info = f"{chosen.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
        has_info = recording.types.get(info) == CAMERA_INFO
        rate_hz = (count - 1) / recording.seconds if count > 1 and recording.seconds > 0 else 0.0
        return Bag(
            path,
            chosen,
            depth,
            info if has_info else "",
            count,
            rate_hz if 0.1 < rate_hz < 1000 else _FALLBACK_RATE_HZ,
            _stamp(first[chosen], recording.begin),
        )


def _choose_topic(path: Path, wanted: str, recording: _Recording, first: dict[str, Any]) -> str:
    listed = ", ".join(f"{name} ({type_})" for name, type_ in sorted(recording.types.items())) or "none"
    if wanted:
        name = wanted if wanted.startswith("/") else f"/{wanted}"
        if name not in recording.types:
            raise SourceError(f"{path}: no topic {name}; recorded are: {listed}")
        if recording.types[name] not in IMAGE_TYPES:
            raise SourceError(
                f"{path}: {name}: expected Image or CompressedImage, got {recording.types[name]}"
            )
        if name not in first:
            raise SourceError(f"{path}: {name}: expected images, got none that can be read; record it again")
        return name
    names = [name for name, message in first.items() if not _is_depth(name, message)]
    # the same pictures twice: image_transport's compressed ones beside the raw ones
    names = [name for name in names if name.removesuffix("/compressed") not in set(names) - {name}]
    if len(names) == 1:
        return names[0]
    if names:
        raise SourceError(
            f"{path}: images on several topics; choose one by --topic: {', '.join(sorted(names))}"
        )
    raise SourceError(
        f"{path}: expected images (sensor_msgs Image or CompressedImage), found none; its topics: {listed}; "
        "record them: ros2 bag record /camera/image_raw"
    )


def _is_depth(topic: str, message: Any) -> bool:
    return topic.endswith("/compressedDepth") or getattr(message, "encoding", "") in _DEPTH_ENCODINGS


def _stamp(message: Any, recorded: int) -> float:
    """Return the stamp of the header, or the time of recording (nanoseconds) where the driver set none."""
    stamp = message.header.stamp
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9 or recorded * 1e-9


class _Recording:
    """An open bag: its topics, and messages of those types that are known here."""

    def __init__(self, reader: Any, read: Callable[[bytes, str], Any], path: Path) -> None:
        self._reader, self._read, self._path = reader, read, path
        self.types = {each.topic: str(each.msgtype) for each in reader.connections}
        self.counts: dict[str, int] = {}
        for each in reader.connections:
            self.counts[each.topic] = self.counts.get(each.topic, 0) + each.msgcount
        self.begin = int(reader.start_time)
        self.seconds = max(0, reader.duration - 1) * 1e-9

    def messages(self, topics: list[str], problems: list[str]) -> Iterator[tuple[str, int, Any]]:
        """Yield topic, time of recording in nanoseconds, and message; what is broken becomes a problem."""
        wanted = [each for each in self._reader.connections if each.topic in topics]
        stream = iter(self._reader.messages(connections=wanted)) if wanted else iter(())
        while True:
            try:
                connection, recorded, data = next(stream)
            except StopIteration:
                return
            except Exception as error:  # the storages fail in many ways on a torn file
                problems.append(f"{self._path}: breaks off ({_words(error)})")
                return
            try:
                message = self._read(data, connection.msgtype)
            except Exception as error:  # so does a torn message
                problems.append(
                    f"{connection.topic} at {recorded * 1e-9:.3f} s: no message ({_words(error)})"
                )
                continue
            yield connection.topic, recorded, message

    def first(self, topic: str) -> Any:
        """Return the first message of a topic that can be read, or None."""
        with contextlib.closing(self.messages([topic], [])) as stream:  # type: ignore[type-var]
            return next((message for _, _, message in stream), None)


def bag_library(path: Path) -> tuple[Any, Any]:
    """Return ``rosbags.rosbag2`` and ``rosbags.typesys``, or raise SourceError with the cure."""
    try:
        from rosbags import rosbag2, typesys
    except ImportError as error:
        raise SourceError(
            f"{path}: bags need the Python library rosbags; cure: python3 -m pip install rosbags "
            "(requirements/bags.txt of the source tree, ./run setup bags)"
        ) from error
    return rosbag2, typesys


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Recording]:
    """Open a storage file or a folder with ``metadata.yaml``."""
    rosbag2, typesys = bag_library(path)
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(rosbag2.Reader(path))
            store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
            recording = _Recording(reader, store.deserialize_cdr, path)
        except Exception as error:  # the library's own errors, and those of what it is built on
            raise SourceError(
                f"{path}: cannot be read as a ROS 2 bag ({_words(error)}); if the recorder was killed: "
                "ros2 bag reindex FOLDER, or for mcap: mcap recover IN.mcap -o OUT.mcap"
            ) from error
        yield recording


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]

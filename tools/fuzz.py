"""Send hostile messages to the real node over DDS, and look whether it lives and answers the next good image.

    ./run exec python tools/fuzz.py 20000 [--minutes 10] [--seed 1] [--json [FILE]]

Images, compressed images, depth, camera infos, service calls and imports, made by a seed: wrong sizes, steps
and encodings, torn and mutated files, decompression bombs, stamps and names of every sort. After every
hundred messages one good image is sent, once, and has to be answered. Exit code 1: the node died or did not.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from command import run_tool

from face_recognition_node.cli.options import add_json_option, add_progress, report
from face_recognition_node.cli.processes import ChildError, Children, isolated_environment
from face_recognition_node.common.progress import progress_bar

NODE = "/face_recognition"
EVERY = 100  # messages between two good images
PATIENCE_S = 20.0
PAUSE_S = 0.002
ENCODINGS = (
    "rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "bayer_rggb8", "bayer_gbrg16", "yuv422",
    "yuv422_yuy2", "nv12", "nv21", "16UC1", "32FC1", "8UC7", "", "bgr7", "\u202e8", "x" * 5000,
)  # fmt: skip
NAMES = ("", " ", "Anna", "\u200d", "\x00", "../../etc", "'; DROP TABLE persons; --", "\U0001f600" * 99,
         "A" * 100_000, "stranger-1", "p-000000000000", "nan", "\n", "<script>")  # fmt: skip


@dataclass
class Tally:
    """What was sent and what came of it."""

    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    recoveries: int = 0
    unanswered: int = 0
    slowest_recovery_s: float = 0.0
    received: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def hostile_image(rng: random.Random, message: Any) -> Any:
    """Fill a sensor_msgs/Image with what no camera sends."""
    message.encoding = rng.choice(ENCODINGS)
    width, height = (rng.choice((0, 1, 3, 7, 64, 65, 640, 2**16, 2**31, 2**32 - 1)) for _ in range(2))
    message.width, message.height = width, height
    message.step = rng.choice((0, 1, width, 2 * width, 3 * width + 5, 2**32 - 1)) % 2**32
    message.is_bigendian = rng.choice((0, 1, 255))
    fits = width * height * 3 if width * height < 50_000 and rng.random() < 0.4 else rng.randrange(5000)
    message.data = rng.randbytes(fits)
    if rng.random() < 0.3 and fits == width * height * 3:
        message.step = 3 * width
    return _hostile_header(rng, message)


def _hostile_header(rng: random.Random, message: Any) -> Any:
    message.header.frame_id = rng.choice(("camera", "", "\n", "f" * 10_000))
    message.header.stamp.sec = rng.choice((0, -1, -(2**31), 2**31 - 1, int(time.time())))
    message.header.stamp.nanosec = rng.choice((0, 999_999_999, 2**32 - 1))
    return message


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that claims to be so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return a file with some bytes changed, cut off or put in."""
    copy = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        copy[rng.randrange(len(copy))] = rng.randrange(256)
    how = rng.random()
    if how < 0.3:
        return bytes(copy[: rng.randrange(len(copy))])
    if how < 0.4:
        at = rng.randrange(len(copy))
        return bytes(copy[:at]) + rng.randbytes(500) + bytes(copy[at:])
    return bytes(copy)


def hostile_file(rng: random.Random, pictures: list[bytes]) -> bytes:
    """Return an encoded picture that is none, or one that should not be decoded."""
    how = rng.random()
    if how < 0.7:
        return mutated(rng, rng.choice(pictures))
    if how < 0.85:
        return bomb(*(rng.choice((0, 1, 40_000, 2**31 - 1)) for _ in range(2)))
    return rng.randbytes(rng.randrange(3000))


def hostile_value(rng: random.Random, kind: str, folder: Path) -> Any:
    """Return something for a field of a request."""
    if kind.startswith("sequence<string"):
        return [rng.choice(NAMES) for _ in range(rng.choice((0, 1, 50)))]
    if kind.startswith("sequence<int64"):
        return [rng.choice((-1, 0, 1, 2**62)) for _ in range(rng.choice((0, 1, 50)))]
    if kind == "string":
        path = folder / rng.choice(("a", "b", "pipe", "gallery.db", "export.db"))
        return rng.choice((*NAMES, str(folder), str(path)))
    if kind == "boolean":
        return rng.random() < 0.5
    return rng.choice((0, 1, 2, 255)) if kind.startswith(("int", "uint")) else None


class Fuzzer:
    """The client beside the node.

    Args:
        remote: Our own ROS node.
        children: To look whether the node lives.
        folder: For files to import.
        seed: Of all that is made.
    """

    def __init__(self, remote: Any, children: Children, folder: Path, seed: int) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        from face_recognition_interfaces.msg import FaceArray
        from face_recognition_node.media.sample import sample_frame

        self.remote, self.children, self.folder = remote, children, folder
        self.rng, self.tally = random.Random(seed), Tally()
        self.types = {"image": Image, "compressed": CompressedImage, "info": CameraInfo}
        topics = {
            "raw": (Image, "/image"),
            "compressed": (CompressedImage, "/image/compressed"),
            "depth": (Image, "/depth"),
            "info": (CameraInfo, "/info"),
        }
        self.publishers = {name: remote.node.create_publisher(*topic, 10) for name, topic in topics.items()}
        self.answers: set[str] = set()
        self.picture = cv2.resize(sample_frame(size=(320, 240), faces=2), (160, 120))
        self.pictures = [
            cv2.imencode(ending, self.picture)[1].tobytes() for ending in (".jpg", ".png", ".webp", ".bmp")
        ]
        self.export = b""
        self._serial = 0
        self._n_diagnostics = 0
        # last: from here on their callbacks run on the executor's thread
        remote.node.create_subscription(FaceArray, f"{NODE}/faces", self._on_faces, 50)
        remote.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_faces(self, message: Any) -> None:
        self.answers.add(message.header.frame_id)

    def _on_diagnostics(self, message: Any) -> None:
        self._n_diagnostics += 1
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        self.tally.received = max(self.tally.received, int(values.get("received", 0)))
        self.tally.bad = {
            key.removeprefix("bad images, "): int(value)
            for key, value in values.items()
            if key.startswith("bad images, ")
        }

    def wait_for_diagnostics(self) -> None:
        """Wait until the node has reported everything sent so far; a report may already be under way."""
        wanted = self._n_diagnostics + 2
        self.remote.wait_until(lambda: self._n_diagnostics >= wanted, 60.0, "the node's diagnostics")

    def good(self, transport: str) -> Any:
        """Return a good image with a frame_id of its own."""
        from std_msgs.msg import Header

        from face_recognition_node.ros.messages import bgr_to_image, bgr_to_jpeg

        self._serial += 1
        header = Header(frame_id=f"good {self._serial}", stamp=self.remote.node.get_clock().now().to_msg())
        make = bgr_to_image if transport == "raw" else bgr_to_jpeg
        return make(self.picture, header)

    def recover(self, transport: str) -> None:
        """Send one good image and wait for its answer."""
        message = self.good(transport)
        started = time.monotonic()
        self.publishers[transport].publish(message)
        while message.header.frame_id not in self.answers:
            self.children.check()
            if time.monotonic() - started > PATIENCE_S:
                self.tally.unanswered += 1
                return
            time.sleep(0.002)
        self.tally.recoveries += 1
        self.tally.slowest_recovery_s = max(self.tally.slowest_recovery_s, time.monotonic() - started)

    def send(self, kind: str) -> None:
        """Send one hostile message of a kind."""
        rng = self.rng
        self.tally.sent[kind] += 1
        if kind == "raw":
            self.publishers["raw"].publish(hostile_image(rng, self.types["image"]()))
        elif kind == "compressed":
            message = self.types["compressed"](format=rng.choice(("jpeg", "png", "", "\n", "x" * 1000)))
            message.data = hostile_file(rng, self.pictures)
            self.publishers["compressed"].publish(_hostile_header(rng, message))
        elif kind in ("depth", "camera info"):
            image = self.good("raw")
            image.header.frame_id = "with depth"
            if kind == "depth":
                message = hostile_image(rng, self.types["image"]())
                message.header.stamp = image.header.stamp
                self.publishers["depth"].publish(message)
            else:
                values = [rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e300, 500.0)) for _ in range(9)]
                sizes = [rng.choice((0, 160, 120, 2**32 - 1)) for _ in range(2)]
                info = self.types["info"](width=sizes[0], height=sizes[1], k=values)
                self.publishers["info"].publish(_hostile_header(rng, info))
            self.publishers["raw"].publish(image)
        else:
            self._call(kind)
            return
        time.sleep(PAUSE_S)

    def _call(self, kind: str) -> None:
        from face_recognition_interfaces.srv import ImportGallery
        from face_recognition_node.ros.messages import SERVICES

        if kind == "import":
            path = self.folder / "hostile.db"
            path.write_bytes(mutated(self.rng, self.export))
            type_, name, request = ImportGallery, "~/import_gallery", ImportGallery.Request(path=str(path))
        else:
            service = self.rng.choice(SERVICES)
            type_, name, request = service.type, service.name, service.type.Request()
            for label, form in request.get_fields_and_field_types().items():
                if label == "image":
                    hostile_image(self.rng, request.image)
                elif label == "compressed_image":
                    request.compressed_image.data = hostile_file(self.rng, self.pictures)
                elif (value := hostile_value(self.rng, form, self.folder)) is not None:
                    setattr(request, label, value)
        answer = self.remote.call(type_, name.replace("~", NODE), request, PATIENCE_S)
        if not answer.success:
            self.tally.refused[name.removeprefix("~/")] += 1


def fuzz(arguments: argparse.Namespace) -> Tally:
    """Run the node, send everything, and return what came of it."""
    os.environ.update(isolated_environment(os.environ))
    from lifecycle_msgs.msg import State
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters
    from std_msgs.msg import Header

    from face_recognition_interfaces.srv import AddFaceFromImage, ExportGallery
    from face_recognition_node.media.sample import portrait
    from face_recognition_node.ros.messages import bgr_to_jpeg
    from face_recognition_node.ros.remote import Remote

    with tempfile.TemporaryDirectory(prefix="fuzz-") as text, Children() as children:
        folder = Path(text)
        given = {"gallery_path": folder / "gallery.db", "depth_topic": "depth", "camera_info_topic": "info"}
        given |= {"qos_reliability": "reliable", "always_on": "true", "diagnostics_period": "0.5"}
        options = [part for name, value in given.items() for part in ("-p", f"{name}:={value}")]
        children.start("node", "face_recognition_node.ros.main:main", ["--log-level", "fatal", *options])
        with Remote("fuzzer", children.check) as remote:
            remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, 90.0)
            fuzzer = Fuzzer(remote, children, folder, arguments.seed)
            tally, started = fuzzer.tally, time.monotonic()
            guest = bgr_to_jpeg(portrait("guest"), Header())
            face = AddFaceFromImage.Request(name="Anna", compressed_image=guest)
            remote.call(AddFaceFromImage, f"{NODE}/add_face_from_image", face, 60.0)
            path = str(folder / "export.db")
            remote.call(ExportGallery, f"{NODE}/export_gallery", ExportGallery.Request(path=path), 60.0)
            fuzzer.export = Path(path).read_bytes()
            os.mkfifo(folder / "pipe")
            deadline = started + 60.0 * arguments.minutes
            n = arguments.messages
            first = {"raw": 80, "depth": 5, "camera info": 5, "service": 7, "import": 3}
            second = {"compressed": 95, "service": 4, "import": 1}
            n_raw = round(0.55 * n)
            phases = (("raw", n_raw, first), ("compressed", n - n_raw, second))
            try:
                with progress_bar(total=n, unit="message", shown=arguments.progress) as bar:
                    for transport, number, shares in phases:
                        if transport == "compressed":
                            _reconfigure(remote, SetParameters, Parameter, ParameterType, ParameterValue)
                        publisher = fuzzer.publishers[transport]
                        remote.wait_until(partial(_is_heard, publisher), 30.0, "the node to subscribe")
                        for k in range(number):
                            if time.monotonic() > deadline:
                                break
                            kind = fuzzer.rng.choices(list(shares), list(shares.values()))[0]
                            fuzzer.send(kind)
                            bar.update(1)
                            if k % EVERY == EVERY - 1:
                                fuzzer.recover(transport)
                fuzzer.wait_for_diagnostics()
            except ChildError as error:
                sys.stderr.write(f"{error}\n")
                tally.deaths += 1
            tally.seconds = time.monotonic() - started
    return tally


def _is_heard(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)


def _reconfigure(remote: Any, service: Any, parameter: Any, kinds: Any, value: Any) -> None:
    """Make the node read compressed images."""
    for transition in (4, 2):  # deactivate, clean up
        remote.transition(NODE, transition)
    chosen = value(type=kinds.PARAMETER_STRING, string_value="compressed")
    request = service.Request(parameters=[parameter(name="image_transport", value=chosen)])
    remote.call(service, f"{NODE}/set_parameters", request)
    remote.bring_to(NODE, 3, 90.0)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("messages", type=int, nargs="?", default=20_000, help="hostile messages (20000)")
    parser.add_argument("--minutes", type=float, default=15.0, help="end after this time (15)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is made (1)")
    add_progress(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fuzz and report."""
    tally = fuzz(arguments)
    report(describe(tally), vars(tally), arguments.json)
    return int(bool(tally.deaths or tally.unanswered or not tally.recoveries))


def describe(tally: Tally) -> str:
    """Return the result in words."""
    return "\n".join(
        [
            f"{sum(tally.sent.values())} hostile messages in {tally.seconds:.0f} s: {dict(tally.sent)}",
            f"bad images of the last activation by kind: {tally.bad}",
            f"service calls refused: {dict(tally.refused)}",
            f"deaths: {tally.deaths}",
            f"good images answered: {tally.recoveries} of {tally.recoveries + tally.unanswered}, each the "
            f"first sent; slowest {tally.slowest_recovery_s:.2f} s",
        ]
    )


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

"""``face-recognition benchmark ros``: the running node over DDS: rate, drops, latency, CPU, memory, start.

Three processes, as on a robot: a camera (the video source, playing prepared images from memory), the node,
and this one, which subscribes to the answers. Latency is the time from an image's stamp to the arrival of
its answer here.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from face_recognition_node.cli.benchmark.frames import parse_size, sway
from face_recognition_node.cli.options import add_json_option, report, split_setting
from face_recognition_node.cli.processes import Children, enter_own_network, process_usage
from face_recognition_node.common.errors import InputError

if TYPE_CHECKING:
    from face_recognition_node.ros.remote import Remote


NAMESPACE = "/face_recognition_benchmark"
NODE = f"{NAMESPACE}/face_recognition"
NODE_ENTRY = "face_recognition_node.ros.main:main"
_QUIET = ["--log-level", "error", "-r", f"__ns:={NAMESPACE}"]


def prepare_images(folder: Path, size: tuple[int, int], faces: int, empty: int = 0) -> None:
    """Write frames of a wall with portraits, a swaying camera and noise, then ``empty`` of the bare wall."""
    from face_recognition_node.media.sample import sample_frame

    folder.mkdir()
    frames = sway(sample_frame(size=size, faces=faces)) + sway(sample_frame(size=size, faces=0))[:empty]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:03d}.png"), frame)


def start_node(
    children: Children, gallery: Path, settings: Sequence[str] = (), entry: str = NODE_ENTRY
) -> subprocess.Popen[bytes]:
    """Start the recognition node with its gallery in a file and ``NAME=VALUE`` parameters."""
    given = [part for name, text in map(split_setting, settings) for part in ("-p", f"{name}:={text}")]
    return children.start("recognition node", entry, [
        *_QUIET, "-p", "autostart:=true", "-p", f"gallery_path:={gallery}", *given,
    ])  # fmt: skip


def start_camera(children: Children, images: Path, rate: float) -> None:
    """Start a camera that plays a folder of images from memory as soon as somebody subscribes."""
    children.start("video source", "face_recognition_node.ros.main:video_source", [
        *_QUIET, "-p", "autostart:=true", "-p", f"source:={images}", "-p", "preload:=true",
        "-p", f"rate:={rate}", "-p", "wait_for_subscriber:=true",
    ])  # fmt: skip


def enroll_first_face(remote: Remote) -> None:
    """Make the guest known, so that the node does what it does in a run: recognize people."""
    from std_msgs.msg import Header

    from face_recognition_interfaces.srv import AddFaceFromImage
    from face_recognition_node.media.sample import portrait
    from face_recognition_node.ros.messages import bgr_to_image

    request = AddFaceFromImage.Request(image=bgr_to_image(portrait("guest"), Header()), name="Guest")
    answer = remote.call(AddFaceFromImage, f"{NODE}/add_face_from_image", request, 30.0)
    if not answer.success:
        raise InputError(f"the guest could not be enrolled: {answer.message}")


N_CALLS = 40


@dataclass(frozen=True, slots=True)
class RosFigures:
    """What was measured."""

    size: str
    faces: int
    rate: float
    sent: int  # images sent in the measured time, by the rate
    answered: int
    answered_hz: float
    dropped: int
    headers_kept: bool  # whether every answer carried stamp and frame of an image that was sent
    faces_seen: float  # mean number of faces in an answer
    named: float  # share of answers in which the enrolled person was named
    latency_p50_ms: float  # median time from stamp to answer
    latency_p95_ms: float
    latency_max_ms: float
    calls_p95_ms: float  # 95th percentile of the time a service or parameter call takes while images stream
    calls_max_ms: float
    cpu_percent: float  # CPU time of the node, percent of one core
    resident_mb: float  # resident memory of the node at the end, MB
    start_s: float  # from the start of the process until the node says that it is active
    stages_ms: dict[str, float]  # mean time by stage, as the node tells in its diagnostics
    backends: dict[str, str]
    told_hz: str  # answers per second as the node tells in its diagnostics; empty: it does not
    cores: int
    load: float  # load average of this machine at the end, one minute

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in self.stages_ms.items())
        backends = ", ".join(f"{role}: {what}" for role, what in self.backends.items())
        lines = (
            f"{self.size} at {self.rate:g} Hz, {self.faces} faces ({self.faces_seen:.2f} seen), "
            f"{self.cores} cores, load {self.load:.1f}",
            f"  answered   {self.answered} of {self.sent}: {self.answered_hz:.2f} Hz, {self.dropped} dropped",
            f"  header     {'kept' if self.headers_kept else 'NOT KEPT'}",
            f"  named      the enrolled person in {self.named:.1%} of the answers",
            f"  latency    p50 {self.latency_p50_ms:.1f} ms, p95 {self.latency_p95_ms:.1f} ms, "
            f"longest {self.latency_max_ms:.1f} ms",
            f"  calls      p95 {self.calls_p95_ms:.1f} ms, longest {self.calls_max_ms:.1f} ms",
            f"  node       {self.cpu_percent:.0f} % of a core, {self.resident_mb:.0f} MB resident",
            f"  start      active after {self.start_s:.2f} s",
            f"  stages     {stages} (ms, mean)",
            f"  backends   {backends}",
        )
        return "\n".join(lines)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--size", default="640x480", metavar="WxH", help="image size (default: %(default)s)")
    add("--faces", type=int, default=2, help="faces in each image, 0 to 12 (default: 2)")
    add("--rate", type=float, default=30.0, help="images per second (default: 30)")
    add("--seconds", type=float, default=20.0, help="seconds to measure (default: 20)")
    add("--settle", type=float, default=3.0, help="warm-up before it (default: 3)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="node parameter; may be repeated")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; return 0, or 1 if there was no answer at all."""
    size = parse_size(arguments.size)
    enter_own_network()
    with tempfile.TemporaryDirectory(prefix="face_recognition_benchmark_") as folder:
        prepare_images(Path(folder) / "images", size, arguments.faces)
        figures = measure(arguments, Path(folder))
    report(str(figures), asdict(figures), arguments.json)
    return 0 if figures.answered else 1


def measure(arguments: argparse.Namespace, folder: Path) -> RosFigures:
    """Measure a node that sees the images of ``folder / "images"``; arguments: those of the verb."""
    from face_recognition_node.ros.remote import Remote

    with Children() as children, Remote("face_recognition_benchmark", children.check) as remote:
        began = time.monotonic()
        node = start_node(children, folder / "gallery.db", arguments.set)
        remote.wait_until(lambda: remote.state_of(NODE, 60.0) == "active", 60.0, "the node to be active")
        start_s = time.monotonic() - began
        enroll_first_face(remote)
        start_camera(children, folder / "images", arguments.rate)
        watch = _Watch(remote)
        remote.wait_until(lambda: watch.answers, 60.0, "the first answer")
        time.sleep(arguments.settle)
        return watch.measure(arguments, node.pid, start_s)


class _Watch:
    """Collects answers, and which images were sent."""

    def __init__(self, remote: Remote) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        from face_recognition_interfaces.msg import FaceArray

        self._remote = remote
        self.answers: list[tuple[float, Any]] = []
        self.diagnostics: Any = None
        remote.node.create_subscription(FaceArray, f"{NODE}/faces", self._on_faces, 100)
        remote.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_faces(self, message: Any) -> None:
        self.answers.append((time.time(), message))

    def _on_diagnostics(self, message: Any) -> None:
        self.diagnostics = message

    def measure(self, arguments: argparse.Namespace, process_id: int, start_s: float) -> RosFigures:
        from face_recognition_node.ros.messages import stamp_to_seconds

        before, began = process_usage(process_id)[0], time.time()
        time.sleep(arguments.seconds)
        after, resident = process_usage(process_id)
        length = time.time() - began
        calls = self._time_calls()  # after the measured time, which they would disturb
        measured = [
            (arrived, stamp_to_seconds(message.header.stamp), message)
            for arrived, message in list(self.answers)
        ]
        measured = [item for item in measured if began <= item[1] < began + length]
        latency = np.array([arrived - stamp for arrived, stamp, _ in measured]) * 1000
        sent = round(length * arguments.rate)
        people = [[face.name for face in message.faces] for _, _, message in measured]
        p50, p95, longest = np.percentile(latency, [50, 95, 100]) if len(latency) else (math.nan,) * 3
        values = self._diagnostic_values()
        return RosFigures(
            size=arguments.size,
            faces=arguments.faces,
            rate=arguments.rate,
            sent=sent,
            answered=len(measured),
            answered_hz=len(measured) / length,
            dropped=max(sent - len(measured), 0),
            headers_kept=_headers_kept([message for _, _, message in measured]),
            faces_seen=float(np.mean([len(names) for names in people])) if people else 0.0,
            named=float(np.mean(["Guest" in names for names in people])) if people else 0.0,
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
            latency_max_ms=float(longest),
            calls_p95_ms=float(np.percentile(calls, 95)),
            calls_max_ms=max(calls),
            cpu_percent=100 * (after - before) / length,
            resident_mb=resident / 1e6,
            start_s=start_s,
            stages_ms={
                key.split()[1]: float(value) for key, value in values.items() if key.startswith("stage ")
            },
            backends={
                key: value for key, value in values.items() if key in ("detector backend", "embedder backend")
            },
            told_hz=values.get("answered [Hz]", ""),
            cores=os.cpu_count() or 1,
            load=os.getloadavg()[0],
        )

    def _time_calls(self) -> list[float]:
        """Return how long calls of a service and changes of a parameter take, milliseconds."""
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
        from rcl_interfaces.srv import SetParameters

        from face_recognition_interfaces.srv import ListPersons

        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.01)
        parameter = Parameter(name="identity.target_false_accept_rate", value=value)
        requests = (
            (ListPersons, "list_persons", ListPersons.Request()),
            (SetParameters, "set_parameters", SetParameters.Request(parameters=[parameter])),
        )
        for type_, name, request in requests:  # the first call waits for the service to be found
            self._remote.call(type_, f"{NODE}/{name}", request)
        times = []
        for index in range(N_CALLS):
            type_, name, request = requests[index % 2]
            began = time.perf_counter()
            self._remote.call(type_, f"{NODE}/{name}", request)
            times.append(1000 * (time.perf_counter() - began))
            time.sleep(0.05)
        return times

    def _diagnostic_values(self) -> dict[str, str]:
        statuses = self.diagnostics.status if self.diagnostics is not None else []
        return {pair.key: pair.value for status in statuses for pair in status.values}


def _headers_kept(messages: Sequence[Any]) -> bool:
    """Tell whether frame ids are the camera's and no stamp comes twice or out of order."""
    stamps = [(message.header.stamp.sec, message.header.stamp.nanosec) for message in messages]
    return all(message.header.frame_id == "camera" for message in messages) and stamps == sorted(set(stamps))

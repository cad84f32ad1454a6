"""Does the node's memory grow by the frame? The networks' answers are remembered, so that many frames pass.

    ./run exec python tools/measure_growth.py [--size WxH] [--rate HZ] [--frames N] [--every N] [--pause S]

The node runs with a camera and a subscriber over DDS, as in ``benchmark_soak.py``; the answers of its
networks are computed once for each of sixty pictures and then looked up, so that an hour's frames pass in
minutes and everything else is done for each of them. After every so many answers it prints its resident
memory and by how much Python's objects have become more. ``--pause S`` holds the whole node up for S
seconds now and then, as a busy machine does.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

FIRST_PAUSE_S, PAUSE_EVERY_S = 30.0, 5.0
_NODE = "--be-the-node"


def main() -> int:
    """Start the node, a camera and a subscriber, and wait."""
    from face_recognition_node.cli.benchmark import ros as nodes
    from face_recognition_node.cli.benchmark.frames import FRAMES, parse_size
    from face_recognition_node.cli.processes import Children, enter_own_network

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="640x480", metavar="WxH")
    parser.add_argument("--rate", type=float, default=40.0, help="images per second (default: 40)")
    parser.add_argument("--frames", type=int, default=12_000, help="answers to wait for (default: 12000)")
    parser.add_argument("--every", type=int, default=1_000, help="answers between two lines (default: 1000)")
    parser.add_argument("--pause", type=float, default=0.0, metavar="S", help="hold the node up (default: 0)")
    parser.add_argument("-p", action="append", default=[], metavar="NAME:=VALUE", help="the node's parameter")
    arguments = parser.parse_args()
    enter_own_network()
    from face_recognition_interfaces.msg import FaceArray
    from face_recognition_node.ros.remote import Remote

    with tempfile.TemporaryDirectory(prefix="face_recognition_growth_") as folder:
        nodes.prepare_images(Path(folder) / "images", parse_size(arguments.size), 2, empty=FRAMES)
        given = ["autostart:=true", f"gallery_path:={folder}/gallery.db", *arguments.p]
        command = [sys.executable, __file__, _NODE, str(arguments.every), str(arguments.pause), "--ros-args"]
        command += ["--log-level", "error", "-r", f"__ns:={nodes.NAMESPACE}"]
        node = subprocess.Popen([*command, *(part for item in given for part in ("-p", item))])
        try:
            with Children() as children, Remote("face_recognition_growth", children.check) as remote:
                remote.wait_until(lambda: remote.state_of(nodes.NODE, 60.0) == "active", 60.0, "the node")
                nodes.enroll_first_face(remote)
                answers: list[None] = []
                remote.node.create_subscription(
                    FaceArray, f"{nodes.NODE}/faces", lambda _: answers.append(None), 100
                )
                nodes.start_camera(children, Path(folder) / "images", arguments.rate)
                while len(answers) < arguments.frames and node.poll() is None:
                    time.sleep(0.5)
        finally:
            node.terminate()
            node.wait()
    return 0


def be_the_node(every: int, pause: float, ros_arguments: list[str]) -> int:
    """Run the recognition node with networks that remember, and a line of figures now and then."""
    from face_recognition_node.ros import main as process
    from face_recognition_node.ros import pipeline, runtime

    load = runtime.load_models

    def load_remembering(config: Any) -> Any:
        models = load(config)
        for network in (models.detector, models.embedder):
            network.runner = _Remembering(network.runner)
        return models

    runtime.load_models = load_remembering
    handle, numbers, counted = pipeline.FramePipeline.handle, itertools.count(), [0]

    def counting(self: pipeline.FramePipeline, packet: pipeline.Packet) -> None:
        handle(self, packet)
        number = next(numbers)
        if number % every == 0:
            gc.collect()
            before, counted[0] = counted[0], len(gc.get_objects())
            print(f"{number:8d} answers: {_memory()}, objects {counted[0] - before:+d}", flush=True)

    pipeline.FramePipeline.handle = counting  # type: ignore[method-assign]  # only here, to look inside
    if pause:
        threading.Thread(target=_hold_up, args=(pause,), daemon=True).start()
    return process.main(ros_arguments)


class _Remembering:
    """A network that computes each answer once; told apart by a patch of the picture."""

    def __init__(self, runner: Any) -> None:
        self._runner, self._answers = runner, dict[Any, Any]()
        self.report = runner.report

    def run(self, images_bgr: Any) -> Any:
        """Return the outputs of one batch."""
        height, width = images_bgr.shape[1:3]
        patch = images_bgr[:, height // 2 : height // 2 + 8, width // 4 : 3 * width // 4]
        key = (images_bgr.shape, patch.tobytes())
        if key not in self._answers:
            self._answers[key] = tuple(np.array(output) for output in self._runner.run(images_bgr))
        return self._answers[key]


def _memory() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return ", ".join(f"{name} {fields[name].split()[0]} kB" for name in ("VmRSS", "RssAnon", "RssShmem"))


def _hold_up(seconds: float) -> None:
    """Keep Python's lock now and then: no thread of the node goes on, but the middleware's do."""
    sleep = ctypes.PyDLL(None).usleep
    time.sleep(FIRST_PAUSE_S)
    while True:
        print(f"before a pause: {_memory()}", flush=True)
        sleep(int(1e6 * seconds))
        time.sleep(PAUSE_EVERY_S)


if __name__ == "__main__":
    if sys.argv[1:2] == [_NODE]:
        sys.exit(be_the_node(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
    sys.exit(main())

"""``face-recognition benchmark pipeline``: from image to identity without ROS, beside the networks.

The first row is the whole pipeline once everybody in view is certain (faces are then embedded every few
frames only); then the pipeline embedding every face of every frame; then the first one again, searching every
n-th frame only and following the faces in between; then the bare networks on the same pictures: one detector
call and one embedder call for all faces.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from face_recognition_node.cli.benchmark.frames import (
    FRAMES,
    add_benchmark_options,
    let_engine_be_built,
    parse_size,
    swaying_frames,
)
from face_recognition_node.cli.options import report
from face_recognition_node.common.errors import InputError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.vision.faces import Frame, ImageArray, RecognitionResult

if TYPE_CHECKING:
    from face_recognition_node.assembly import Models
    from face_recognition_node.config import Config
    from face_recognition_node.evaluation.timing import Contestant, TimingTable
    from face_recognition_node.recognizer import Recognizer

RATE_HZ = 30.0
SETTLING_FRAMES = 60

_START = """
import json, time
began = time.perf_counter()
import numpy as np
from face_recognition_node.assembly import Pipeline
from face_recognition_node.config import Config
from face_recognition_node.vision.faces import Frame
from face_recognition_node.evaluation.timing import resident_mb
pipeline = Pipeline.open(Config())
loaded = time.perf_counter() - began
pipeline.process(Frame(np.zeros(({height}, {width}, 3), np.uint8), 0.0))
first = time.perf_counter() - began
print(json.dumps({{"loaded_s": loaded, "first_frame_s": first, "resident_mb": resident_mb()}}))
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    add = parser.add_argument
    add(
        "--scenes", nargs="+", default=["640x480:2", "1280x720:5"], metavar="WxH:FACES", help="size and faces"
    )
    add("--backend", default="auto", help="runtime of the networks (default %(default)s)")
    add(
        "--interval",
        type=int,
        default=3,
        metavar="N",
        help="detector.interval_frames of the row that tracks faces between detections (default %(default)s)",
    )
    add_benchmark_options(parser, rounds=60)


def run(
    arguments: argparse.Namespace,
    frames_of: Callable[[tuple[int, int], int], list[ImageArray]] = swaying_frames,
    peers: Callable[[list[ImageArray]], list[Contestant]] = lambda frames: [],
) -> int:
    """Race the pipelines in each scene, with those that ``peers`` returns.

    ``frames_of`` returns the frames of a scene of this (width, height) and number of faces; the package
    carries only two people, so with more faces some of them cannot become certain.
    """
    from face_recognition_node.assembly import load_models
    from face_recognition_node.config import Config, ModelsConfig
    from face_recognition_node.evaluation.timing import Machine, resident_mb

    cv2.setNumThreads(1)  # as in the node
    machine = Machine.here()
    config = Config(models=ModelsConfig(backend=arguments.backend, threads=arguments.threads))
    scenes = []
    for text in arguments.scenes:
        size, count = parse_scene(text)
        frames = frames_of(size, count)
        models = load_models(config)
        _let_engines_be_built(models, frames[0])
        scenes.append(_race(text, frames, models, config, arguments, peers(frames)))
    start = _measure_start(parse_scene(arguments.scenes[0])[0])
    figures = {
        "machine": dataclasses.asdict(machine),
        "start": start,
        "resident_mb_at_the_end": resident_mb(),
        "scenes": [
            {**dataclasses.asdict(table), "profile_ms": profile, **facts} for table, profile, facts in scenes
        ],
    }
    lines = [
        str(machine),
        f"start: models loaded after {start['loaded_s']:.2f} s, first frame answered after "
        f"{start['first_frame_s']:.2f} s, {start['resident_mb']:.0f} MB resident",
    ]
    for table, profile, facts in scenes:
        stages = ", ".join(f"{name} {value:.2f}" for name, value in profile.items())
        lines += ["", str(table), f"  stages of the first row, mean ms: {stages}"]
        lines.append(
            f"  faces seen {facts['faces_seen']:.2f}, of them certain {facts['certain']:.2f} a frame"
        )
    report("\n".join(lines), figures, arguments.json)
    return 0


def _let_engines_be_built(models: Models, frame: ImageArray) -> None:
    detector: Any = models.detector
    let_engine_be_built(detector, lambda one: one.detect(frame))
    let_engine_be_built(models.embedder, lambda one: one.embed(np.zeros((1, 112, 112, 3), np.uint8)))


def parse_scene(text: str) -> tuple[tuple[int, int], int]:
    """Return ((width, height), faces) of "640x480:2"."""
    size, _, faces = text.partition(":")
    if not faces.isdigit() or not 1 <= int(faces) <= 12:
        raise InputError(f"{text}: expected WxH:FACES with 1 to 12 faces")
    return parse_size(size), int(faces)


def _race(
    text: str,
    frames: list[ImageArray],
    models: Models,
    config: Config,
    arguments: argparse.Namespace,
    peers: list[Contestant],
) -> tuple[TimingTable, dict[str, float], dict[str, Any]]:
    from face_recognition_node.evaluation.timing import Contestant, race

    following = with_values(config, {"detector.interval_frames": arguments.interval})
    steady, every, sparse = (
        _Run(frames, _recognizer(frames, models, c)) for c in (config, config, following)
    )
    every.embed_all = True
    for _ in range(SETTLING_FRAMES):
        for run in (steady, every, sparse):
            run.recognize()
    recheck = config.tracker.recheck_frames  # a round is a whole cycle: a few frames embed, the others do not
    contestants = [
        Contestant("pipeline", steady.recognize, "everybody certain: re-checked now and then", recheck),
        Contestant("pipeline, every face", every.recognize, "every face in every frame"),
        Contestant(
            f"pipeline, search 1 of {arguments.interval}",
            sparse.recognize,
            "everybody certain, followed between searches",
            math.lcm(recheck, arguments.interval),
        ),
        *_networks_alone(frames, models),
        *peers,
    ]
    table = race(
        f"image to identity, {text}",
        contestants,
        arguments.rounds,
        warm_up=2,
        progress=partial(progress_bar, unit="round", shown=arguments.progress),
    )
    results = [steady.recognize() for _ in range(FRAMES)]
    stages = sorted({name for result in results for name in result.stage_seconds})
    profile = {s: 1e3 * float(np.mean([r.stage_seconds.get(s, 0.0) for r in results])) for s in stages}
    facts = {
        "faces_seen": float(np.mean([len(r.faces) for r in results])),
        "certain": float(np.mean([sum(f.identity.person_id is not None for f in r.faces) for r in results])),
        "frames_per_second": {t.name: 1e3 / t.median_ms for t in table.timings},
    }
    return table, profile, facts


class _Run:
    """A recognizer that is shown the frames in turn, as by a camera of RATE_HZ."""

    def __init__(self, frames: list[ImageArray], recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self.embed_all = False
        self._frames, self._number = frames, 0

    def recognize(self, _: int = 0) -> RecognitionResult:
        """Process the next frame."""
        self._number += 1
        frame = Frame(self._frames[self._number % FRAMES], self._number / RATE_HZ)
        return self.recognizer.process(frame, embed_all=self.embed_all)


def _recognizer(frames: list[ImageArray], models: Models, config: Config) -> Recognizer:
    """Return a recognizer whose gallery knows everybody in the frames."""
    from face_recognition_node.assembly import Pipeline
    from face_recognition_node.gallery.values import NewTemplate
    from face_recognition_node.vision.alignment import align_faces
    from face_recognition_node.vision.faces import HeadPose

    pipeline = Pipeline.open(config, models=models)
    centers: list[Any] = []
    people: list[list[NewTemplate]] = []
    for frame in frames[:: FRAMES // 3]:
        faces = models.detector.detect(frame)
        if not faces:
            raise InputError("no face was found in the benchmark's pictures")
        vectors = models.embedder.embed(align_faces(frame, [face.landmarks_xy for face in faces]))
        for face, vector in zip(faces, vectors, strict=True):
            distances = [float(np.linalg.norm(face.center_xy - center)) for center in centers]
            if not distances or min(distances) > face.size_px / 2:
                centers.append(face.center_xy)
                people.append([])
                distances.append(0.0)
            people[int(np.argmin(distances))].append(NewTemplate(vector, 1.0, HeadPose(0.0, 0.0, 0.0)))
    for number, templates in enumerate(people):
        pipeline.gallery.add_person(f"person {number + 1}", templates)
    return pipeline.recognizer


def _networks_alone(frames: list[ImageArray], models: Models) -> list[Contestant]:
    """Return the two networks' own time: no decoding, alignment, tracking or search."""
    from face_recognition_node.evaluation.timing import Contestant
    from face_recognition_node.vision.alignment import align_faces
    from face_recognition_node.vision.retinaface import RetinaFaceDetector

    detector, embedder = models.detector, models.embedder
    if not isinstance(detector, RetinaFaceDetector):
        return []
    canvases = detector.network_inputs(frames[0])
    crops = align_faces(frames[0], [face.landmarks_xy for face in detector.detect(frames[0])])

    def detect_only(_: int) -> None:
        for canvas in canvases:
            detector.runner.run(canvas)

    def both(_: int) -> None:
        detect_only(0)
        embedder.runner.run(crops)

    return [
        Contestant("networks alone", both, "detector, and embedder for every face"),
        Contestant("detector network alone", detect_only),
    ]


def _measure_start(size: tuple[int, int]) -> dict[str, float]:
    """Return how long a fresh process takes to its first answer, caches warm, and its memory then."""
    code = _START.format(width=size[0], height=size[1])
    for _ in range(2):  # the first one warms the caches
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}

"""``face-recognition recognize SOURCE``: say who is in a video, camera, picture or folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from face_recognition_node.cli.options import (
    STANDARD_OUTPUT,
    add_pipeline,
    add_progress,
    add_source,
    file_or_stream,
    file_to_write,
    gallery_path_from,
    open_pipeline,
    require_frames,
    source_from,
)
from face_recognition_node.common.errors import GalleryUnavailableError, InputError
from face_recognition_node.common.files import PRIVATE, user_path
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.common.tables import aligned
from face_recognition_node.vision.faces import IdentifiedFace, IdentityState, RecognitionResult

if TYPE_CHECKING:
    from face_recognition_node.vision.faces import ImageArray


EPILOG = """\
exit codes: 0 somebody known was recognized, 1 nobody was, 2 wrong input or failure, 130 interrupted

examples:
  face-recognition recognize party.mp4 --gallery party.db --annotated seen.mp4
  face-recognition recognize 0 --json - | jq -c '.faces[] | select(.state == "known") | .name'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add_source(parser)
    add_pipeline(parser)
    add(
        "--json",
        type=file_or_stream,
        metavar="OUT.jsonl",
        help="write one JSON line per frame; - for standard output",
    )
    add(
        "--annotated",
        type=file_to_write,
        metavar="OUT.mp4",
        help="write annotated frames: .mp4 .mkv .avi .png .jpg",
    )
    add(
        "--bag",
        type=file_to_write,
        metavar="OUT.mcap",
        help="write a ROS 2 bag: images, FaceArray and annotations for Foxglove",
    )
    add(
        "--keep-strangers",
        action="store_true",
        help="keep new strangers in the gallery, so that they can be named later",
    )
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Recognize every frame; print who was seen."""
    from face_recognition_node.config import MOST_STRANGERS
    from face_recognition_node.media.annotate import draw_faces
    from face_recognition_node.media.bag_writer import BagWriter
    from face_recognition_node.media.writer import VideoWriter

    source = source_from(arguments)
    path = _gallery_or_none(arguments)
    # looking at a video changes nothing: nobody makes room for who is met
    settings = {} if arguments.keep_strangers else {"strangers.maximum_strangers": MOST_STRANGERS}
    read = [user_path(arguments.source, "any", name="source"), *([] if path is None else [path])]
    targets = [one for one in (arguments.json, arguments.annotated, arguments.bag) if one is not None]
    for target in targets:
        refuse_the_same(target, *read)
    if len({Path(target).resolve() for target in targets}) < len(targets):
        raise InputError("--json, --annotated and --bag: expected different files, got one name twice")
    sightings = Sightings(source.origin)
    is_interrupted = False
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(open_pipeline(arguments, path, settings))
        # only now: what is refused leaves the files of an earlier run as they are
        lines = stack.enter_context(_open_lines(arguments.json))
        video = arguments.annotated and stack.enter_context(VideoWriter(arguments.annotated, source.rate_hz))
        bag = arguments.bag and stack.enter_context(BagWriter(arguments.bag))
        if not arguments.keep_strangers:
            stack.callback(lambda: pipeline.gallery.forget_strangers(pipeline.strangers.created_ids))
        try:
            frames = progress_bar(source, total=source.n_frames, shown=arguments.progress)
            for index, frame in enumerate(frames):
                result = pipeline.process(frame)
                sightings.add(result)
                if lines is not None:
                    lines.write(frame_line(index, result) + "\n")
                    lines.flush()
                if bag is not None:
                    bag.write(frame, result)
                if video is not None:
                    video.write(_fit(draw_faces(frame.image_bgr, result.faces), video.size))
        except KeyboardInterrupt:
            # The normal end of a live source; what was written so far is complete.
            is_interrupted = not source.is_live
        else:
            require_frames(sightings.frames, source)
    print(sightings, file=sys.stderr if arguments.json == STANDARD_OUTPUT else sys.stdout)
    if is_interrupted:
        return 130
    return 0 if sightings.is_anybody_known else 1


def _gallery_or_none(arguments: argparse.Namespace) -> Path | None:
    """Return the gallery's path; None, said in one line, where none was named and there is none yet."""
    try:
        return gallery_path_from(arguments, must_exist=True)
    except GalleryUnavailableError as error:
        if arguments.gallery is not None:
            raise
        print(f"{error}; until then everybody is a stranger", file=sys.stderr)
        return None


def _fit(image_bgr: ImageArray, size: tuple[int, int] | None) -> ImageArray:
    """Return an image as large as (width, height), scaled and with black borders where the shape differs."""
    import cv2
    import numpy as np

    height, width = image_bgr.shape[:2]
    if size is None or size == (width, height):
        return image_bgr
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        image_bgr, inner, interpolation=cv2.INTER_AREA
    )
    return canvas


def refuse_the_same(target: str | Path, *sources: Path) -> None:
    """Raise InputError if a file to write is one that is read, or one of the pictures that are."""
    from face_recognition_node.media.sources import IMAGE_SUFFIXES

    if target == STANDARD_OUTPUT:
        return
    path = Path(target)
    for source in sources:
        is_picture = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        is_picture = is_picture and source.is_dir() and path.resolve().parent == source.resolve()
        if is_picture or (source.is_file() and path.exists() and source.samefile(path)):
            raise InputError(f"{target}: is read here, and would be overwritten; choose another name")


@contextlib.contextmanager
def _open_lines(target: str | None) -> Iterator[TextIO | None]:
    if target is None:
        yield None
    elif target == STANDARD_OUTPUT:
        yield sys.stdout
    else:
        path = Path(target)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
            if path.is_file():  # names are in it; an older file may be readable for all
                os.fchmod(descriptor, PRIVATE)
        except OSError as error:
            cause = f"--json {target}: cannot be written ({error.strerror}); does the folder exist?"
            raise InputError(cause) from error
        with open(descriptor, "w", encoding="utf-8") as stream:
            yield stream


@dataclass
class Sighting:
    """One person, known or a stranger, in one recording; stamps are seconds."""

    state: IdentityState
    label: str  # name, or the id of somebody without one
    person_id: str  # permanent id; empty for strangers without one
    first: float
    last: float
    frames: int = 0  # frames in which the person was claimed
    probability: float = 0.0  # highest probability of the claim


class Sightings:
    """Collects who was claimed, at times counted from the stamp ``begin``; None: the first frame's."""

    def __init__(self, begin: float | None = None) -> None:
        self.frames = 0
        self.frames_with_faces = 0
        self._begin = begin
        self._found: dict[tuple[IdentityState, str], Sighting] = {}

    @property
    def is_anybody_known(self) -> bool:
        """Whether a known person was recognized in at least one frame."""
        return any(sighting.state is IdentityState.KNOWN for sighting in self._found.values())

    def add(self, result: RecognitionResult) -> None:
        """Note one frame's claims."""
        self._begin = result.stamp if self._begin is None else self._begin
        self.frames += 1
        self.frames_with_faces += bool(result.faces)
        for face in result.faces:
            identity = face.identity
            if identity.state is IdentityState.UNDECIDED:
                continue
            key = (identity.state, identity.person_id or "")
            label = identity.name or identity.person_id or "(somebody unknown)"
            stamp = result.stamp
            sighting = self._found.setdefault(key, Sighting(identity.state, label, key[1], stamp, stamp))
            sighting.label, sighting.last = label, stamp
            sighting.frames += 1
            sighting.probability = max(sighting.probability, identity.probability)

    def __iter__(self) -> Iterator[Sighting]:
        """Yield known people first, each group by first sight."""
        order = {IdentityState.KNOWN: 0, IdentityState.STRANGER: 1}
        return iter(sorted(self._found.values(), key=lambda found: (order[found.state], found.first)))

    def __str__(self) -> str:
        """Return the table."""
        head = f"{self.frames} frames, faces in {self.frames_with_faces} of them"
        if not self._found:
            return f"{head}; nobody recognized"
        begin = self._begin or 0.0
        rows = [("who", "from", "to", "frames", "probability", "person id")]
        for found in self:
            first, last = f"{found.first - begin:.2f} s", f"{found.last - begin:.2f} s"
            frames, probability = str(found.frames), f"{found.probability:.3f}"
            rows.append((found.label, first, last, frames, probability, found.person_id or "-"))
        return f"{head}\n{aligned(rows, right=(1, 2, 3, 4), indent='  ')}"


def frame_record(index: int, result: RecognitionResult) -> dict[str, Any]:
    """Return ``{"frame", "stamp", "faces": [...]}`` of plain numbers and strings, ready for JSON.

    Boxes and landmarks are pixels, ``stamp`` is seconds, ``score``, ``quality`` and ``probability`` lie in
    [0, 1], ``distance`` in [0, 2] or null where no template was compared. ``flatness`` is "unverified",
    "solid" or "flat", by "depth" or "motion" (``flatness_source``); ``position`` is
    in metres (x right, y down, z ahead of the camera), null without a camera model.
    """
    return {
        "frame": index,
        "stamp": _rounded(result.stamp, 6),
        "faces": [face_record(face) for face in result.faces],
    }


def face_record(face: IdentifiedFace) -> dict[str, Any]:
    """Return one face of :func:`frame_record`."""
    detection, identity, position = face.view.detection, face.identity, face.position
    return {
        "track_id": face.track_id,
        "box": [_rounded(value, 2) for value in detection.box_xyxy],
        "landmarks": [[_rounded(x, 2), _rounded(y, 2)] for x, y in detection.landmarks_xy],
        "score": _rounded(detection.score, 4),
        "quality": _rounded(face.view.quality.overall, 4),
        "state": identity.state.value,
        "person_id": identity.person_id,
        "name": identity.name,
        "probability": _rounded(identity.probability, 4),
        "distance": None if identity.distance is None else _rounded(identity.distance, 4),
        "flatness": face.flatness,
        "flatness_source": face.flatness_source,
        "position": None if position is None else [_rounded(value, 3) for value in position.xyz_m],
    }


def frame_line(index: int, result: RecognitionResult) -> str:
    """Return :func:`frame_record` as one line of JSON without its line end."""
    return json.dumps(frame_record(index, result), ensure_ascii=False, allow_nan=False)


def _rounded(value: float, digits: int) -> float | None:
    """Return a Python float of few digits; JSON has no NaN, so what is not finite becomes null."""
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None

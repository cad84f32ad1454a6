"""Who can play in a scene: faces cut softly from archives of pictures and from clips.

A *take* is one or several cut-outs of a person from one picture or clip; the takes for meeting somebody again
are of other pictures than those for enrolling. Which pictures those are is decided by the detector and the
head's pose alone, never by how alike the embedder finds them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import SourceError
from face_recognition_node.evaluation.picture_archive import open_files
from face_recognition_node.media.images import image_from
from face_recognition_node.media.sources import open_source
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray
from face_recognition_node.vision.pose import fit_heads

_HEAD_POSE = "head-pose-face-detection-{}.gif"
# person → clip to enroll from and clip to meet in, each with the part of the width that shows the person
CLIP_PEOPLE: dict[str, tuple[tuple[str, float, float], ...]] = {
    "W": ((_HEAD_POSE.format("female"), 0, 1), (_HEAD_POSE.format("female-and-male"), 0, 0.5)),
    "M": ((_HEAD_POSE.format("male"), 0, 1), (_HEAD_POSE.format("female-and-male"), 0.5, 1)),
    "A": (("again.mkv", 0, 1), ("brother.mkv", 0, 1)),
    "C": (("book.mkv", 0, 1), ("learn.mkv", 0, 1)),
    "D": (("eat.mkv", 0, 1), ("night.mkv", 0, 1)),
}  # fmt: skip
_MAXIMUM_TURN = 25.0  # degrees of yaw and pitch up to which a picture counts as frontal
# folders of RAP3DF that show somebody of another folder (002, 025, 036, 006, 045, 042), some mixed with a
# third person: seen by eye, after their centres had cosines of 0.72 to 0.98. They are left out
RAP3DF_DOUBLES = frozenset({"014", "049", "053", "060", "067", "071"})
_DEPTH = "_depth.png"
_LEAST_TAKES = 4
_MOST_TAKES = 8
_CLIP_SUFFIXES = frozenset({".gif", ".mkv", ".mp4"})
_PREFIX = {"heads": "RAP3DF ", "portraits": "ORL ", "photographs": ""}
_SEARCH_PX = 240.0  # pictures are enlarged to about this height before faces are looked for


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """One face to be drawn into a scene."""

    image_bgr: ImageArray  # (H, W, 3) uint8
    alpha: FloatArray  # (H, W) float32 in [0, 1]; soft at the rim
    box_xyxy: FloatArray  # (4,) the face's box in it, pixels, as the detector finds it
    # (H, W) float32 depth relative to the middle of the face, meters; None: not measured
    relief_m: FloatArray | None = None

    @property
    def height_px(self) -> float:
        """Height of the face's box."""
        return float(self.box_xyxy[3] - self.box_xyxy[1])


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """Cut-outs of one person from one picture (rate 0) or from a clip, in order of time."""

    cutouts: tuple[Cutout, ...]
    rate_hz: float = 0.0

    @property
    def height_px(self) -> float:
        """Height of the face, the same for the whole take: a head that tilts does not change its size."""
        return float(np.median([cutout.height_px for cutout in self.cutouts]))

    def at(self, seconds: float) -> Cutout:
        """Return the cut-out at a time; a clip is played forth and back, so that nothing jumps."""
        n = len(self.cutouts)
        if n == 1 or self.rate_hz == 0.0:
            return self.cutouts[0]
        index = int(seconds * self.rate_hz) % (2 * n - 2)
        return self.cutouts[min(index, 2 * n - 2 - index)]


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Somebody who can play: takes to enroll from and others to meet, the most frontal first."""

    name: str
    enroll: tuple[Take, ...]
    meet: tuple[Take, ...]


class Cast:
    """All people of the given material; they are cut out when they are asked for.

    A source is a folder of clips, a zip archive of RAP3DF heads, ORL portraits or aligned LFW faces, or a
    folder that holds some of these; SourceError for anything else. The detector says where the face is.
    """

    def __init__(self, sources: Sequence[Path], detector: Detector) -> None:
        self._detector = detector
        self.sources: dict[str, Path] = {}
        self._people: dict[str, list[Person]] = {}
        self._pending: dict[str, Iterator[Person]] = {}
        for source in sources:
            self._add(source)

    def people(self, kind: str, at_most: int) -> list[Person]:
        """Return up to so many people of a kind, always the same first ones; none if it is not there."""
        if kind not in self.sources:
            return []
        found = self._people.setdefault(kind, [])
        if kind not in self._pending:
            path = self.sources[kind]
            self._pending[kind] = (
                _clip_people(path, self._detector) if kind == "clips"
                else _picture_people(path, kind, self._detector)
            )  # fmt: skip
        while len(found) < at_most and (person := next(self._pending[kind], None)) is not None:
            found.append(person)
        return found[:at_most]

    def _add(self, source: Path) -> None:
        if (kind := _kind(source)) is not None:
            self.sources[kind] = source
        elif not source.is_dir():
            raise SourceError(f"{source}: expected RAP3DF heads, ORL portraits or aligned LFW faces in a zip")
        else:
            inside = [path for path in sorted(source.iterdir()) if _kind(path) is not None]
            if not inside:
                raise SourceError(f"{source}: expected clips, or archives of faces and a folder of clips")
            for path in inside:
                self._add(path)


def soften(mask: FloatArray, feather_px: float) -> FloatArray:
    """Return a mask whose rim falls from 1 to 0 inward over ``feather_px``."""
    eroded = cv2.erode(mask, np.ones((3, 3)), iterations=max(1, round(feather_px / 2)))
    return np.asarray(cv2.GaussianBlur(eroded, (0, 0), max(feather_px / 2, 0.5)) * (mask > 0), np.float32)


def cut_ellipse(image_bgr: ImageArray, box_xyxy: FloatArray) -> Cutout:
    """Cut a head without a known outline: a soft ellipse from above the hair to below the chin."""
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    width, height = x2 - x1, y2 - y1
    left, top = max(0, int(x1 - 0.55 * width)), max(0, int(y1 - 0.5 * height))
    right = min(image_bgr.shape[1], int(x2 + 0.55 * width))
    bottom = min(image_bgr.shape[0], int(y2 + 0.4 * height))
    patch = np.ascontiguousarray(image_bgr[top:bottom, left:right])
    mask = np.zeros(patch.shape[:2], np.float32)
    center = ((x1 + x2) / 2 - left, (y1 + y2) / 2 - top - 0.06 * height)
    cv2.ellipse(mask, (center, (1.75 * width, 1.75 * height), 0), 1.0, -1)
    # The rim of the picture is no outline of the head: fade towards it too.
    mask[[0, -1], :] = 0.0
    mask[:, [0, -1]] = 0.0
    shift = np.array([left, top, left, top], np.float32)
    return Cutout(patch, soften(mask, 0.16 * height), np.asarray(box_xyxy - shift, np.float32))


def _kind(path: Path) -> str | None:
    """Return what a folder or an archive holds, or None if it is nothing that can play."""
    if path.is_dir():
        return "clips" if any(inside.suffix in _CLIP_SUFFIXES for inside in path.iterdir()) else None
    if not zipfile.is_zipfile(path):
        return None
    names = open_files(path)[0]
    kinds = {_DEPTH: "heads", ".pgm": "portraits", ".webp": "photographs"}
    return next((kind for end, kind in kinds.items() if any(name.endswith(end) for name in names)), None)


def _clip_people(folder: Path, detector: Detector) -> Iterator[Person]:
    for name, ((enroll, *enroll_part), (meet, *meet_part)) in CLIP_PEOPLE.items():
        if (folder / enroll).is_file() and (folder / meet).is_file():
            yield Person(
                name,
                (_clip_take(folder / enroll, detector, *enroll_part),),
                (_clip_take(folder / meet, detector, *meet_part),),
            )


def _clip_take(path: Path, detector: Detector, left: float, right: float) -> Take:
    """Cut one person out of a clip; the cut follows the face smoothly and may not jump."""
    source = open_source(str(path))
    step = 2 if source.rate_hz > 20 else 1
    cutouts = []
    for index, frame in enumerate(source):
        width = frame.image_bgr.shape[1]
        part = np.ascontiguousarray(frame.image_bgr[:, int(left * width) : int(right * width)])
        if index % step == 0 and (face := find_face(part, detector)):
            cutouts.append(cut_ellipse(part, face.box_xyxy))
    if not cutouts:
        raise SourceError(f"{path}: no face found in it")
    return Take(tuple(cutouts), source.rate_hz / step)


def _picture_people(path: Path, kind: str, detector: Detector) -> Iterator[Person]:
    from face_recognition_node.evaluation.replay.sequences import list_people

    _, read = open_files(path)
    for folder, names in list_people(path).items():
        pictures = [name for name in names if not name.endswith(_DEPTH)]
        if len(pictures) < _LEAST_TAKES or (kind == "heads" and Path(folder).name in RAP3DF_DOUBLES):
            continue
        found = [_picture_take(read, name, detector, kind) for name in pictures[:_MOST_TAKES]]
        ranked = sorted((one for one in found if one is not None), key=lambda one: one[0])
        if len(ranked) < _LEAST_TAKES or ranked[1][0] > _MAXIMUM_TURN:
            continue
        # A picture cannot turn back: who is met does not keep the head turned away for the whole scene.
        meet = tuple(take for turn, take in ranked[1::2] if turn <= _MAXIMUM_TURN)
        yield Person(_PREFIX[kind] + folder, tuple(take for _, take in ranked[0::2]), meet)


def _picture_take(
    read: Callable[[str], bytes], name: str, detector: Detector, kind: str
) -> tuple[float, Take] | None:
    """Return how far the head is turned (degrees) and the cut-out, or None where no single face is found."""
    image = image_from(read(name), name)
    if kind == "heads":
        beside = name.replace("_color.png", _DEPTH)
        depth = cv2.imdecode(np.frombuffer(read(beside), np.uint8), cv2.IMREAD_UNCHANGED)
        if depth is None:
            raise SourceError(f"{beside}: expected a depth image, cannot decode it")
        return _cut_head(image, depth, detector)
    face = find_face(image, detector)
    if face is None:
        return None
    return _turn(face), Take((cut_ellipse(image, face.box_xyxy),))


def _cut_head(image: ImageArray, depth: np.ndarray, detector: Detector) -> tuple[float, Take] | None:
    """Cut head and shoulders along the outline that the depth camera saw, its pinholes filled."""
    known = cv2.morphologyEx((image.max(axis=2) > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7)))
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(known)
    if count < 2:
        return None
    outline = (labels == 1 + int(np.argmax(sizes[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    holes = ((image.max(axis=2) == 0) & (outline > 0)).astype(np.uint8)
    filled = np.asarray(
        cv2.inpaint(image, cv2.dilate(holes, np.ones((3, 3))), 3, cv2.INPAINT_TELEA), np.uint8
    )
    wall = np.full_like(image, 150)
    face = find_face(np.where(outline[..., None] > 0, filled, wall), detector)
    if face is None:
        return None
    alpha = soften(outline.astype(np.float32), 2.0)
    alpha *= np.clip((image.shape[0] - np.arange(image.shape[0])) / 12.0, 0, 1).astype(np.float32)[:, None]
    return _turn(face), Take((Cutout(filled, alpha, face.box_xyxy, _relief(depth, outline, face)),))


def _relief(depth: np.ndarray, outline: np.ndarray, face: Detection) -> FloatArray:
    """Return meters behind the middle of the face, the archive's depth scaled to the size of a head.

    RAP3DF's depth has no unit. From the tip of the nose to the outline beside the eyes a head
    is taken to be 0.09 m deep.
    """
    x1, y1, x2, y2 = (round(float(value)) for value in face.box_xyxy)
    values = depth.astype(np.float32)
    values[(depth == 0) | (outline == 0)] = np.nan
    inside = values[max(y1, 0) : y2, max(x1, 0) : x2]
    if not np.isfinite(inside).any():
        return np.full(depth.shape, np.nan, np.float32)
    near, far = np.nanpercentile(inside, [2, 95])
    middle = float(np.nanmedian(inside))
    return np.asarray((values - middle) * (0.09 / max(far - near, 1.0)), np.float32)


def find_face(image_bgr: ImageArray, detector: Detector) -> Detection | None:
    """Return the only large face of a picture in its pixels, or None if there is none or more than one."""
    scale = max(1.0, _SEARCH_PX / image_bgr.shape[0])
    # A face that fills the picture is found better with some room around it.
    margin = round(0.2 * image_bgr.shape[0])
    padded = cv2.copyMakeBorder(image_bgr, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    large = np.asarray(cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)
    faces = [face for face in detector.detect(large) if face.score >= 0.8]
    faces.sort(key=lambda face: -face.size_px)
    if not faces or (len(faces) > 1 and faces[1].size_px > 0.6 * faces[0].size_px):
        return None
    face = faces[0]
    return Detection(
        np.asarray(face.box_xyxy / scale - margin, np.float32),
        face.score,
        np.asarray(face.landmarks_xy / scale - margin, np.float32),
    )


def _turn(face: Detection) -> float:
    heads = fit_heads(face.landmarks_xy[None])
    return float(max(abs(heads.yaw[0]), abs(heads.pitch[0])))

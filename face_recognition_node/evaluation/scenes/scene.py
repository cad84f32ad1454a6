"""A composed scene: actors on paths before a wall, frame by frame, and who is to be seen where.

Nothing is random but for the sensor's noise, which is drawn from the frame's number: the same scene gives the
same frames. A face's size follows from its distance by the pinhole model, as does its depth.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from face_recognition_node.evaluation.replay.scenario import VisibleFace
from face_recognition_node.evaluation.scenes.cast import Cutout, Take
from face_recognition_node.media.sample import sample_frame
from face_recognition_node.vision.faces import FloatArray, Frame, ImageArray, Intrinsics

FACE_HEIGHT_M = 0.21  # height of a face's box: from the middle of the forehead to the chin
WALL_M = 4.5
SWAY = 0.05  # motion of somebody who stands still, parts of the face's height
POSTER_FRAME = 0.12  # width of the white border around a poster's picture, parts of its height


@dataclass(frozen=True, slots=True)
class Key:
    """Where an actor is at one time: the face's center in parts of the image, its distance in meters."""

    t: float
    x: float
    y: float
    distance: float


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """Somebody, or a picture of somebody, in a scene."""

    who: str  # name in the ground truth; empty for a picture
    takes: tuple[Take, ...]  # played one after the other
    # at least one key; in between it is interpolated smoothly, before and after it is not in view
    path: tuple[Key, ...]
    hold: float = 1e9  # seconds for which a take is played before the next
    is_poster: bool = False  # a flat print with a border, whatever the face's depth was

    def at(self, t: float) -> tuple[Take, Cutout, Key] | None:
        """Return what is to be seen and where, or None."""
        first, last = self.path[0], self.path[-1]
        if not first.t <= t <= last.t:
            return None
        take = self.takes[int((t - first.t) / self.hold) % len(self.takes)]
        index = bisect.bisect_right(self.path, t, key=lambda key: key.t) - 1
        here, there = self.path[index], self.path[min(index + 1, len(self.path) - 1)]
        part = (t - here.t) / max(there.t - here.t, 1e-9)
        part = part * part * (3 - 2 * part)
        x, y, distance = (
            old + part * (new - old)
            for old, new in ((here.x, there.x), (here.y, there.y), (here.distance, there.distance))
        )
        return take, take.at(t - first.t), Key(t, x, y, distance)


@dataclass(frozen=True, slots=True)
class Light:
    """How a scene is lit and seen."""

    gain: float = 1.0  # factor on all pixels
    backlight: float = 0.0  # brightness that the wall gets on top, in [0, 1]: 1 is burnt out
    noise: float = 3.0  # standard deviation of the sensor's noise of 255


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Actors before a wall."""

    name: str  # for reports
    actors: tuple[Actor, ...]  # in any order; the nearer cover the farther
    seconds: float  # length
    rate_hz: float = 10.0  # frames per second
    size: tuple[int, int] = (640, 480)  # (width, height) in pixels
    focal_px: float = 600.0  # focal length
    light: Light = field(default_factory=Light)  # lighting and sensor
    is_upside_down: bool = False  # the camera is mounted the wrong way round
    has_depth: bool = False  # give frames a depth image
    _latest: dict[float, list[VisibleFace]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.name

    def frames(self) -> Iterator[Frame]:
        """Yield the frames with stamps from 0."""
        for index in range(max(1, round(self.seconds * self.rate_hz))):
            yield self.render(index / self.rate_hz)[0]

    def truth(self, seconds: float) -> list[VisibleFace]:
        """Return whose faces are where, pictures of people included."""
        for stamp, faces in self._latest.items():
            if abs(stamp - seconds) < 1e-6:
                return faces
        return self.render(seconds)[1]

    def render(self, t: float) -> tuple[Frame, list[VisibleFace]]:
        """Return the frame at a time and the faces in it."""
        width, height = self.size
        canvas = _backdrop(self.size).astype(np.float32)
        if self.light.backlight:
            canvas += (255.0 - canvas) * self.light.backlight
        depth = np.full((height, width), WALL_M, np.float32) if self.has_depth else None
        owner = np.full((height, width), -1, np.int16)
        present = [(actor, *seen) for actor in self.actors if (seen := actor.at(t)) is not None]
        present.sort(key=lambda item: -item[3].distance)
        boxes = [
            self._draw(canvas, depth, owner, index, actor, take, cutout, key, t)
            for index, (actor, take, cutout, key) in enumerate(present)
        ]
        faces = []
        for index, ((actor, *_), box) in enumerate(zip(present, boxes, strict=True)):
            x1, y1, x2, y2 = (round(value) for value in box)
            inside = owner[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
            share = float((inside == index).sum()) / max((x2 - x1) * (y2 - y1), 1)
            if share > 0.02:
                faces.append(VisibleFace(actor.who, self._seen(box), min(share, 1.0)))
        image = self._expose(canvas, round(t * 1000))
        if self.is_upside_down:
            image = np.ascontiguousarray(image[::-1, ::-1])
            depth = None if depth is None else np.ascontiguousarray(depth[::-1, ::-1])
        camera = Intrinsics(self.focal_px, self.focal_px, width / 2, height / 2) if self.has_depth else None
        self._latest.clear()
        self._latest[t] = faces
        return Frame(image, t, "camera", depth, camera), faces

    def _draw(
        self, canvas: FloatArray, depth: FloatArray | None, owner: np.ndarray, index: int,
        actor: Actor, take: Take, cutout: Cutout, key: Key, t: float,
    ) -> tuple[float, float, float, float]:  # fmt: skip
        """Draw one actor and return the face's box before it is turned upside down."""
        width, height = self.size
        face_px = self.focal_px * FACE_HEIGHT_M / key.distance
        phase = float(sum(map(ord, actor.who)))
        sway = 0.0 if actor.is_poster else SWAY * face_px
        x = key.x * width + sway * math.sin(1.1 * t + phase)
        y = key.y * height + 0.5 * sway * math.sin(1.7 * t + 2 * phase)
        roll = 0.0 if actor.is_poster else math.radians(40.0 * SWAY * math.sin(0.7 * t + phase))
        scale = face_px / take.height_px
        center = (cutout.box_xyxy[:2] + cutout.box_xyxy[2:]) / 2
        cosine, sine = scale * math.cos(roll), scale * math.sin(roll)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        matrix = np.hstack([turn, (np.array([x, y]) - turn @ center)[:, None]])
        half = scale * (cutout.box_xyxy[2:] - cutout.box_xyxy[:2]) / 2
        box = (float(x - half[0]), float(y - half[1]), float(x + half[0]), float(y + half[1]))
        patch, alpha = cutout.image_bgr, cutout.alpha
        if actor.is_poster:
            patch, alpha = _print(cutout)
            border = round(POSTER_FRAME * cutout.image_bgr.shape[0])
            matrix[:, 2] -= turn @ np.array([border, border])
        rows, columns = patch.shape[:2]
        corners = matrix[:, :2] @ np.array([[0, columns, 0, columns], [0, 0, rows, rows]]) + matrix[:, 2:]
        left, top = np.maximum(np.floor(corners.min(axis=1)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners.max(axis=1)).astype(int), (width, height))
        if right <= left or bottom <= top:
            return box
        matrix[:, 2] -= (left, top)
        part = np.s_[top:bottom, left:right]
        size = (int(right - left), int(bottom - top))
        if scale < 0.7:  # no aliasing
            patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), 0.35 / scale), np.uint8)
        flags = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
        drawn = cv2.warpAffine(patch, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(alpha, matrix, size, flags=cv2.INTER_LINEAR)
        canvas[part] += mask[..., None] * (drawn.astype(np.float32) - canvas[part])
        solid = mask > 0.5
        owner[part][solid] = index
        if depth is not None:
            near = np.full(mask.shape, key.distance, np.float32)
            if not actor.is_poster and cutout.relief_m is not None:
                near += cv2.warpAffine(
                    cutout.relief_m, matrix, size, flags=cv2.INTER_NEAREST,
                    borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan,
                )  # fmt: skip
            depth[part][solid] = near[solid]
        return box

    def _seen(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        if not self.is_upside_down:
            return box
        width, height = self.size
        return width - box[2], height - box[3], width - box[0], height - box[1]

    def _expose(self, canvas: FloatArray, seed: int) -> ImageArray:
        noise = np.random.default_rng(seed).standard_normal(canvas.shape[:2], np.float32)[..., None]
        lit = canvas if self.light.gain == 1.0 else canvas * self.light.gain
        return np.asarray(np.clip(lit + self.light.noise * noise, 0, 255), np.uint8)


@lru_cache(maxsize=8)
def _backdrop(size: tuple[int, int]) -> ImageArray:
    return sample_frame(size=size, faces=0)


def _print(cutout: Cutout) -> tuple[ImageArray, FloatArray]:
    """Return a cut-out as a print on gray paper with a white border, and its opaque mask."""
    image = cutout.image_bgr.astype(np.float32)
    paper = np.full_like(image, 170.0)
    flat = paper + cutout.alpha[..., None] * (image - paper)
    border = round(POSTER_FRAME * image.shape[0])
    framed = cv2.copyMakeBorder(
        flat, border, border, border, border, cv2.BORDER_CONSTANT, value=(250, 250, 250)
    )
    mask = np.ones(framed.shape[:2], np.float32)
    return framed.astype(np.uint8), mask


def stand(
    who: str, takes: Sequence[Take], x: float, distance: float, seconds: tuple[float, float], *,
    y: float = 0.42, hold: float = 1e9, is_poster: bool = False,
) -> Actor:  # fmt: skip
    """Return an actor who stays at a place from one second to another."""
    path = (Key(seconds[0], x, y, distance), Key(seconds[1], x, y, distance))
    return Actor("" if is_poster else who, tuple(takes), path, hold, is_poster)


def walk(
    who: str, takes: Sequence[Take], stops: Sequence[tuple[float, float, float]], *, y: float = 0.42,
    hold: float = 1e9,
) -> Actor:  # fmt: skip
    """Return an actor who moves from stop to stop: (second, x, distance in meters)."""
    return Actor(who, tuple(takes), tuple(Key(t, x, y, distance) for t, x, distance in stops), hold)

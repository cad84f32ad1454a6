"""Draw who is where onto a frame.

State is told twice, by colour (Okabe & Ito's palette, distinct under every common colour blindness) and by
shape: known faces have a whole frame and a name, strangers a whole frame and their provisional id, undecided
ones corners only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from face_recognition_node.media.lettering import letter, paint, shorten, text_width
from face_recognition_node.vision.faces import (
    FloatArray,
    IdentifiedFace,
    IdentityState,
    ImageArray,
    require_image,
)

Color = tuple[int, int, int]
STATE_COLORS: dict[IdentityState, Color] = {
    IdentityState.KNOWN: (233, 180, 86),
    IdentityState.STRANGER: (0, 159, 230),
    IdentityState.UNDECIDED: (225, 225, 225),
}
"""BGR: sky blue, orange, light grey."""
_DARK: Color = (26, 22, 20)
_SHIFT = 4  # sub-pixel bits of OpenCV's drawing functions


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels for one image height: the same look from a thumbnail to 4K."""

    line: int
    text: int
    small: int

    @classmethod
    def of(cls, height: int) -> _Style:
        return cls(max(1, round(height / 300)), max(13, round(height / 28)), max(10, round(height / 44)))


def label_of(face: IdentifiedFace) -> str:
    """Return what stands over the face; empty for an undecided one."""
    identity = face.identity
    if identity.state is IdentityState.UNDECIDED:
        return ""
    name = identity.name or identity.person_id or "stranger"
    if identity.state is IdentityState.STRANGER and identity.person_id is None:
        return name
    # Rounded down: "100 %" would claim more than any posterior can.
    return f"{name}  {min(math.floor(100 * identity.probability), 99)} %"


def draw_faces(
    image_bgr: ImageArray, faces: Sequence[IdentifiedFace], *, in_place: bool = False
) -> ImageArray:
    """Return the image with every face's frame, landmarks, track number and label.

    Args:
        image_bgr: (H, W, 3) uint8.
        faces: What a recogniser found in it.
        in_place: Draw into ``image_bgr`` itself instead of a copy.
    """
    require_image(image_bgr)
    canvas = image_bgr if in_place else image_bgr.copy()
    style = _Style.of(canvas.shape[0])
    for face in faces:
        _draw_frame(canvas, face, style)
    taken: list[tuple[int, int, int, int]] = []
    # Large faces choose their label's place first; they are the ones in front.
    for face in sorted(faces, key=lambda item: -item.view.detection.size_px):
        _draw_track_number(canvas, face, style)
        label = label_of(face)
        if label:
            _draw_label(canvas, face, label, style, taken)
    return canvas


def draw_status(image_bgr: ImageArray, text: str) -> ImageArray:
    """Write one line (rate, latency …) into the lower left corner, in place, and return the image."""
    height, width = require_image(image_bgr).shape[:2]
    size = _Style.of(height).small + 2
    pad = size // 2
    line = shorten(text, size, width - 4 * pad)
    if line:
        box = (pad, height - pad - size - pad, text_width(line, size) + 2 * pad, size + pad)
        _darken(image_bgr, box)
        paint(image_bgr, letter(line, size), 2 * pad, box[1] + pad // 2, (240, 240, 240))
    return image_bgr


def _draw_frame(canvas: ImageArray, face: IdentifiedFace, style: _Style) -> None:
    detection = face.view.detection
    color = STATE_COLORS[face.identity.state]
    outline = _rounded(detection.box_xyxy, 0.12 * min(detection.width, detection.height))
    if face.identity.state is IdentityState.UNDECIDED:
        strokes, closed = _corners(outline, detection.box_xyxy), False
    else:
        strokes, closed = [outline], True
    points = [_fixed(stroke) for stroke in strokes]
    line = max(1, min(style.line, round(detection.size_px / 16)))
    cv2.polylines(canvas, points, closed, _DARK, line + 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, points, closed, color, line, cv2.LINE_AA, _SHIFT)
    radius = max(1.0, 0.012 * detection.size_px)
    for x, y in detection.landmarks_xy:
        center = (round(float(x) * (1 << _SHIFT)), round(float(y) * (1 << _SHIFT)))
        cv2.circle(canvas, center, round(radius * (1 << _SHIFT)), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_track_number(canvas: ImageArray, face: IdentifiedFace, style: _Style) -> None:
    """Write the number of the track small into the lower right corner of the frame, if there is room."""
    height, width = canvas.shape[:2]
    text = f"{face.track_id}"
    text_px = text_width(text, style.small)
    x2, y2 = face.view.detection.box_xyxy[2:]
    if face.view.detection.width < 2 * text_px or face.view.detection.height < 3 * style.small:
        return
    margin = 2 + 2 * style.line
    left = min(max(round(float(x2)) - text_px - margin, 0), width - text_px)
    top = min(max(round(float(y2)) - style.small - margin + 1, 0), height - style.small)
    coverage = letter(text, style.small)
    paint(canvas, coverage, left + 1, top + 1, _DARK)
    paint(canvas, coverage, left, top, STATE_COLORS[face.identity.state])


def _draw_label(
    canvas: ImageArray,
    face: IdentifiedFace,
    label: str,
    style: _Style,
    taken: list[tuple[int, int, int, int]],
) -> None:
    height, width = canvas.shape[:2]
    pad = max(3, style.text // 3)
    text = shorten(label, style.text, width - 2 * pad)
    if not text or height < style.text + pad:
        return
    box_width, box_height = text_width(text, style.text) + 2 * pad, style.text + pad
    x1, y1, _, y2 = (round(float(value)) for value in face.view.detection.box_xyxy)
    left = min(max(x1 - style.line, 0), width - box_width)
    gap = style.line + 2
    places = [y1 - gap - box_height, y2 + gap, y1 + gap, y2 - gap - box_height]
    inside = [min(max(top, 0), height - box_height) for top in places]
    free = [
        top
        for top, wanted in zip(inside, places, strict=True)
        if top == wanted and not any(_overlap((left, top, box_width, box_height), other) for other in taken)
    ]
    top = free[0] if free else inside[0]
    taken.append((left, top, box_width, box_height))
    rectangle = np.array([left, top, left + box_width - 1, top + box_height - 1], np.float32)
    cv2.fillPoly(
        canvas,
        [_fixed(_rounded(rectangle, 0.3 * box_height))],
        STATE_COLORS[face.identity.state],
        cv2.LINE_AA,
        _SHIFT,
    )
    paint(canvas, letter(text, style.text), left + pad, top + pad // 2, _DARK)


def _arcs(steps: int) -> FloatArray:
    """Return (4, steps, 2) quarter circles about the origin, clockwise in the image from the left."""
    angles = math.pi + np.arange(4)[:, None] * math.pi / 2 + np.linspace(0, math.pi / 2, steps)
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).astype(np.float32)


_ARCS = _arcs(5)
_INWARD = np.array([[[1, 1]], [[-1, 1]], [[-1, -1]], [[1, -1]]], np.float32)


def _rounded(box_xyxy: FloatArray, radius: float) -> FloatArray:
    """Return (20, 2) points of a rectangle with round corners, clockwise from the upper left."""
    corners = box_xyxy[[[0, 1], [2, 1], [2, 3], [0, 3]]][:, None]
    outline: FloatArray = (corners + radius * (_INWARD + _ARCS)).reshape(-1, 2)
    return outline


def _corners(outline: FloatArray, box_xyxy: FloatArray) -> list[FloatArray]:
    """Return the four corners of a rounded outline with short legs along the edges."""
    leg = 0.16 * float(np.min(box_xyxy[2:] - box_xyxy[:2]))
    strokes = []
    for arc in outline.reshape(4, -1, 2):
        begin = arc[0] + _unit(arc[0] - arc[1]) * leg
        end = arc[-1] + _unit(arc[-1] - arc[-2]) * leg
        strokes.append(np.concatenate([begin[None], arc, end[None]]).astype(np.float32))
    return strokes


def _unit(vector: FloatArray) -> FloatArray:
    """Return the axis direction that ``vector`` mostly points to."""
    unit = np.zeros(2, np.float32)
    axis = int(np.argmax(np.abs(vector)))
    unit[axis] = math.copysign(1.0, float(vector[axis]))
    return unit


def _fixed(points: FloatArray) -> np.ndarray:
    """Return points in OpenCV's fixed-point form, kept within the range it can draw."""
    return np.clip(np.rint(points * (1 << _SHIFT)), -(2**24), 2**24).astype(np.int32)[:, None]


def _darken(canvas: ImageArray, box_xywh: tuple[int, int, int, int]) -> None:
    x, y, w, h = box_xywh
    region = canvas[max(y, 0) : y + h, max(x, 0) : x + w]
    np.multiply(region, 0.35, out=region, casting="unsafe")


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    return (
        first[0] < second[0] + second[2]
        and second[0] < first[0] + first[2]
        and first[1] < second[1] + second[3]
        and second[1] < first[1] + first[3]
    )

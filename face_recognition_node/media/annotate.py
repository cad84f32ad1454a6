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
from numpy.typing import NDArray

from face_recognition_node.media.lettering import letter, paint, shorten, text_width
from face_recognition_node.vision.faces import (
    FloatArray,
    IdentifiedFace,
    IdentityState,
    ImageArray,
    require_image,
)

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, width, height in pixels
# BGR: sky blue, orange, light grey
STATE_COLORS: dict[IdentityState, Color] = {
    IdentityState.KNOWN: (233, 180, 86),
    IdentityState.STRANGER: (0, 159, 230),
    IdentityState.UNDECIDED: (225, 225, 225),
}
_DARK: Color = (26, 22, 20)
_SMALLEST_WITH_LANDMARKS_PX = 20.0  # on smaller faces the dots would cover what they mark
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


def draw_faces(image_bgr: ImageArray, faces: Sequence[IdentifiedFace]) -> ImageArray:
    """Return a copy of the (H, W, 3) image with every face's frame, landmarks, track number and label."""
    canvas = require_image(image_bgr).copy()
    style = _Style.of(canvas.shape[0])
    for face in faces:
        _draw_frame(canvas, face, style)
    # What no label may cover: the numbers, then the labels that have their place already.
    taken = [place for face in faces if (place := _draw_track_number(canvas, face, style))]
    boxes = [_box_xywh(face) for face in faces]
    # Large faces choose their label's place first; they are the ones in front.
    for index in sorted(range(len(faces)), key=lambda item: -faces[item].view.detection.size_px):
        others = boxes[:index] + boxes[index + 1 :]
        _draw_label(canvas, faces[index], style, taken, others)
    return canvas


def _draw_frame(canvas: ImageArray, face: IdentifiedFace, style: _Style) -> None:
    detection = face.view.detection
    color = STATE_COLORS[face.identity.state]
    is_decided = face.identity.state is not IdentityState.UNDECIDED
    strokes = _strokes(detection.box_xyxy, is_decided)
    line = max(1, min(style.line, round(detection.size_px / 16)))
    for ink, width in ((_DARK, line + 2), (color, line)):
        cv2.polylines(canvas, strokes, is_decided, ink, width, cv2.LINE_AA, _SHIFT)
    if detection.size_px < _SMALLEST_WITH_LANDMARKS_PX:
        return
    radius = max(1.0, 0.012 * detection.size_px)
    for x, y in detection.landmarks_xy:
        center = (round(float(x) * (1 << _SHIFT)), round(float(y) * (1 << _SHIFT)))
        cv2.circle(canvas, center, round(radius * (1 << _SHIFT)), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_track_number(canvas: ImageArray, face: IdentifiedFace, style: _Style) -> Box | None:
    """Write the number of the track small into the lower right corner of the box, if there is room.

    Return where it stands.
    """
    height, width = canvas.shape[:2]
    text = f"{face.track_id}"
    text_px = text_width(text, style.small)
    x2, y2 = face.view.detection.box_xyxy[2:]
    if face.view.detection.width < 2 * text_px or face.view.detection.height < 3 * style.small:
        return None
    margin = 2 + 2 * style.line
    left = min(max(round(float(x2)) - text_px - margin, 0), width - text_px)
    top = min(max(round(float(y2)) - style.small - margin + 1, 0), height - style.small)
    coverage = letter(text, style.small)
    paint(canvas, coverage, left + 1, top + 1, _DARK)
    paint(canvas, coverage, left, top, STATE_COLORS[face.identity.state])
    return left, top, text_px, style.small


def _draw_label(
    canvas: ImageArray, face: IdentifiedFace, style: _Style, taken: list[Box], others: Sequence[Box]
) -> None:
    """Draw the label where it covers no other label and, if possible, no other face.

    In a crowd it is written smaller, then without its probability, then cut to the width of the face; where
    even that has no place, the box and the number have to do.
    """
    height, width = canvas.shape[:2]
    label = label_of(face)
    name = label.rpartition("  ")[0] or label
    x, y, box_width, box_height = _box_xywh(face)
    whole, small = width - 2 * max(3, style.text // 3), min(style.small, style.text)
    attempts = [
        (text, size, is_strict)
        for is_strict in (True, False)
        for text, size in (
            (shorten(label, style.text, whole), style.text),
            (shorten(label, small, whole), small),
            (shorten(name, small, whole), small),
            (shorten(name, small, max(box_width, 3 * small)), small),
        )
    ]
    for text, size, is_strict in attempts:
        pad, gap = max(3, size // 3), style.line + 2
        wide, high = text_width(text, size) + 2 * pad, size + pad
        if not text or height < high or width < wide:
            continue
        left = min(max(x - style.line, 0), width - wide)
        right = min(max(x + box_width + style.line - wide, 0), width - wide)
        tops = (y - gap - high, y + box_height + gap, y + gap, y + box_height - gap - high)
        places = [(side, top, wide, high) for top in tops for side in (left, right)]
        for place in places:
            if not 0 <= place[1] <= height - high or any(_overlap(place, other) for other in taken):
                continue
            if is_strict and any(_overlap(place, other) for other in others):
                continue
            taken.append(place)
            _paint_label(canvas, place, text, size, STATE_COLORS[face.identity.state])
            return


def _paint_label(canvas: ImageArray, place: Box, text: str, size: int, color: Color) -> None:
    left, top, wide, high = place
    pad = max(3, size // 3)
    cv2.rectangle(canvas, (left, top), (left + wide - 1, top + high - 1), color, cv2.FILLED)
    paint(canvas, letter(text, size), left + pad, top + pad // 2, _DARK)


def _box_xywh(face: IdentifiedFace) -> Box:
    x1, y1, x2, y2 = (round(float(value)) for value in face.view.detection.box_xyxy)
    return x1, y1, x2 - x1, y2 - y1


def _strokes(box_xyxy: FloatArray, is_whole: bool) -> list[NDArray[np.int32]]:
    """Return the outline of a box, or its four corners with short legs along the edges."""
    corners = box_xyxy[[[0, 1], [2, 1], [2, 3], [0, 3]]]
    if is_whole:
        return [_fixed(corners)]
    legs = 0.25 * np.min(box_xyxy[2:] - box_xyxy[:2]) * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return [
        _fixed(corner + np.array([(x, 0), (0, 0), (0, y)]))
        for corner, (x, y) in zip(corners, legs, strict=True)
    ]


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return points in OpenCV's fixed-point form, kept within the range it can draw."""
    fixed = np.clip(np.rint(points * (1 << _SHIFT)), -(2**24), 2**24)
    return np.asarray(fixed[:, None], np.int32)


def _overlap(first: Box, second: Box) -> bool:
    return all(
        first[axis] < second[axis] + second[axis + 2] and second[axis] < first[axis] + first[axis + 2]
        for axis in (0, 1)
    )

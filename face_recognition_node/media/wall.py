"""Paint a wall with framed pictures: the set of the sample video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from face_recognition_node.media.lettering import letter, paint
from face_recognition_node.vision.faces import ImageArray

_WALL_COLOR = (176, 170, 158)  # BGR, a cool light grey
_FLOOR_COLOR = (62, 84, 112)
_MAT_COLOR = (232, 238, 240)
_WOOD_COLOR = (34, 46, 62)


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph with its caption.

    Attributes:
        image_bgr: (H, W, 3) uint8.
        caption: What the plate under its frame says.
    """

    image_bgr: ImageArray
    caption: str


def build_wall(size: tuple[int, int], hanging: Sequence[tuple[Picture, float, float]]) -> ImageArray:
    """Return a (height, width, 3) BGR uint8 wall with pictures centred at the given (x, y) pixels."""
    width, height = size
    wall = np.empty((height, width, 3), np.float32)
    wall[:] = _WALL_COLOR
    wall += _plaster(height, width)[..., None]
    floor_y = round(0.84 * height)
    _lay_floor(wall, floor_y)
    for picture, x, y in hanging:
        _shine(wall[:floor_y], x, y, picture.image_bgr.shape[0])
    painted = np.clip(wall, 0, 255).astype(np.uint8)
    for picture, x, y in hanging:
        _hang(painted, picture, x, y)
    return painted


def hang_in_rows(pictures: Sequence[Picture], size: tuple[int, int]) -> ImageArray:
    """Return a wall of ``size`` (width, height) with ``pictures`` hung in the rows that keep them largest."""
    width, height = size
    if not pictures:
        return build_wall(size, [])
    rows = min(range(1, 4), key=lambda count: -_cell(len(pictures), count, size))
    columns = math.ceil(len(pictures) / rows)
    cell = _cell(len(pictures), rows, size)
    hanging = []
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        in_row = min(columns, len(pictures) - row * columns)
        scale = 0.74 * cell / max(picture.image_bgr.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        scaled = cv2.resize(picture.image_bgr, None, fx=scale, fy=scale, interpolation=method)
        x = width / 2 + (column - (in_row - 1) / 2) * width / columns
        y = (row + 0.48) * height / rows
        hanging.append((Picture(scaled.astype(np.uint8, copy=False), picture.caption), x, y))
    return build_wall(size, hanging)


def _cell(count: int, rows: int, size: tuple[int, int]) -> float:
    """Return the side of the square that each of ``count`` pictures gets in ``rows`` rows, pixels."""
    return min(size[0] / math.ceil(count / rows), size[1] / rows)


def _plaster(height: int, width: int) -> np.ndarray:
    """Return faint (H, W) unevenness of three grain sizes and a darkening towards the floor."""
    generator = np.random.default_rng(3)
    relief = np.zeros((height, width), np.float32)
    for cell, strength in ((3, 1.2), (24, 1.6), (180, 4.0)):
        rough = generator.standard_normal((height // cell + 2, width // cell + 2), np.float32)
        relief += strength * cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    return relief - np.linspace(0, 26, height, dtype=np.float32)[:, None]


def _lay_floor(wall: np.ndarray, floor_y: int) -> None:
    """Paint boards and a skirting below ``floor_y``, in place."""
    height, width = wall.shape[:2]
    generator = np.random.default_rng(4)
    boards = generator.standard_normal((1, max(2, width // 70), 1), np.float32) * 7
    grain = cv2.resize(
        generator.standard_normal((max(2, (height - floor_y) // 2), 24), np.float32),
        (width, height - floor_y),
    )
    wall[floor_y:] = np.array(_FLOOR_COLOR, np.float32) + 5 * grain[..., None]
    wall[floor_y:] += np.repeat(boards, math.ceil(width / boards.shape[1]), axis=1)[:, :width]
    skirting = max(4, height // 36)
    wall[floor_y - skirting : floor_y] = (206, 208, 210)
    wall[floor_y - skirting] -= 40
    wall[floor_y : floor_y + max(2, skirting // 4)] *= 0.55


def _shine(wall: np.ndarray, x: float, y: float, picture_height: int) -> None:
    """Light the wall around a picture as a lamp from above would, in place."""
    rows, columns = np.mgrid[0 : wall.shape[0], 0 : wall.shape[1]].astype(np.float32)
    reach = 0.75 * picture_height
    glow = np.exp(-(((columns - x) / reach) ** 2) - ((rows - y + 0.3 * reach) / (1.15 * reach)) ** 2)
    wall += glow[..., None] * np.array((18.0, 26.0, 32.0), np.float32)


def _hang(wall: ImageArray, picture: Picture, x: float, y: float) -> None:
    """Draw shadow, frame, mat, photograph and caption plate, in place."""
    height, width = picture.image_bgr.shape[:2]
    left, top = round(x - width / 2), round(y - height / 2)
    mat, wood = max(3, height // 22), max(2, height // 30)
    border = mat + wood
    _cast_shadow(
        wall, (left - border, top - border, width + 2 * border, height + 2 * border), max(3, height // 24)
    )
    _fill(wall, left - border, top - border, width + 2 * border, height + 2 * border, _WOOD_COLOR)
    shine = tuple(2 * channel for channel in _WOOD_COLOR)
    _fill(wall, left - border, top - border, width + 2 * border, max(1, wood // 4), shine)
    _fill(wall, left - mat, top - mat, width + 2 * mat, height + 2 * mat, _MAT_COLOR)
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + width, wall.shape[1]), min(top + height, wall.shape[0])
    wall[y1:y2, x1:x2] = picture.image_bgr[y1 - top : y2 - top, x1 - left : x2 - left]
    text = max(8, height // 16)
    ink = letter(picture.caption, text)
    plate_width = ink.shape[1] + text
    plate_top = top + height + border + text // 2
    _fill(wall, round(x - plate_width / 2), plate_top, plate_width, text + text // 3, (70, 150, 186))
    paint(wall, ink, round(x - ink.shape[1] / 2), plate_top + text // 6, (20, 34, 44))


def _cast_shadow(wall: ImageArray, box_xywh: tuple[int, int, int, int], depth: int) -> None:
    x, y, w, h = box_xywh
    reach = 3 * depth
    x1, y1 = max(x - reach, 0), max(y - reach, 0)
    x2, y2 = min(x + w + reach, wall.shape[1]), min(y + h + 2 * reach, wall.shape[0])
    shade = np.zeros((y2 - y1, x2 - x1), np.float32)
    shade[
        max(y + depth - y1, 0) : y + depth + h - y1, max(x + depth // 2 - x1, 0) : x + depth // 2 + w - x1
    ] = 0.55
    shade = cv2.GaussianBlur(shade, (0, 0), depth * 0.8).astype(np.float32, copy=False)
    region = wall[y1:y2, x1:x2]
    region[:] = (region * (1 - shade[..., None])).astype(np.uint8)


def _fill(wall: ImageArray, x: int, y: int, w: int, h: int, color: tuple[int, ...]) -> None:
    wall[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = color

"""From RetinaFace's output maps to boxes and landmarks (Deng et al. 2020).

A level of stride ``s`` has, in each cell, a smaller and a larger square anchor centred at
``((column + ½) s, (row + ½) s)``. Relative to an anchor of side ``a`` at ``(cx, cy)`` the network says
``box = (cx + 0.1 a dx, cy + 0.1 a dy)`` with sides ``a exp(0.2 dw)``, ``a exp(0.2 dh)``, and each landmark as
``(cx + 0.1 a lx, cy + 0.1 a ly)`` (variances of SSD, Liu et al. 2016).

Only proposals above the threshold are ever decoded: the maps hold tens of thousands of anchors, a picture a
handful of faces. Their anchors are computed from their indices, so there is no table to keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from face_recognition_node.common.errors import ModelError
from face_recognition_node.vision.faces import FloatArray, IntArray

SIZE_MULTIPLE = 32  # the network takes pictures whose sides are multiples of this


@dataclass(frozen=True, slots=True)
class Placement:
    """How a frame lies on the network's canvas; sizes are (height, width)."""

    canvas: tuple[int, int]  # multiples of 32
    content: tuple[int, int]  # size of the resized frame on it, which begins at left, top
    left: int
    top: int
    scale: float  # pixels of the frame for one pixel of the canvas

    @classmethod
    def fit(cls, size: tuple[int, int], longer_side: int, margin: int = 0) -> Placement:
        """Place a frame of ``size`` (height, width) so that its longer side is at most ``longer_side``."""
        scale = max(1.0, max(size) / longer_side)
        height, width = (max(1, round(side / scale)) for side in size)
        rows, columns = (-(-(side + 2 * margin) // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (height, width))
        return cls((rows, columns), (height, width), margin, margin, scale)


STRIDES = (8, 16, 32)
# sides of the smaller and larger anchor of each level, pixels
ANCHOR_SIDES = ((16, 32), (64, 128), (256, 512))

CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
ANCHORS = 2
HEAD_CHANNELS = ANCHORS * 15
_STRIDES = np.asarray(STRIDES, np.float32)
_SIDES = np.asarray(ANCHOR_SIDES, np.float32)
_MAXIMUM_LOG_SIZE = 4.0  # exp(4) = 55 times the anchor: nothing sensible is larger, and exp cannot overflow


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Decoded anchors in pixels of the picture that the network saw: (K, 4), (K,) in [0, 1] and (K, 5, 2)."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    landmarks_xy: FloatArray

    def __len__(self) -> int:
        return len(self.scores)

    def mapped(self, scale: float, shift_x: float = 0.0, shift_y: float = 0.0) -> Proposals:
        """Return the proposals with ``(x - shift) * scale``: from a resized, padded copy to the picture."""
        shift = np.array([shift_x, shift_y], np.float32)
        return Proposals(
            (self.boxes_xyxy - np.tile(shift, 2)) * np.float32(scale),
            self.scores,
            (self.landmarks_xy - shift) * np.float32(scale),
        )

    def of_heights(self, least: float, most: float) -> Proposals:
        """Return the proposals whose box is between ``least`` and ``most`` pixels high."""
        heights = self.boxes_xyxy[:, 3] - self.boxes_xyxy[:, 1]
        wanted = (heights >= least) & (heights <= most)
        return Proposals(self.boxes_xyxy[wanted], self.scores[wanted], self.landmarks_xy[wanted])

    @staticmethod
    def joined(parts: Sequence[Proposals]) -> Proposals:
        """Return all proposals of several passes."""
        if len(parts) == 1:
            return parts[0]
        return Proposals(
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.landmarks_xy for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Anchors that reach a threshold, with what the network says of each, not yet decoded; (K,) each."""

    level: IntArray  # index into STRIDES
    anchor: IntArray  # 0 the smaller anchor of the level, 1 the larger
    row: IntArray
    column: IntArray
    values: FloatArray  # (K, 15) float32: face logit, 4 box and 10 landmark numbers


def least_logit(score: float) -> float:
    """Return the face logit that a score in (0, 1) stands for."""
    return math.log(score / (1 - score))


def select_cells(maps: Sequence[FloatArray], least: float) -> Cells:
    """Return the anchors of one picture whose face logit is at least ``least`` (:func:`least_logit`).

    There is one (30, h, w) map for each stride: 2 face logits, 2 × 4 box and 2 × 10 landmark numbers.

    Raises:
        ModelError: For maps of another shape.
    """
    if len(maps) != len(STRIDES):
        raise ModelError(f"maps: expected {len(STRIDES)}, one for each stride, got {len(maps)}")
    parts = []
    for index, level in enumerate(maps):
        if level.ndim != 3 or len(level) != HEAD_CHANNELS:
            shape = f"expected shape ({HEAD_CHANNELS}, h, w), got {level.shape}"
            raise ModelError(f"map of stride {STRIDES[index]}: {shape}")
        height, width = level.shape[1:]
        anchor, row, column = np.nonzero(level[:ANCHORS] >= least)
        box = level[ANCHORS : ANCHORS * 5].reshape(ANCHORS, 4, height, width)[anchor, :, row, column]
        points = level[ANCHORS * 5 :].reshape(ANCHORS, 10, height, width)[anchor, :, row, column]
        values = np.concatenate([level[anchor, row, column][:, None], box, points], axis=1)
        parts.append((np.full(len(anchor), index), anchor, row, column, values))
    return Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def decode_cells(cells: Cells) -> Proposals:
    """Return the boxes, scores and landmarks that the network means."""
    values = cells.values
    side = _SIDES[cells.level, cells.anchor][:, None]
    stride = _STRIDES[cells.level][:, None]
    center = (np.stack([cells.column, cells.row], axis=1).astype(np.float32) + np.float32(0.5)) * stride
    middle = center + values[:, 1:3] * (np.float32(CENTER_VARIANCE) * side)
    half = side * np.exp(np.minimum(values[:, 3:5] * np.float32(SIZE_VARIANCE), _MAXIMUM_LOG_SIZE)) / 2
    points = values[:, 5:].reshape(-1, 5, 2)
    return Proposals(
        np.concatenate([middle - half, middle + half], axis=1),
        np.asarray(1 / (1 + np.exp(-values[:, 0])), np.float32),
        center[:, None] + points * (np.float32(CENTER_VARIANCE) * side)[:, :, None],
    )

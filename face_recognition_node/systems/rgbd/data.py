"""RGB-D heads: colour registered to depth, cut to the head, as four-channel input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.picture_archive import open_files
from face_recognition_node.vision.faces import FloatArray, ImageArray

RGBD_SIZE = 80  # side of the network's input, pixels: about the size of a head in the pictures
DEPTH_SPREAD = 12.0  # units of the sensor's relative depth that count as 1: about half the depth of a head
_HEAD_ROWS = 48

DepthArray = NDArray[np.uint16]


def read_rgbd(path: Path) -> tuple[FloatArray, LabelArray]:
    """Read ``NNN/XXX_color.png`` with ``NNN/XXX_depth.png`` of a zip or folder.

    Returns:
        (N, 4, 80, 80) network inputs and (N,) people from 0 on.

    Raises:
        SourceError: If there is no such archive, no such picture in it, or one cannot be decoded.
    """
    from face_recognition_node.media.images import image_from

    names, read = open_files(path)
    inputs, people = [], []
    for name in sorted(name for name in names if name.endswith("_color.png")):
        beside = name.replace("_color", "_depth")
        if beside not in names:
            raise SourceError(f"{path}: expected {beside} beside {name}, found none")
        depth = cv2.imdecode(np.frombuffer(read(beside), np.uint8), cv2.IMREAD_UNCHANGED)
        if depth is None:
            raise SourceError(f"{beside}: expected a picture, cannot decode it")
        inputs.append(rgbd_input(image_from(read(name), name), np.asarray(depth, np.uint16)))
        people.append(name.split("/")[-2] if "/" in name else "")
    if not inputs:
        raise SourceError(f"{path}: expected RGB-D heads as NNN/XXX_color.png and _depth.png, found none")
    _, labels = np.unique(people, return_inverse=True)
    return np.stack(inputs), labels.astype(np.int64)


def read_rgbd_file(colour_path: Path) -> FloatArray:
    """Read one picture ``…_color.png`` and the ``…_depth.png`` beside it as (4, 80, 80)."""
    depth_path = colour_path.with_name(colour_path.name.replace("color", "depth"))
    colour = cv2.imread(str(colour_path), cv2.IMREAD_COLOR)
    depth = cv2.imread(str(depth_path), cv2.IMREAD_UNCHANGED) if depth_path != colour_path else None
    if colour is None or depth is None:
        raise SourceError(f"{colour_path}: expected a picture NAME_color.png and NAME_depth.png beside it")
    return rgbd_input(np.asarray(colour, np.uint8), np.asarray(depth, np.uint16))


def rgbd_input(colour_bgr: ImageArray, depth: DepthArray) -> FloatArray:
    """Return (4, 80, 80): blue, green and red in [-1, 1], and depth relative to the head, nearer is larger.

    The square is cut around the head, so that the network cannot go by people's clothes; where the sensor saw
    nothing, all four channels are 0. The (H, W) depth is registered to the colour; 0 where there is none,
    smaller is nearer.

    Raises:
        InputError: If the two differ in size or nothing has a depth.
    """
    if colour_bgr.shape[:2] != depth.shape:
        raise InputError(
            f"colour and depth: expected equal sizes, got {colour_bgr.shape[:2]} and {depth.shape}"
        )
    seen = depth > 0
    left, top = _head_corner(seen)
    shift = np.array([[1, 0, -left], [0, 1, -top]], np.float64)

    def cut(image: NDArray[np.float32]) -> FloatArray:
        return np.asarray(
            cv2.warpAffine(image, shift, (RGBD_SIZE, RGBD_SIZE), flags=cv2.INTER_NEAREST), np.float32
        )

    mask = cut(seen.astype(np.float32)) > 0
    colour = cut(colour_bgr.astype(np.float32)) / 127.5 - 1
    distance = cut(depth.astype(np.float32))
    middle = float(np.median(distance[mask])) if mask.any() else 0.0
    relief = np.clip((middle - distance) / DEPTH_SPREAD, -2, 2)
    return np.where(mask[None], np.concatenate([colour.transpose(2, 0, 1), relief[None]]), 0).astype(
        np.float32
    )


def _head_corner(seen: NDArray[np.bool_]) -> tuple[float, float]:
    widths = seen.sum(axis=1)
    rows = np.flatnonzero(widths >= 10)
    if len(rows) == 0:
        raise InputError("depth: expected a head in front of a removed background, got no depth at all")
    top = int(rows[0])
    columns = np.flatnonzero(seen[top : top + _HEAD_ROWS].any(axis=0))
    weights = seen[top : top + _HEAD_ROWS].sum(axis=0)[columns]
    middle = float(np.average(columns, weights=weights))
    return middle - RGBD_SIZE / 2, top - 6.0


def augment_rgbd(face: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return a mirrored, moved, turned, relit and partly erased copy of a (4, 80, 80) input."""
    channels = face.transpose(1, 2, 0)
    if random.random() < 0.5:
        channels = channels[:, ::-1]
    matrix = cv2.getRotationMatrix2D(
        (RGBD_SIZE / 2, RGBD_SIZE / 2), random.normal(0, 7), random.uniform(0.88, 1.12)
    )
    matrix = np.asarray(matrix + [[0, 0, x] for x in random.normal(0, 3, 2)], np.float64)
    moved = cv2.warpAffine(
        np.ascontiguousarray(channels), matrix, (RGBD_SIZE, RGBD_SIZE), flags=cv2.INTER_NEAREST
    )
    seen = np.any(moved != 0, axis=2, keepdims=True)
    gain = np.append(random.uniform(0.7, 1.3) * random.uniform(0.92, 1.08, 3), random.uniform(0.85, 1.15))
    offset = np.append(np.full(3, random.normal(0, 0.15)), random.normal(0, 0.1))
    moved = np.where(seen, (moved + 1) * gain - 1 + offset, 0) if random.random() < 0.8 else moved
    if random.random() < 0.3:
        height, width = random.integers(10, 28, 2)
        top, left = random.integers(0, RGBD_SIZE - height), random.integers(0, RGBD_SIZE - width)
        moved[top : top + height, left : left + width] = 0
    return np.asarray(moved, np.float32).transpose(2, 0, 1)

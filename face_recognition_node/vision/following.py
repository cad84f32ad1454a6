"""Follow a face from one frame to the next by optical flow, for frames in which nothing is searched.

A grid of points on the face is traced by pyramidal Lucas-Kanade flow (Bouguet 2000) forwards and back again;
points that do not return to where they began are dropped (forward-backward error, Kalal et al. 2010). A
similarity transform that fits the rest (least median of squares) moves box and landmarks. All of it happens
on small grey windows around the face, so that it costs a fraction of a millisecond whatever the frame's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.stages import StageClock
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray

# side of the face in its window, pixels: enough for the flow, and small faces are not enlarged much
FACE_SIDE = 48
REACH = 0.75  # the window reaches this many sides of the face beyond it: how far a face may move in a frame
GRID = 7  # points along each side of the face
# a point that comes back further away than this part of the face's side was not traced
LARGEST_RETURN_ERROR = 0.03
LEAST_TRACED = 0.5  # share of the points that must be traced
# a face that grows or shrinks by more than this factor from one frame to the next was not traced
LARGEST_CHANGE = 1.25
_WIDE = 9  # pixels: side of the flow's neighbourhood
_LEVELS = 3

_RealArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FacePatch:
    """What is kept of a face to find it in the next frame."""

    detection: Detection
    left: float  # of the window in the frame, pixels
    top: float
    scale: float  # pixels of the frame that are one of the window
    window: ImageArray  # (S, S) grey, around the face


def remember_face(image_bgr: ImageArray, detection: Detection) -> FacePatch:
    """Cut the window around a face out of a (H, W, 3) BGR image."""
    side = detection.size_px
    reach = side * (0.5 + REACH)
    left, top = (float(value) for value in detection.center_xy - reach)
    scale = side / FACE_SIDE
    return FacePatch(detection, left, top, scale, _window(image_bgr, left, top, scale))


def follow_face(patch: FacePatch, image_bgr: ImageArray) -> Detection | None:
    """Return where a remembered face is in the next (H, W, 3) BGR image, None if it cannot be told.

    The score is still that of the detector when it found the face.
    """
    now = _window(image_bgr, patch.left, patch.top, patch.scale)
    before = _grid(patch)
    options = {"winSize": (_WIDE, _WIDE), "maxLevel": _LEVELS}
    after, found, _ = cv2.calcOpticalFlowPyrLK(patch.window, now, before, None, **options)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(now, patch.window, after, None, **options)  # type: ignore[call-overload]
    error = np.linalg.norm(back - before, axis=1)
    traced = (found[:, 0] == 1) & (returned[:, 0] == 1) & (error <= LARGEST_RETURN_ERROR * FACE_SIDE)
    if traced.mean() < LEAST_TRACED:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(before[traced], after[traced], method=cv2.LMEDS)
    if matrix is None:
        return None
    growth = math.hypot(matrix[0, 0], matrix[1, 0])
    if not 1 / LARGEST_CHANGE <= growth <= LARGEST_CHANGE:
        return None
    return _moved(patch, matrix, growth)


def _moved(patch: FacePatch, matrix: _RealArray, growth: float) -> Detection | None:
    """Return the face after the (2, 3) transform of its window, None if its centre has left the window."""
    detection = patch.detection
    origin = np.array([patch.left, patch.top])
    turn, shift = matrix[:, :2], matrix[:, 2] * patch.scale

    def move(points_xy: FloatArray) -> _RealArray:
        return np.asarray((points_xy - origin) @ turn.T + shift + origin)

    center = move(detection.center_xy)
    if (np.abs(center - detection.center_xy) > REACH * detection.size_px).any():
        return None
    half = np.array([detection.width, detection.height]) * growth / 2
    box = np.concatenate([center - half, center + half])
    return Detection(box.astype(np.float32), detection.score, move(detection.landmarks_xy).astype(np.float32))


def _window(image_bgr: ImageArray, left: float, top: float, scale: float) -> ImageArray:
    """Return the grey window; outside the image its border goes on."""
    height, width = image_bgr.shape[:2]
    side = round(FACE_SIDE * (1 + 2 * REACH))
    right, bottom = left + side * scale, top + side * scale
    # only the part that the window shows is turned grey, with a pixel more for the interpolation
    x1, y1 = max(0, math.floor(left) - 1), max(0, math.floor(top) - 1)
    x2, y2 = min(width, math.ceil(right) + 1), min(height, math.ceil(bottom) + 1)
    if x1 >= x2 or y1 >= y2:
        return np.zeros((side, side), np.uint8)
    grey = cv2.cvtColor(image_bgr[y1:y2, x1:x2], cv2.COLOR_BGR2GRAY)
    if scale > 2:
        # bilinear sampling would skip pixels
        factor = math.floor(scale)
        smaller = (max(1, (x2 - x1) // factor), max(1, (y2 - y1) // factor))
        grey = cv2.resize(grey, smaller, interpolation=cv2.INTER_AREA)
    shrink_x, shrink_y = grey.shape[1] / (x2 - x1), grey.shape[0] / (y2 - y1)
    matrix = np.array([
        [scale * shrink_x, 0, (left - x1) * shrink_x],
        [0, scale * shrink_y, (top - y1) * shrink_y],
    ])  # fmt: skip
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    window = cv2.warpAffine(grey, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(window, np.uint8)


def _grid(patch: FacePatch) -> FloatArray:
    """Return the (GRID², 2) points on the face in its window, but for the box's rim, which shows the wall."""
    box = (patch.detection.box_xyxy.reshape(2, 2) - (patch.left, patch.top)) / patch.scale
    inner = 0.1 * (box[1] - box[0])
    (x1, y1), (x2, y2) = box[0] + inner, box[1] - inner
    columns, rows = np.meshgrid(np.linspace(x1, x2, GRID), np.linspace(y1, y2, GRID))
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)


class FaceFinder:
    """Finds the faces of one camera, frame by frame; the detector searches whole frames.

    A face that cannot be followed is no face lost: the detector is asked at once. What following cannot see
    is a face that comes into view; it waits for the next search.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._patches: list[FacePatch] = []
        self._shape: tuple[int, ...] = ()
        self._since_search = 0

    def reset(self) -> None:
        """Search the next frame, whatever came before."""
        self._shape = ()

    def find(self, image_bgr: ImageArray, interval: int, clock: StageClock) -> list[Detection]:
        """Return the faces of a (H, W, 3) BGR image that was brightened if it was dark.

        The detector searches every ``interval`` frames, at least 1. The clock takes the time: "detect",
        "resize", and "track" for what is followed.
        """
        followed = None
        if self._since_search + 1 < interval and image_bgr.shape == self._shape:
            with clock.stage("track"):
                followed = self._follow(image_bgr)
        if followed is None:
            with clock.stage("detect"):
                detections = self._detector.search(image_bgr, clock)
            self._since_search = 0
        else:
            detections = followed
            self._since_search += 1
        self._shape = image_bgr.shape if interval > 1 else ()
        with clock.stage("track"):
            self._patches = [remember_face(image_bgr, d) for d in detections] if interval > 1 else []
        return detections

    def _follow(self, image_bgr: ImageArray) -> list[Detection] | None:
        """Return every face at its new place, None as soon as one cannot be followed."""
        moved = []
        for patch in self._patches:
            detection = follow_face(patch, image_bgr)
            if detection is None:
                return None
            moved.append(detection)
        return moved

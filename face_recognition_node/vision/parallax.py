"""Is this a head, or a picture of one? Without depth, a face that is turned tells by how its points move.

A picture of a face that is tilted in a hand, or that a robot drives past, is seen under affine maps as long
as it is small against its distance; of a head that turns, the nose moves over the cheeks as no plane's points
can. Corners of the face are traced from frame to frame (Lucas-Kanade, forwards and back again as in
:mod:`following`), and between a first frame and now two maps are fitted to them: a similarity, which is all
that moving, nearing and rolling do, and an affine map, which a plane allows besides. With the root mean
square distances s and a that they leave, in parts of the face's height,

    flat    if s is clear and a is a small part of it: tilted, and still plane,
    solid   if a is clear and most of s: turned, with relief (or a film of somebody: a screen may show that).

A still face leaves neither and stays *unverified*, as does one seen small. Five landmarks are not enough: the
detector places them by what faces look like, and moves them on a tilted picture as on a turned head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray
from face_recognition_node.vision.flatness import FLAT, SOLID, UNVERIFIED

LEAST_HEIGHT_PX = 60.0
"""Smaller faces leave too few corners, and noise that looks like relief."""
_HEIGHT, _WINDOW = 96, 160
"""Pixels of the face's height in the window around it, and of the window's side."""
_STEP_S, _LONGEST_S, _LOST_S = 0.15, 2.5, 0.5
"""Seconds between observations, over which points are traced at most, and without a face that end a trace."""
_CORNERS, _FEWEST = 60, 15
_RETURN_PX = 1.2
_TILTED, _PLANE = 0.012, 0.35
"""Least s of a tilted picture, and how much of it a may be: pictures 0.2 to 0.35, heads 0.53 and more."""
_RELIEF, _MOST = 0.015, 0.6
_OBSERVATIONS = 3
"""Fewest observations for a verdict."""

_Points = NDArray[np.float64]


@dataclass(slots=True)
class MotionEvidence:
    """The verdict of a track's motion: that of most observations; *solid* is final.

    Attributes:
        verdict: ``solid``, ``flat`` or ``unverified``.
    """

    verdict: str = UNVERIFIED
    _window: ImageArray | None = None
    _first: FloatArray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    _now: FloatArray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    _n_corners: int = 0
    _began: float = 0.0
    _last: float = float("-inf")
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, image_bgr: ImageArray, detection: Detection, stamp: float) -> None:
        """Observe a face in the next (H, W, 3) frame at ``stamp``, seconds."""
        if self.verdict == SOLID or stamp - self._last < _STEP_S:
            return
        if detection.height < LEAST_HEIGHT_PX:
            self._window = None
            return
        window = _cut(image_bgr, detection)
        is_traced = (
            self._window is not None
            and stamp - self._last <= _LOST_S
            and stamp - self._began <= _LONGEST_S
            and self._trace(self._window, window)
        )
        if is_traced:
            self._judge()
        else:
            self._first = self._now = _corners(window)
            self._n_corners, self._began = len(self._first), stamp
        self._window, self._last = window, stamp

    def _trace(self, before: ImageArray, window: ImageArray) -> bool:
        """Follow the points into the next window; return whether enough are left."""
        if len(self._now) < _FEWEST:
            return False
        options = {"winSize": (13, 13), "maxLevel": 3}
        after, found, _ = cv2.calcOpticalFlowPyrLK(before, window, self._now, None, **options)  # type: ignore[call-overload]
        back, returned, _ = cv2.calcOpticalFlowPyrLK(window, before, after, None, **options)  # type: ignore[call-overload]
        kept = (found[:, 0] == 1) & (returned[:, 0] == 1)
        kept &= np.linalg.norm(back - self._now, axis=1) <= _RETURN_PX
        self._first, self._now = self._first[kept], after[kept]
        return len(self._now) >= max(_FEWEST, self._n_corners // 2)

    def _judge(self) -> None:
        before, now = self._first.astype(np.float64), self._now.astype(np.float64)
        away = _affine_residual(before, now)
        kept = away <= 3 * np.median(away) + 0.3
        if kept.sum() < _FEWEST:
            return
        before, now = before[kept], now[kept]
        a = _root_mean_square(_affine_residual(before, now)) / _HEIGHT
        s = _root_mean_square(_similarity_residual(before, now)) / _HEIGHT
        if s >= _TILTED and a <= _PLANE * s:
            verdict = FLAT
        elif a >= _RELIEF and a >= _MOST * s:
            verdict = SOLID
        else:
            return
        self._counts[verdict] = self._counts.get(verdict, 0) + 1
        if self._counts[verdict] >= max(_OBSERVATIONS, *self._counts.values()):
            self.verdict = verdict


def _cut(image_bgr: ImageArray, detection: Detection) -> ImageArray:
    """Return the (160, 160) gray window in whose middle the face is 96 px high."""
    scale = detection.height / _HEIGHT
    left, top = (float(value) - scale * _WINDOW / 2 for value in detection.center_xy)
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    flags = (cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(image_bgr, matrix, (_WINDOW, _WINDOW), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(cut, cv2.COLOR_BGR2GRAY), np.uint8)


def _corners(window: ImageArray) -> FloatArray:
    """Return the (N, 2) corners on the face in its window."""
    mask = np.zeros_like(window)
    middle = (_WINDOW // 2, _WINDOW // 2)
    cv2.ellipse(mask, middle, (round(0.32 * _HEIGHT), round(0.45 * _HEIGHT)), 0, 0, 360, 255, -1)
    found = cv2.goodFeaturesToTrack(window, _CORNERS, 0.01, _HEIGHT / 18, mask=mask, blockSize=5)
    return np.zeros((0, 2), np.float32) if found is None else np.asarray(found[:, 0], np.float32)


def _affine_residual(before: _Points, now: _Points) -> NDArray[np.float64]:
    """Return the (N,) distances that the best affine map leaves."""
    design = np.hstack([before, np.ones((len(before), 1))])
    fitted, *_ = np.linalg.lstsq(design, now, rcond=None)
    return np.asarray(np.linalg.norm(now - design @ fitted, axis=1))


def _similarity_residual(before: _Points, now: _Points) -> NDArray[np.float64]:
    """Return the (N,) distances that the best similarity leaves, in complex numbers."""
    a, b = (points[:, 0] + 1j * points[:, 1] for points in (before, now))
    a, b = a - a.mean(), b - b.mean()
    return np.asarray(np.abs(b - a * np.vdot(a, b) / max(np.vdot(a, a).real, 1e-9)))


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))

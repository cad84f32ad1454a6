"""Is this a head, or a picture of one? Posters, screens and prints are told by depth, or else by motion.

**Depth.** For a pinhole camera the inverse depth of a plane is linear in the pixel coordinates, whatever its
slant: 1/z = a u + b v + c. So no intrinsics are needed to ask whether a face is plane. A quadratic is fitted
to the inverse depth over the ellipse that the face fills,

    1/z = c0 + c1 x + c2 y + c3 x² + c4 x y + c5 y²,      (x, y) on the unit disc,

and its plane part is dropped. What is left is the *bulge*: by how much the rim of the face lies behind its
middle, averaged over all directions, -z² (c3 + c5) / 2 metres. A head bulges by one to three centimetres in
both directions; a poster, a screen or a print not at all; a print on a shirt in one direction only, which
halves its share. Noise does not bulge: the fit's standard error says how far it can be trusted, and over a
track the bulges are averaged until the verdict is clear.

**Motion.** A picture of a face that is tilted in a hand, or that a robot drives past, is seen under affine
maps as long as it is small against its distance; of a head that turns, the nose moves over the cheeks as no
plane's points can. Corners of the face are traced from frame to frame (Lucas-Kanade, forwards and back again
as in :mod:`following`), and between a first frame and now two maps are fitted to them: a similarity, which is
all that moving, nearing and rolling do, and an affine map, which a plane allows besides. With the root mean
square distances s and a that they leave, in parts of the face's height,

    flat    if s is clear and a is a small part of it: tilted, and still plane,
    solid   if a is clear, most of s, and along one direction: turned, and not plane (or a film of somebody: a
            screen may show that).

A still face leaves neither and stays *unverified*, as does one seen small. Five landmarks are not enough: the
detector places them by what faces look like, and moves them on a tilted picture as on a turned head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray

UNVERIFIED, SOLID, FLAT = "unverified", "solid", "flat"

# half axes of the part of the box that is looked at: the face without hair, ears and background
_ELLIPSE = (0.36, 0.40)
_GRID = 32  # samples along each axis; more say little that is new, as the noise of depth cameras is smooth
_LEAST_SAMPLES = 60
_LEAST_COVERAGE = 0.5
# what lies farther than this from the median is background, hair or a hand before the face
_DEEPEST_FACE_M = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class FaceDepth:
    """Depth samples of one face, at (N,) places on the unit disc that stands for it."""

    x: FloatArray  # to the right
    y: FloatArray  # down
    metres: FloatArray  # (N,)
    median: float  # of the metres


def sample_face_depth(depth_m: FloatArray, detection: Detection) -> FaceDepth | None:
    """Return the depth over a face, or None where the depth image says too little of it.

    ``depth_m`` is (H, W) in metres, registered to the image that the face was found in; NaN: nothing is
    known.
    """
    places = np.linspace(-1.0, 1.0, _GRID, dtype=np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(places, places))
    on_disc = x * x + y * y <= 1.0
    x, y = x[on_disc], y[on_disc]
    columns = np.floor(detection.center_xy[0] + _ELLIPSE[0] * detection.width * x).astype(np.int64)
    rows = np.floor(detection.center_xy[1] + _ELLIPSE[1] * detection.height * y).astype(np.int64)
    # A small face has fewer pixels than samples: the same pixel twice is no second measurement.
    _, first = np.unique(rows * depth_m.shape[1] + columns, return_index=True)
    x, y, columns, rows = x[first], y[first], columns[first], rows[first]
    height, width = depth_m.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    depth = np.full(len(x), np.nan, np.float32)
    depth[inside] = depth_m[rows[inside], columns[inside]]
    enough = max(_LEAST_SAMPLES, _LEAST_COVERAGE * len(x))
    known = np.isfinite(depth) & (depth > 0)
    if known.sum() < enough:
        return None
    known &= np.abs(depth - np.median(depth[known])) <= _DEEPEST_FACE_M
    if known.sum() < enough:
        return None
    return FaceDepth(x[known], y[known], depth[known], float(np.median(depth[known])))


LEAST_BULGE_M = 0.008  # between a print on a chest (up to 5 mm) and the head of a child (12 mm and more)
_SMOOTH_NOISE = 2.0  # factor on the standard error: neighbouring depth pixels share their errors
_SYSTEMATIC_M = 0.002  # standard error that no number of pixels or frames goes below
_CLEAR = 2.0  # standard errors between the bulge and the limit that make a verdict


@dataclass(frozen=True, slots=True)
class Bulge:
    """How far the rim of a face lies behind its middle in one frame, metres; about 0 for a plane."""

    metres: float
    error: float


def measure_bulge(face: FaceDepth) -> Bulge | None:
    """Return by how much a face bulges, or None where what is known of it is a line or a corner."""
    x, y = face.x, face.y
    design = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    inverse_depth = 1.0 / face.metres.astype(np.float64)
    normal = design.T @ design
    if np.linalg.cond(normal) > 1e8:
        return None
    covariance = np.linalg.inv(normal)
    coefficients = covariance @ (design.T @ inverse_depth)
    residual = inverse_depth - design @ coefficients
    bend = np.array([0.0, 0.0, 0.0, 0.5, 0.0, 0.5])
    variance = float(residual @ residual) / max(len(x) - design.shape[1], 1)
    error = _SMOOTH_NOISE * math.sqrt(variance * float(bend @ covariance @ bend))
    scale = face.median**2
    return Bulge(-scale * float(bend @ coefficients), math.hypot(scale * error, _SYSTEMATIC_M))


@dataclass(slots=True)
class BulgeEvidence:
    """What the frames of a track say together: a mean weighted by precision that forgets slowly."""

    metres: float = 0.0
    precision: float = 0.0  # inverse of the variance, 1/m²; 0: nothing is known

    def add(self, bulge: Bulge) -> None:
        """Take one frame into account; ten frames at most are remembered."""
        new = bulge.error**-2
        old = min(self.precision, 9.0 * new)
        self.metres = (old * self.metres + new * bulge.metres) / (old + new)
        self.precision = old + new

    @property
    def verdict(self) -> str:
        """``solid``, ``flat``, or ``unverified`` while neither is clear."""
        if self.precision == 0.0:
            return UNVERIFIED
        error = math.hypot(self.precision**-0.5, _SYSTEMATIC_M / 2)
        above = (self.metres - LEAST_BULGE_M) / error
        if above >= _CLEAR:
            return SOLID
        return FLAT if above <= -_CLEAR else UNVERIFIED


LEAST_HEIGHT_PX = 60.0  # smaller faces leave too few corners, and noise that looks like depth
_HEIGHT, _WINDOW = 96, 160  # pixels of the face's height in the window around it, and of the window's side
# seconds between observations, over which points are traced at most, and without a face that end a trace
_STEP_S, _LONGEST_S, _LOST_S = 0.15, 2.5, 0.5
_CORNERS, _FEWEST = 60, 15
_RETURN_PX = 1.2
# least s of a tilted picture, and how much of it a may be: pictures 0.2 to 0.35, heads 0.53 and more
_TILTED, _PLANE = 0.012, 0.35
# least a of a head, how much of s it is at least, and how much longer its displacements are along one
# direction than across: 1.9 to 4 on heads that turn, up to 1.5 on portraits that a camera passes
_RELIEF, _MOST, _ALONG = 0.015, 0.6, 1.75
_OBSERVATIONS = 3  # fewest observations for a verdict

_Points = NDArray[np.float64]


@dataclass(slots=True)
class MotionEvidence:
    """The verdict of a track's motion: that of most observations; *solid* is final."""

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
        away = np.linalg.norm(_affine_residual(before, now), axis=1)
        kept = away <= 3 * np.median(away) + 0.3
        if kept.sum() < _FEWEST:
            return
        before, now = before[kept], now[kept]
        left = _affine_residual(before, now) / _HEIGHT
        a = math.sqrt(np.mean(left**2) * 2)
        s = _root_mean_square(_similarity_residual(before, now)) / _HEIGHT
        if s >= _TILTED and a <= _PLANE * s:
            verdict = FLAT
        elif a >= _RELIEF and a >= _MOST * s and _is_parallax(left):
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


def _affine_residual(before: _Points, now: _Points) -> _Points:
    """Return the (N, 2) displacements that the best affine map leaves."""
    design = np.hstack([before, np.ones((len(before), 1))])
    fitted, *_ = np.linalg.lstsq(design, now, rcond=None)
    return np.asarray(now - design @ fitted)


def _is_parallax(left: _Points) -> bool:
    """Say whether (N, 2) displacements lie along one direction.

    What a rigid body's depth adds to an affine map does, along the epipolar lines (Koenderink & van Doorn
    1991); the errors of traced points, which grow with time on plain skin, lie along none.
    """
    across, along = np.linalg.eigvalsh(left.T @ left)
    return bool(along >= _ALONG**2 * across)


def _similarity_residual(before: _Points, now: _Points) -> NDArray[np.float64]:
    """Return the (N,) distances that the best similarity leaves, in complex numbers."""
    a, b = (points[:, 0] + 1j * points[:, 1] for points in (before, now))
    a, b = a - a.mean(), b - b.mean()
    return np.asarray(np.abs(b - a * np.vdot(a, b) / max(np.vdot(a, a).real, 1e-9)))


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))

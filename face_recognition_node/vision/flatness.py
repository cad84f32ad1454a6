"""Is this a head, or a picture of one? Poster, portrait, phone and printed shirt are told from depth.

For a pinhole camera the inverse depth of a plane is linear in the pixel coordinates, whatever its slant:
1/z = a u + b v + c. So no intrinsics are needed to ask whether a face is plane. A quadratic is fitted to the
inverse depth over the ellipse that the face fills,

    1/z = c0 + c1 x + c2 y + c3 x² + c4 x y + c5 y²,      (x, y) on the unit disc,

and its plane part is dropped. What is left is the *relief*: by how much the rim of the face lies behind its
middle, averaged over all directions, -z² (c3 + c5) / 2 metres. A head bulges by one to three centimetres in
both directions; a poster, a screen or a print not at all; a print on a shirt in one direction only, which
halves its share. Noise does not bulge: the fit's standard error says how far it can be trusted, and over a
track the reliefs are averaged until the verdict is clear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from face_recognition_node.vision.face_depth import FaceDepth

UNVERIFIED, SOLID, FLAT = "unverified", "solid", "flat"

LEAST_RELIEF_M = 0.008
"""Between a print on a chest (up to 5 mm) and the head of a child (12 mm and more)."""
_SMOOTH_NOISE = 2.0
"""Factor on the standard error: neighbouring depth pixels share their errors."""
_SYSTEMATIC_M = 0.002
"""Standard error that no number of pixels or frames goes below."""
_CLEAR = 2.0
"""Standard errors between the relief and the limit that make a verdict."""


@dataclass(frozen=True, slots=True)
class Relief:
    """How far a face bulges in one frame.

    Attributes:
        metres: By how much its rim lies behind its middle; about 0 for a plane.
        error: Standard error, metres.
    """

    metres: float
    error: float


def measure_relief(face: FaceDepth) -> Relief | None:
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
    return Relief(-scale * float(bend @ coefficients), math.hypot(scale * error, _SYSTEMATIC_M))


@dataclass(slots=True)
class ReliefEvidence:
    """What the frames of a track say together: a mean weighted by precision that forgets slowly.

    Attributes:
        metres: Pooled relief.
        precision: Inverse of its variance, 1/m²; 0: nothing is known.
    """

    metres: float = 0.0
    precision: float = 0.0

    def add(self, relief: Relief) -> None:
        """Take one frame into account; ten frames at most are remembered."""
        new = relief.error**-2
        old = min(self.precision, 9.0 * new)
        self.metres = (old * self.metres + new * relief.metres) / (old + new)
        self.precision = old + new

    @property
    def verdict(self) -> str:
        """``solid``, ``flat``, or ``unverified`` while neither is clear."""
        if self.precision == 0.0:
            return UNVERIFIED
        error = math.hypot(self.precision**-0.5, _SYSTEMATIC_M / 2)
        above = (self.metres - LEAST_RELIEF_M) / error
        if above >= _CLEAR:
            return SOLID
        return FLAT if above <= -_CLEAR else UNVERIFIED

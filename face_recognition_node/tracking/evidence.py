"""What the frames of one track say together.

A track's frames are not independent: neighbours share pose, light and blur, and all of them share whatever
resemblance there is. Log-likelihood ratios of single frames must therefore not be added up. Instead the
embeddings are added,

    pooled = unit(sum_i w_i x_i),      w_i = q_i^2 * (1 - exp(-(t_i - t_{i-1}) / tau)),

and the *pooled* vector is compared, once, by the calibrated tables. For embeddings scattered around a
person's mean direction (von Mises-Fisher) the weighted sum is the sufficient statistic of all frames, so
nothing is lost; and the resemblance of a stranger, which is the same in every frame, is counted once and
not n times.

``q`` is the view's quality. The second factor discounts the correlation of neighbours: after a pause of
``dt`` an Ornstein-Uhlenbeck noise of memory ``tau`` has renewed itself by that share, so ten views within a
tenth of a second weigh little more than one, at any frame rate. ``tau`` is measured on video
(:func:`face_recognition_node.evaluation.calibration.measure_correlation_time`) and stands in the model
card. Without the discount's time scale, Kish's design effect ``n / (1 + (n - 1) rho)`` says the same for n
equal views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from face_recognition_node.vision.faces import FloatArray

# sum of weights at which older views begin to fade, so that a long track follows a slowly changing look
_LONGEST_MEMORY = 40.0


@dataclass(slots=True)
class TrackEvidence:
    """The pooled look of one track."""

    correlation_s: float  # memory tau of the noise between frames, seconds
    n_views: int = 0
    effective_views: float = 0.0  # sum of the renewal shares: how many independent views they are worth
    last_stamp: float | None = None  # time of the latest view, seconds, or None
    latest: FloatArray | None = None  # the (D,) unit vector of the latest view, or None
    latest_quality: float = 0.0
    version: int = 0  # rises with every change, so that answers derived from it can be kept
    _sum: FloatArray | None = field(default=None, repr=False)
    _weight: float = 0.0
    _weighted_quality: float = 0.0

    def add(self, embedding: FloatArray, quality: float, stamp: float) -> None:
        """Add one view: (D,) unit vector, quality in [0, 1], time in seconds."""
        share = self.renewal(stamp)
        weight = max(quality, 0.0) ** 2 * share
        if weight > 0.0:
            addition = np.float32(weight) * embedding
            self._sum = addition if self._sum is None else self._sum + addition
            self._weight += weight
            self._weighted_quality += weight * quality
            if self._weight > _LONGEST_MEMORY:
                fade = _LONGEST_MEMORY / self._weight
                self._sum = self._sum * np.float32(fade)
                self._weight *= fade
                self._weighted_quality *= fade
        self.latest, self.latest_quality = embedding, quality
        self.n_views += 1
        self.effective_views += share
        self.last_stamp = stamp if self.last_stamp is None else max(stamp, self.last_stamp)
        self.version += 1

    def renewal(self, stamp: float) -> float:
        """Return the share in [0, 1] of a view at ``stamp`` that the last view did not already tell."""
        if self.last_stamp is None:
            return 1.0
        return 1.0 - math.exp(-max(stamp - self.last_stamp, 0.0) / self.correlation_s)

    @property
    def embedding(self) -> FloatArray | None:
        """The pooled (D,) unit vector; None before the first view of quality above 0."""
        if self._sum is None:
            return None
        length = float(np.linalg.norm(self._sum))
        return None if length == 0.0 else np.asarray(self._sum / length, np.float32)

    @property
    def quality(self) -> float:
        """Weighted mean quality of the pooled views, in [0, 1]."""
        return self._weighted_quality / self._weight if self._weight > 0.0 else 0.0

"""The gallery's people and strangers as a yardstick: how alike are different persons here?

The tables of the model card were learned on photographs from everywhere. Under one roof, with one camera
and one light, and with people of one sort, all similarities between different persons are higher. The
gallery shows by how much: its persons are known to differ. With ``m`` and ``d`` the mean and spread of the
similarities between persons of the gallery, ``m0`` and ``d0`` those behind the tables, and a track ``x``
whose mean similarity to all persons but the nearest is ``r``,

    s'' = m0 + (s' - m0 - lift) / max(1 + c (d - d0) / d0, 1),
    lift = max(a (m - m0) + (1 - a) e, b (r - m0) + (1 - b) e, 0),

where ``a = n / (n + 5)``, ``b = (n - 1) / (n + 4)`` and ``c = n / (n + 20)`` weigh what n persons can tell (a
spread needs more of them than a mean) against what is expected before anything was measured, ``e = d0 / 4``.
The first term in the maximum normalises by the gallery, the second by the track, as the zero and test
normalisation of speaker verification do (Auckenthaler et al. 2000). Only the strict direction is used: a
gallery of very different people makes nothing easier.

Two cohorts are kept (:mod:`person_models`). The false match rate, of a name and of a stranger's id, is read
with everybody: the people enrolled and, where they are few, the known strangers, who came before this very
camera. The posterior is read with the people enrolled alone: known strangers share its prior already, and to
count them twice takes the names from too many who are enrolled.

The expectation makes names harder to get: a false one is what must not happen. For the posterior, and to find
a stranger again, only what was measured counts (``e = 0``). It is a compromise: similarities between people
of one laboratory (ORL) are higher by 0.9 ``d0``, between those before one depth camera (RAP3DF) by 1.5; but
to expect that much from the first would leave guests without a name who tilt their heads. What it is worth
stands in docs/identity.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.faces import FloatArray

LARGEST = 64
"""Persons that are enough to measure by."""
_SHRINKAGE = 5.0
_SPREAD_SHRINKAGE = 20.0
_EXPECTED_SHIFT = 0.25
"""How much higher similarities are expected to be under one roof, in spreads ``d0`` of the tables."""
_LARGEST_STRETCH = 1.2


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Some persons of the gallery, each by the centre of their templates.

    Attributes:
        calibration: The tables.
        centers: (n, D) unit vectors of different persons.
        commonness: (n,) of the centres.
        expected: ``e`` above.
        excess: How much higher similarities between different persons are here, ``m - m0``; 0 for nobody.
        stretch: How much wider they spread, at least 1, after shrinkage.
    """

    calibration: Calibration
    centers: FloatArray
    commonness: FloatArray
    expected: float
    excess: float
    stretch: float

    @classmethod
    def of(cls, centers: Sequence[FloatArray], calibration: Calibration) -> Cohort:
        """Measure the persons with these (D,) unit vectors; there may be none."""
        n = len(centers)
        mean, spread = calibration.different_people
        expected = _EXPECTED_SHIFT * spread
        if n < 2:
            nobody = np.zeros((0, calibration.prototypes.shape[1]), np.float32)
            return cls(calibration, nobody, np.zeros(0, np.float32), expected, 0.0, 1.0)
        stacked = np.stack(centers).astype(np.float32)
        commonness = calibration.commonness(stacked)
        pairs = calibration.correct(stacked @ stacked.T, (commonness[:, None] + commonness[None, :]) / 2)
        between = pairs[np.triu_indices(n, 1)]
        excess = float(between.mean()) - mean
        wider = n / (n + _SPREAD_SHRINKAGE) * (_spread(between) / spread - 1.0)
        stretch = min(1.0 + max(wider, 0.0), _LARGEST_STRETCH)
        return cls(calibration, stacked, commonness, expected, excess, stretch)

    def resemblance(self, query: FloatArray, commonness: float) -> float:
        """Return by how much a (D,) query of this commonness is like everybody: ``r - m0``; 0 for nobody."""
        n = len(self.centers)
        if n == 0:
            return 0.0
        mean, _ = self.calibration.different_people
        to_all = self.calibration.correct(
            self.centers @ query, (self.commonness + np.float32(commonness)) / 2
        )
        return (float(to_all.sum()) - float(to_all.max())) / (n - 1) - mean

    def normalize(
        self, corrected: NDArray[np.float64], resemblance: float, expected: float = 0.0
    ) -> NDArray[np.float64]:
        """Return ``s''`` of (k,) corrected similarities of persons to a query of this :meth:`resemblance`.

        Args:
            corrected: (k,) ``s'``.
            resemblance: Of the query.
            expected: ``e``; 0 believes in nothing but what was measured.
        """
        n = len(self.centers)
        mean, _ = self.calibration.different_people
        by_gallery, by_track = (
            _shrink(self.excess, n, expected),
            _shrink(resemblance, max(n - 1, 0), expected),
        )
        lift = max(by_gallery, by_track, 0.0)
        return np.asarray(mean + (corrected - mean - lift) / self.stretch, np.float64)


def _shrink(measured: float, n: int, expected: float) -> float:
    """Return what is to be believed of a mean that was measured on n persons."""
    return (n * measured + _SHRINKAGE * expected) / (n + _SHRINKAGE)


def _spread(values: NDArray[np.float32]) -> float:
    """Return half the distance between the 16th and 84th percentile: two look-alikes must not widen it."""
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2

"""How alike different people are here: adaptive score normalisation, shrunken towards the shipped cohort.

The tables of the model card were learned on photographs from everywhere. Under one roof, with one camera
and one light, or among people of one sort, all similarities between different persons are higher, and some
persons are like everybody. With the unit ``d0``, the spread of the similarities of different people behind
the tables, and ``m0``, their mean, a corrected similarity of two different people is taken to be

    s'(x, j) = m0 + d0 (delta + a_x + a_j + e),
    delta ~ N(delta0, tau^2),      a ~ N(0, rho),      e ~ the tables' own distribution.

``delta`` is the place's, ``a`` each person's own. Before anybody is known only the prior speaks: from
photographs from everywhere to one laboratory and one depth camera ``delta`` was measured between 0 and 1.
The n persons of the gallery, who are known to differ, and the track's own mean similarity to all of them
but the nearest tell more; with ``k = n - 1`` the posterior means and variances are those of a Gaussian
model of variance components,

    delta^ = delta0 + w (m - delta0),      w = tau^2 / (tau^2 + 4 rho / n + 2 / n^2),   var = tau^2 (1 - w),
    a^ = v (mean to the others - m),      v = k / (k + 1 / rho),

(n (n - 1) / 2 pairs share n persons, hence the variance of their mean). A similarity is then read from the
tables at

    s'' = m0 + (s' - m0 - d0 max(delta^ + (a^_x + a^_j) / 2, 0)) / sqrt(1 + sum of the three variances):

what is not known widens the distribution, and so asks for more before a name is said; what is learned
narrows it. Of the persons' own parts the mean is taken off, as the symmetric normalisation of speaker
verification does, which this is with many persons (Kenny 2010; Matejka et al. 2017); with one of them it is
the prior. The sum would be right for two persons, but where both faces are of one it takes the same part off
twice, and in ORL, RAP3DF and LFW it told people apart worse than no normalisation. What half of ``a^`` leaves
counts as not known: the variance of ``a`` is ``rho (1 - v) + rho v / 4``. Only the strict direction is used:
people who differ much make nothing easier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from face_recognition_node.identity.calibration import Calibration
    from face_recognition_node.vision.faces import FloatArray

LARGEST = 64  # persons that are enough to measure by
# `delta0`: LFW 0.03, ORL 0.87, RAP3DF 1.02 were measured; in spreads, so that it outlives the weights
EXPECTED_SHIFT = 0.6
_SHIFT_VARIANCE = 0.25  # `tau^2`, of the same three
# `rho`: ORL 0.09, RAP3DF 0.10, LFW 0.02 were measured, corrected for hubness; what remains of the variance is
# 0.97 to 1.02 of that behind the tables
_PERSON_VARIANCE = 0.12
_OWN_SHARE = 0.5  # of what is a person's own is taken off


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Some persons of the gallery, each by the centre of their templates."""

    calibration: Calibration  # the tables
    centers: FloatArray  # (n, D) unit vectors of different persons
    hubness: FloatArray  # (n,) of the centres
    measured: float  # how much higher similarities of different persons are here, `m`; 0 for fewer than two
    shift: float  # `delta^` above
    variance: float  # what is not known of it
    own: Mapping[str, float]  # `a^` of each person by id

    @classmethod
    def of(cls, persons: Mapping[str, FloatArray], calibration: Calibration) -> Cohort:
        """Measure persons by their (D,) unit vectors; there may be none."""
        n = len(persons)
        if n < 2:
            nobody = np.zeros((0, calibration.prototypes.shape[1]), np.float32)
            empty = np.zeros(0, np.float32)
            return cls(calibration, nobody, empty, 0.0, EXPECTED_SHIFT, _SHIFT_VARIANCE, {})
        centers = np.stack([*persons.values()]).astype(np.float32)
        hubness = calibration.hubness(centers)
        mean, spread = calibration.different_people
        pairs = calibration.correct(centers @ centers.T, (hubness[:, None] + hubness[None, :]) / 2)
        np.fill_diagonal(pairs, mean)
        to_others = (pairs - mean).sum(axis=1).astype(np.float64) / (n - 1) / spread
        measured = float(to_others.mean())
        weight = _SHIFT_VARIANCE / (_SHIFT_VARIANCE + 4 * _PERSON_VARIANCE / n + 2 / n**2)
        own = _reliability(n - 1) * (to_others - measured)
        return cls(
            calibration, centers, hubness, measured,
            EXPECTED_SHIFT + weight * (measured - EXPECTED_SHIFT), _SHIFT_VARIANCE * (1 - weight),
            dict(zip(persons, own.tolist(), strict=True)),
        )  # fmt: skip

    def normalize(
        self, corrected: NDArray[np.float64], query: FloatArray, hubness: float, person_ids: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return ``s''`` of (k,) ``s'``, corrected similarities of persons to one (D,) query."""
        mean, spread = self.calibration.different_people
        own_of_query, unknown = self._of_query(query, hubness)
        own = np.array([self.own.get(person_id, 0.0) for person_id in person_ids])
        of_member = _unknown(len(self.centers) - 1)
        unknowns = [of_member if person_id in self.own else _unknown(0) for person_id in person_ids]
        lift = spread * np.maximum(self.shift + _OWN_SHARE * (own_of_query + own), 0.0)
        widening = np.sqrt(1.0 + self.variance + unknown + np.array(unknowns))
        return np.asarray(mean + (corrected - mean - lift) / widening, np.float64)

    def _of_query(self, query: FloatArray, hubness: float) -> tuple[float, float]:
        """Return ``a^`` of a query and what is not known of it."""
        n = len(self.centers)
        if n < 2:
            return 0.0, _unknown(0)
        mean, spread = self.calibration.different_people
        to_all = self.calibration.correct(self.centers @ query, (self.hubness + np.float32(hubness)) / 2)
        others = ((float(to_all.sum()) - float(to_all.max())) / (n - 1) - mean) / spread
        return _reliability(n - 1) * (others - self.measured), _unknown(n - 1)


def _reliability(k: int) -> float:
    """Return how much of a person's mean similarity to k others is their own and not chance."""
    return k / (k + 1.0 / _PERSON_VARIANCE) if k > 0 else 0.0


def _unknown(k: int) -> float:
    """Return the variance of a person's own part that is not taken off, where k others are known."""
    return _PERSON_VARIANCE * (1 - _reliability(k) * (1 - (1 - _OWN_SHARE) ** 2))

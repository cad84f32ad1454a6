"""How rare a likeness must be before a name is claimed."""

from __future__ import annotations

import math

CAUTION = 10.0
"""Where faces are more alike than the photographs that the tables come from, strangers are named more often
than the tables promise: before one depth camera (RAP3DF), with one person enrolled, five times as often. A
tenth of the rate keeps the promise there as well (docs/identity.md)."""


def log_claim_limit(target: float, n_enrolled: int, looks: float) -> float:
    """Return the largest log false match rate of a name that keeps strangers' whole tracks to ``target``.

    That is ``ln(target / (N L C))``: the union bound over N people, L looks a track and the caution C.

    Args:
        target: The operator's ``target_false_accept_rate``.
        n_enrolled: People compared with; none counts as one.
        looks: Independent comparisons that a track is worth (:class:`Calibration`).
    """
    return math.log(target) - math.log(max(n_enrolled, 1)) - math.log(looks) - math.log(CAUTION)

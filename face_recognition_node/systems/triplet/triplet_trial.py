"""How a triplet lock does with faces it has not seen: who unlocks, and where both errors are equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from face_recognition_node.systems.triplet.triplet_face_id import TripletLock, all_triplets
from face_recognition_node.vision.faces import FloatArray, ImageArray


@dataclass(frozen=True, slots=True)
class LockTrial:
    """What a lock did with faces it had not seen.

    Attributes:
        n_me: The owner's pictures trained on.
        n_not_me: Others' pictures trained on.
        alpha: Margin while training.
        steps: Steps until no triplet cost anything, or all of them.
        seconds: Time of training.
        is_satisfied: Whether every triplet of unchanged pictures meets the margin.
        owner_unlocks: Share of the owner's new pictures that unlock at ``production_alpha``.
        stranger_unlocks: Share of unknown people's that do.
        equal_error: Error rate where both kinds of error are equal, over all production alphas.
        equal_error_alpha: The production alpha of that.
    """

    n_me: int
    n_not_me: int
    alpha: float
    steps: int
    seconds: float
    is_satisfied: bool
    owner_unlocks: float
    stranger_unlocks: float
    equal_error: float
    equal_error_alpha: float

    def __str__(self) -> str:
        return (
            f"{self.n_me:2d} of me, {self.n_not_me:2d} not, alpha {self.alpha:+.1f}: {self.steps:3d} steps "
            f"{self.seconds:5.1f} s; I unlock {100 * self.owner_unlocks:3.0f} %, strangers "
            f"{100 * self.stranger_unlocks:3.0f} %; equal error {100 * self.equal_error:4.1f} % at alpha "
            f"{self.equal_error_alpha:+.2f}"
        )


def try_lock(
    lock: TripletLock, me_tests: ImageArray | FloatArray, not_me_tests: ImageArray | FloatArray
) -> LockTrial:
    """Show a lock new faces of its owner and of people it has never seen."""
    mine, theirs = lock.margins(me_tests), lock.margins(not_me_tests)
    limit_in_use = lock.settings.production_alpha
    limits = np.sort(np.concatenate([mine, theirs]))
    refused = np.array([(mine < limit).mean() for limit in limits])
    accepted = np.array([(theirs >= limit).mean() for limit in limits])
    at = int(np.abs(refused - accepted).argmin())
    a, p, n = all_triplets(len(lock.me), len(lock.not_me)).numpy().T
    known = np.concatenate([lock.me, lock.not_me])
    gaps = np.linalg.norm(known[a] - known[p], axis=1) - np.linalg.norm(known[a] - known[n], axis=1)
    return LockTrial(
        len(lock.me),
        len(lock.not_me),
        lock.settings.alpha,
        lock.steps,
        lock.seconds,
        bool((gaps + lock.settings.alpha <= 1e-6).all()),
        float((mine >= limit_in_use).mean()),
        float((theirs >= limit_in_use).mean()),
        float((refused[at] + accepted[at]) / 2),
        float(limits[at]),
    )

"""Which detection continues which track: costs in nats, solved as one optimal assignment.

The cost of continuing track ``t`` with detection ``d`` is the negative log-likelihood of the step in position
and size under a Gaussian, minus the log-likelihood ratio that their embeddings are one person (where there is
one). It competes with the cost of leaving the track without a detection, so that a face which jumps, or whose
look contradicts the track, starts a track of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.tracking.assignment import cheapest_columns
from face_recognition_node.vision.faces import FloatArray

Costs = NDArray[np.float64]

GATE = 8.0  # a step in position and size of more than four standard deviations (4^2 / 2) is no continuation
FASTEST = 15.0  # sizes of their face that a person can move in a second


def position_costs(
    predicted_xy: FloatArray,
    sizes: FloatArray,
    gaps_s: FloatArray,
    centers_xy: FloatArray,
    new_sizes: FloatArray,
) -> Costs:
    """Return (T, D) costs of steps, in nats; infinite beyond :data:`GATE`.

    The spread of a step is 10 % of the face's size (detector noise) plus 3.5 sizes per second (a head of 0.16
    m that changes its speed by 0.5 m/s), and of its log size 0.1 plus 1 per second; both stop growing after
    0.5 s. Tracks have (T, 2) expected centres, (T,) last sizes and gaps since they were seen, detections (D,
    2) centres and (D,) sizes; pixels and seconds.
    """
    gaps = np.clip(np.asarray(gaps_s, np.float64), 0.0, 0.5)
    scale = np.sqrt(np.outer(sizes, new_sizes).astype(np.float64))
    spread = scale * (0.1 + 3.5 * gaps)[:, None]
    step = np.linalg.norm(predicted_xy[:, None, :].astype(np.float64) - centers_xy[None, :, :], axis=2)
    growth = np.log(np.asarray(new_sizes, np.float64)[None, :] / np.asarray(sizes, np.float64)[:, None])
    costs = 0.5 * (step / spread) ** 2 + 0.5 * (growth / (0.1 + gaps)[:, None]) ** 2
    return np.where(costs <= GATE, costs, np.inf)


def reachable(
    last_xy: FloatArray, sizes: FloatArray, gaps_s: FloatArray, centers_xy: FloatArray, new_sizes: FloatArray
) -> NDArray[np.bool_]:
    """Return (T, D) which detections a person can have reached since the track was seen.

    At most 15 face sizes a second (a head of 0.16 m at 2.4 m/s) and one for the noise of the boxes; arguments
    as of :func:`position_costs`, but for the centers where the tracks were last.
    """
    scale = np.sqrt(np.outer(sizes, new_sizes).astype(np.float64))
    step = np.linalg.norm(last_xy[:, None, :].astype(np.float64) - centers_xy[None, :, :], axis=2)
    return np.asarray(step <= scale * (1.0 + FASTEST * np.asarray(gaps_s, np.float64))[:, None])


def contested(costs: Costs) -> NDArray[np.bool_]:
    """Return (D,) which detections could continue several tracks, or share their only track with another."""
    possible = np.isfinite(costs)
    shared_tracks = possible.sum(axis=1) > 1
    return np.asarray((possible.sum(axis=0) > 1) | (possible & shared_tracks[:, None]).any(axis=0))


def solve(costs: Costs, cost_of_leaving: float) -> list[tuple[int, int]]:
    """Return the (track, detection) pairs of the cheapest assignment of (T, D) costs.

    Infinite costs mean impossible. No pair dearer than the cost of leaving a track without a detection is
    made.
    """
    n_tracks, n_detections = costs.shape
    if n_tracks == 0 or n_detections == 0:
        return []
    impossible = 1e6
    padded = np.full((n_tracks, n_detections + n_tracks), impossible)
    padded[:, :n_detections] = np.where(np.isfinite(costs), costs, impossible)
    padded[np.arange(n_tracks), n_detections + np.arange(n_tracks)] = cost_of_leaving
    return [(t, d) for t, d in enumerate(cheapest_columns(padded).tolist()) if d < n_detections]

"""Made-up people to calibrate on."""

from __future__ import annotations

import numpy as np

from face_recognition_node.evaluation.calibration import LabelledFaces


def population(n_people: int = 150, seed: int = 0) -> LabelledFaces:
    """Return made-up people in 32 dimensions: five photographs each, in three qualities."""
    rng = np.random.default_rng(seed)
    rows, qualities, people, photographs = [], [], [], []
    for person in range(n_people):
        direction = rng.normal(size=32)
        for photograph in range(5):
            look = direction + 0.75 * rng.normal(size=32)
            for quality, noise in (
                (0.95, 0.0),
                (0.85, 0.2),
                (0.75, 0.35),
                (0.6, 0.6),
                (0.45, 0.9),
                (0.3, 1.4),
            ):
                seen = look + noise * rng.normal(size=32)
                rows.append(seen / np.linalg.norm(seen))
                qualities.append(quality)
                people.append(person)
                photographs.append(5 * person + photograph)
    return LabelledFaces(
        np.array(rows, np.float32), np.array(qualities, np.float32), np.array(people), np.array(photographs)
    )

"""Faces of earlier batches, kept to find look-alikes among.

Of 64 faces drawn at random hardly two look alike, but it is look-alikes that get each other's names. The
last few thousand embeddings cost nothing to keep, and change so slowly that they still say what the network
thinks (cross-batch memory, Wang et al. 2020): every batch is compared with all of them, and the pairs that
the network or its teacher finds alike are the ones to learn from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FaceMemory:
    """The last ``size`` faces: the network's vectors as they were, and the teacher's.

    No module's buffer on purpose: DistributedDataParallel would send it to every process at every step.

    Args:
        size: Faces to keep.
        vector_size: Length of the network's vectors.
        teacher_size: Length of the teacher's.
    """

    def __init__(self, size: int, vector_size: int, teacher_size: int) -> None:
        self.vectors = torch.zeros(size, vector_size)
        self.teacher = torch.zeros(size, teacher_size)
        self.count = 0
        """Faces ever added; the next one takes place ``count % size``."""

    @torch.no_grad()
    def add(self, vectors: Tensor, teacher: Tensor) -> None:
        """Keep (B, D) and (B, T) unit vectors in place of the oldest."""
        self._move_to(vectors.device)
        added = torch.arange(max(0, len(vectors) - len(self.vectors)), len(vectors), device=vectors.device)
        places = (self.count + added) % len(self.vectors)
        self.vectors[places], self.teacher[places] = vectors[added], teacher[added]
        self.count += len(vectors)

    def _move_to(self, device: torch.device) -> None:
        self.vectors, self.teacher = self.vectors.to(device), self.teacher.to(device)

    def faces(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the (M, D) and (M, T) vectors kept so far; the first is a copy, for the gradient."""
        self._move_to(device)
        kept = min(self.count, len(self.vectors))
        return self.vectors[:kept].clone(), self.teacher[:kept]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"vectors": self.vectors, "teacher": self.teacher, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the faces out of a checkpoint."""
        self.vectors, self.teacher, self.count = state["vectors"], state["teacher"], int(state["count"])

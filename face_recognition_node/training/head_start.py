"""Heads that fit the network they are put on, found in closed form before the first step.

A network that has learned something is given random heads: until these have learned as well, what they send
back undoes part of what was there. A short run pays for that with most of its steps. So the linear maps to
the teacher are solved by ridge regression over some thousand faces, and each class starts at the mean of its
faces, as prototypes do in few-shot learning (Snell et al. 2017, eq. 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.training.embedder_module import EmbedderStage, normalise_images
from face_recognition_node.training.face_data import AugmentedFaces
from face_recognition_node.training.stages import EMBEDDING

_BATCH = 64
_RIDGE = 1e-3
"""Of the mean diagonal of the normal equations."""


def choose_faces(indices: LabelArray, classes: LabelArray, count: int, seed: int) -> LabelArray:
    """Return ``count`` of the faces (all, if there are fewer), as many of every class as there is room for.

    Args:
        indices: Faces to choose from.
        classes: (N,) class numbers of all faces, -1 for none.
        count: Most faces to take.
        seed: Of the choice.
    """
    shuffled = np.random.default_rng((seed, 4)).permutation(indices)
    of_shuffled = classes[shuffled]
    order = np.argsort(of_shuffled, kind="stable")
    _, starts, counts = np.unique(of_shuffled[order], return_index=True, return_counts=True)
    turn = np.empty(len(shuffled), np.int64)  # the how manyth of its class a face is
    turn[order] = np.arange(len(shuffled)) - np.repeat(starts, counts)
    turn[of_shuffled < 0] = len(shuffled)
    return np.asarray(shuffled[np.argsort(turn, kind="stable")[:count]], np.int64)


def fit_heads(module: EmbedderStage, faces: AugmentedFaces, chosen: LabelArray) -> str:
    """Fit those heads of ``module`` that have a closed form to its network as it is.

    Args:
        module: Its network keeps its weights; ``project``, ``project_map`` and the centres of a margin loss
            on the embedding are replaced.
        faces: Where faces come from; they should not be augmented.
        chosen: Numbers of the faces to fit to.

    Returns:
        A sentence that says what was fitted.
    """
    to_teacher, to_map = _NormalEquations(), _NormalEquations()
    identity = module.stage.identity
    centres = module.identity.centres() if module.identity is not None else None
    if identity is not None and identity.vectors != EMBEDDING:
        centres = None
    sums = None if centres is None else torch.zeros_like(centres)
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        for batch in _batches(faces, chosen):
            maps = module.network.features(normalise_images(batch["image"].to(module.device)))
            unit = functional.normalize(module.network.pool(maps), dim=1)
            if module.project is not None:
                to_teacher.add(unit, batch["teacher"].to(unit.device))
            if module.project_map is not None:
                teacher = functional.normalize(batch["teacher_map"].to(unit.device), dim=1)
                to_map.add(_positions(maps), _positions(teacher))
            if sums is not None:
                known = batch["label"] >= 0
                sums.index_add_(1, batch["label"][known].to(unit.device), unit[known].T)
    module.train(was_training)
    fitted = []
    with torch.no_grad():
        if module.project is not None:
            module.project.weight.copy_(to_teacher.solve())
            fitted.append("the map to the teacher's embedding")
        if module.project_map is not None:
            module.project_map.weight.copy_(to_map.solve()[:, :, None, None])
            fitted.append("the map to its feature maps")
        if centres is not None and sums is not None:
            seen = sums.norm(dim=0) > 0
            centres[:, seen] = functional.normalize(sums[:, seen], dim=0).to(centres)
            fitted.append(f"{int(seen.sum())} class centres")
    return f"fitted to {len(chosen)} faces: {', '.join(fitted) or 'nothing'}"


@dataclass(slots=True)
class _NormalEquations:
    """Sums of a linear regression without intercept."""

    inner: Tensor | None = None
    cross: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add (N, P) inputs and (N, Q) targets."""
        inner, cross = (x.T @ x).double(), (x.T @ y).double()
        self.inner = inner if self.inner is None else self.inner + inner
        self.cross = cross if self.cross is None else self.cross + cross

    def solve(self) -> Tensor:
        """Return the (Q, P) weights."""
        if self.inner is None or self.cross is None:
            raise ValueError("expected at least one face to fit a head to, got none")
        ridge = _RIDGE * self.inner.diagonal().mean()
        regular = self.inner + ridge * torch.eye(len(self.inner), dtype=torch.float64, device=ridge.device)
        weights: Tensor = torch.linalg.solve(regular, self.cross).T.float()
        return weights


def _positions(maps: Tensor) -> Tensor:
    """Return (B·H·W, C) of (B, C, H, W)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _batches(faces: AugmentedFaces, chosen: LabelArray) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(chosen), _BATCH):
        yield default_collate([faces[(int(index), int(index))] for index in chosen[start : start + _BATCH]])

"""What the embedder is trained for: identities, distances of pairs and triplets, and a teacher's embeddings.

Metric losses are pytorch-metric-learning's; distances are Euclidean between unit vectors.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor, nn
from torch.nn import functional

from face_recognition_node.common.errors import ConfigurationError


class HadsellContrastiveLoss(losses.ContrastiveLoss):
    """Contrastive loss of Hadsell, Chopra & LeCun (2006), eq. 4: same pays ½d², different ½max(0, m − d)².

    The library's own version has the same shape without the squares. The mean over positive pairs is added
    to that over negative pairs, so that the many negative pairs of a batch do not drown the few others.

    Args:
        margin: Distance from which two different people cost nothing.
        counts_near_only: Average over those pairs of two people alone that are nearer than the margin: most
            soon are further apart, and averaged over them too, the few that matter would hardly count.
    """

    def __init__(self, margin: float = 1.0, counts_near_only: bool = False) -> None:
        super().__init__(
            pos_margin=0.0,
            neg_margin=margin,
            distance=distances.LpDistance(p=2),
            reducer=reducers.AvgNonZeroReducer() if counts_near_only else reducers.MeanReducer(),
        )

    def pos_calc(self, pos_pair_dist: Tensor, margin: float) -> Tensor:
        """Return ½d² of the pairs of one person."""
        return 0.5 * pos_pair_dist**2

    def neg_calc(self, neg_pair_dist: Tensor, margin: float) -> Tensor:
        """Return ½max(0, m − d)² of the pairs of two people."""
        return 0.5 * functional.relu(margin - neg_pair_dist) ** 2


def build_metric_loss(kind: str, margin: float) -> Any:
    """Return the contrastive (Hadsell) or triplet (Schroff et al. 2015, eq. 2: squared distances) loss."""
    if kind == "contrastive":
        return HadsellContrastiveLoss(margin)
    return losses.TripletMarginLoss(margin=margin, distance=distances.LpDistance(p=2, power=2))


def build_miner(kind: str, loss: str, margin: float) -> Any | None:
    """Return the miner that picks a batch's pairs or triplets; None (``all``) takes all of them.

    ``semihard``: the negative is further than the positive, but within the margin (Schroff et al. 2015,
    section 3.2).
    """
    if kind == "all":
        return None
    if loss != "triplet":
        raise ConfigurationError(f"miner: {kind!r} is for triplets, not for {loss} losses")
    squared = distances.LpDistance(p=2, power=2)
    return miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=squared)


class IdentityHead(nn.Module):
    """Classifies identities: a plain linear layer (``cross_entropy``), or unit centres with a margin.

    That is CosFace's, of the cosine; its scale is a factor on the cosines (``cosface``, Wang et al. 2018).
    """

    def __init__(
        self,
        kind: str,
        inputs: int,
        n_classes: int,
        margin: float = 0.2,
        scale: float = 24.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.loss: Any
        if kind == "cross_entropy":
            self.classify = nn.Linear(inputs, n_classes)
            self.loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
        else:
            self.loss = losses.CosFaceLoss(
                num_classes=n_classes, embedding_size=inputs, margin=margin, scale=scale
            )
            self.loss.cross_entropy.label_smoothing = smoothing

    def centres(self) -> nn.Parameter | None:
        """Return the (D, n_classes) class centres of a margin loss, None for a linear layer."""
        return None if self.kind == "cross_entropy" else cast(nn.Parameter, self.loss.W)

    def forward(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss of (B, D) vectors with (B,) class numbers; 0 for an empty batch."""
        if len(vectors) == 0:
            return vectors.sum() * 0
        if self.kind == "cross_entropy":
            return cast(Tensor, self.loss(self.classify(vectors), classes))
        return cast(Tensor, self.loss(vectors, classes))


def relation_loss(unit: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the similarity matrices of a batch, their diagonals left out.

    The unit vectors are (B, D) of the network in training and (B, T) of the teacher.
    """
    if len(unit) < 2:
        return unit.sum() * 0
    apart = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return ((unit @ unit.T - teacher @ teacher.T)[apart] ** 2).mean()


def look_alike_loss(
    unit: Tensor,
    teacher: Tensor,
    others: tuple[Tensor, Tensor],
    threshold: float,
    teacher_threshold: float | None = None,
) -> Tensor:
    """Return the mean squared difference of similarities, over the pairs that somebody finds alike.

    A pair of a face of the batch and another face counts if its cosine, by the network or by the teacher,
    exceeds its threshold: who the network confuses moves apart, who is one person together, and the many
    pairs that both find different, on which a network of fewer dimensions cannot follow its teacher anyway,
    cost nothing. Unit vectors are (B, D) of the network and (B, T) of the teacher, and (M, D) and (M, T) of
    the others (:class:`FaceMemory`), from which nothing is learned. No threshold of the teacher: the
    network's.
    """
    ours, theirs = unit @ others[0].T, teacher @ others[1].T
    least = threshold if teacher_threshold is None else teacher_threshold
    counted = (ours.detach() > threshold) | (theirs > least)
    return ((ours - theirs) ** 2 * counted).sum() / counted.sum().clamp(min=1)


class FaceMemory:
    """The last ``size`` faces to find look-alikes among: the network's and the teacher's vectors.

    Of 64 faces drawn at random hardly two look alike, but look-alikes get each other's names. Embeddings of
    the last few thousand faces change slowly enough to compare with (cross-batch memory, Wang et al. 2020).
    No module's buffer on purpose: DistributedDataParallel would send it to every process at every step.
    """

    def __init__(self, size: int, vector_size: int, teacher_size: int) -> None:
        self.vectors = torch.zeros(size, vector_size)
        self.teacher = torch.zeros(size, teacher_size)
        self.count = 0  # faces ever added; the next one takes place `count % size`

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

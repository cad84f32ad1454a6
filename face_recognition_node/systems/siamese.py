"""The small siamese network of the Olivetti article: 64×64 grey faces in, a score for a pair out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

GREY_FACE_SIZE = 64
GREY_EMBEDDING_SIZE = 128


class SiameseEncoder(nn.Module):
    """Three blocks of convolution, pooling and dropout, then a linear layer; its output is not normalised.

    Args:
        channels: Channels of the three blocks.
        dropout: Share of features dropped after each block while training.
        input_channels: 1 for grey faces, 3 for colour.
        embedding_size: Numbers in an embedding.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (16, 32, 64),
        dropout: float = 0.3,
        input_channels: int = 1,
        embedding_size: int = GREY_EMBEDDING_SIZE,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in zip((input_channels, *channels[:-1]), channels, strict=True):
            blocks += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Dropout(dropout),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.embed = nn.Linear(channels[-1] * (GREY_FACE_SIZE // 8) ** 2, embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, embedding_size) of (B, input_channels, 64, 64) faces in [0, 1]."""
        return cast(Tensor, self.embed(self.blocks(x).flatten(1)))


class SiameseScorer(nn.Module):
    """One encoder for both pictures; the sigmoid of their Euclidean distance is the score."""

    def __init__(self, encoder: SiameseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        # score = sigmoid(scale * distance + bias): a scale below zero makes near pairs score high
        self.scale = nn.Parameter(torch.tensor(-1.0))
        self.bias = nn.Parameter(torch.tensor(1.0))

    def logits(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B,) log-odds of "same person" for two (B, 128) batches of embeddings."""
        return self.scale * functional.pairwise_distance(first, second) + self.bias

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B,) log-odds of "same person" for two (B, 1, 64, 64) batches of faces."""
        return self.logits(self.encoder(first), self.encoder(second))

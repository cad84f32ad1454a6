"""The small encoder of the Olivetti article, also of the small triplet lock: 64×64 faces to vectors."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

GREY_FACE_SIZE = 64


class SiameseEncoder(nn.Module):
    """Three blocks of convolution, pooling and dropout, then a linear layer; its output is not normalised.

    ``dropout`` is the share of features dropped after each block while training.
    """

    def __init__(self, dropout: float = 0.3, input_channels: int = 1, embedding_size: int = 128) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in ((input_channels, 16), (16, 32), (32, 64)):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            blocks += [convolution, nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)]
        self.blocks = nn.Sequential(*blocks)
        self.embed = nn.Linear(64 * (GREY_FACE_SIZE // 8) ** 2, embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, embedding_size) of (B, input_channels, 64, 64) faces in [0, 1]."""
        return cast(Tensor, self.embed(self.blocks(x).flatten(1)))

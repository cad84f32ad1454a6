"""A SqueezeNet-like encoder for four-channel RGB-D faces (after Iandola et al. 2016)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_SIZE = 128


class Fire(nn.Module):
    """Squeeze to few channels by 1×1, then expand by 1×1 and 3×3 side by side (Iandola et al. 2016, §3.2)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(
            nn.Conv2d(inputs, squeezed, 1, bias=False), nn.BatchNorm2d(squeezed), nn.ReLU()
        )
        self.expand1 = nn.Conv2d(squeezed, expanded, 1, bias=False)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1, bias=False)
        self.norm = nn.Sequential(nn.BatchNorm2d(2 * expanded), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2 * expanded, H, W)."""
        x = self.squeeze(x)
        return cast(Tensor, self.norm(torch.cat([self.expand1(x), self.expand3(x)], dim=1)))


class SqueezeEncoder(nn.Module):
    """(B, channels, H, W) → (B, 128) unit vectors; H and W of 32 px or more, 80 by intent.

    On the unit sphere the contrastive loss cannot be lowered by shrinking all vectors at once. A network that
    may do so makes every distance half the margin and learns no more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(4, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            nn.MaxPool2d(3, 2, 1), Fire(32, 16, 32), Fire(64, 16, 32),
            nn.MaxPool2d(3, 2, 1), Fire(64, 24, 64), Fire(128, 24, 64),
            nn.MaxPool2d(3, 2, 1), Fire(128, 32, 96), Fire(192, 32, 96),
        )  # fmt: skip
        # a mean over 2×2 regions keeps roughly where a feature sits; SqueezeNet's own mean is over everything
        self.pool = nn.AdaptiveAvgPool2d(2)
        # rectified features all have a large common part; without it, vectors start in all directions
        self.centre = nn.BatchNorm1d(192 * 4)
        self.dropout = nn.Dropout(0.3)
        self.embed = nn.Linear(192 * 4, EMBEDDING_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 128) unit vectors of (B, 4, H, W): blue, green, red and depth, around [-1, 1]."""
        features = self.centre(self.pool(self.blocks(self.stem(x))).flatten(1))
        return functional.normalize(self.embed(self.dropout(features)), dim=1)

"""RetinaFace (Deng et al. 2020) with a MobileNet-0.25 backbone, as it runs: batch normalisation folded in.

Backbone → feature pyramid (strides 8, 16, 32) → context modules (those of SSH, Najibi et al. 2017) → one
1×1 convolution a level that gives, for each of two anchors, the face logit, the box and the landmarks.
Decoding is vision/retinaface_decoding.py. The parameters carry no batch normalisation: the network is for
inference; the weights come from tools/convert_retinaface.py.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE_MULTIPLE = 32  # height and width of an input must be multiples of this

ANCHORS_PER_CELL = 2
HEAD_CHANNELS = ANCHORS_PER_CELL * (1 + 4 + 10)
PYRAMID_CHANNELS = 64
LEAK = 0.1

# (output channels, stride) of the depthwise-separable blocks; a level of the pyramid leaves after each row
STEM_CHANNELS = 8
BACKBONE = (
    ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)),
    ((128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)),
    ((256, 2), (256, 1)),
)


class Block(nn.Module):
    """A convolution with bias and, unless ``leak`` is None, a leaky rectifier."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        leak: float | None = LEAK,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.leak = leak

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        x = self.conv(x)
        return x if self.leak is None else functional.leaky_relu(x, self.leak)


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, inputs, 3, stride, groups=inputs), Block(inputs, outputs, 1))


class MobileNetQuarter(nn.Module):
    """MobileNet (Howard et al. 2017) a quarter as wide, without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, STEM_CHANNELS, 3, stride=2)
        stages, channels = [], STEM_CHANNELS
        for row in BACKBONE:
            blocks = []
            for outputs, stride in row:
                blocks.append(_separable(channels, outputs, stride))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of strides 8, 16 and 32."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class FeaturePyramid(nn.Module):
    """Adds what the coarse maps know to the finer ones (Lin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(Block(row[-1][0], PYRAMID_CHANNELS, 1) for row in BACKBONE)
        self.merge = nn.ModuleList(Block(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3) for _ in BACKBONE[:-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return maps of 64 channels, finest first."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for number in reversed(range(len(self.merge))):
            coarser = functional.interpolate(levels[number + 1], scale_factor=2.0, mode="nearest")
            levels[number] = self.merge[number](levels[number] + coarser)
        return levels


class ContextModule(nn.Module):
    """Looks at three sizes of neighbourhood: 3×3, and 5×5 and 7×7 as chains of 3×3."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = PYRAMID_CHANNELS // 2, PYRAMID_CHANNELS // 4
        self.near = Block(PYRAMID_CHANNELS, half, 3, leak=None)
        self.shared = Block(PYRAMID_CHANNELS, quarter, 3)
        self.middle = Block(quarter, quarter, 3, leak=None)
        self.far_first = Block(quarter, quarter, 3)
        self.far = Block(quarter, quarter, 3, leak=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 64, H, W)."""
        shared = self.shared(x)
        return functional.relu(
            torch.cat([self.near(x), self.middle(shared), self.far(self.far_first(shared))], dim=1)
        )


class RetinaFace(nn.Module):
    """The detector's network.

    Channels of an output map: 2 face logits (sigmoid gives the score), 2 × 4 box numbers, 2 × 10 landmark
    numbers, for the smaller and the larger anchor of the cell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MobileNetQuarter()
        self.pyramid = FeaturePyramid()
        self.context = nn.ModuleList(ContextModule() for _ in BACKBONE)
        self.heads = nn.ModuleList(nn.Conv2d(PYRAMID_CHANNELS, HEAD_CHANNELS, 1) for _ in BACKBONE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps of strides 8, 16 and 32, each (B, 30, H / stride, W / stride).

        ``x`` is (B, 3, H, W) BGR minus (104, 117, 123); H and W are multiples of 32.
        """
        levels = self.pyramid(self.backbone(x))
        maps = [
            head(context(level))
            for head, context, level in zip(self.heads, self.context, levels, strict=True)
        ]
        return cast(tuple[Tensor, Tensor, Tensor], tuple(maps))

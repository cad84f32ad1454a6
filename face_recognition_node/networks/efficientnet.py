"""EfficientNet-B0 as a face embedder: 112×112 faces in, 64 numbers out.

The trunk is EfficientNet-B0 (Tan & Le 2019, table 1) with the parameter names of timm's ``efficientnet_b0``
and its symmetric padding, so that weights made with either load into the other. In place of the mean pool
stands a depthwise 4×4 convolution (``gdc``, the global depthwise convolution of MobileFaceNet, Chen et al.
2018), which keeps *where* in the aligned face a feature sits; a linear layer to the embedding follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_SIZE = 64
FEATURE_CHANNELS = 1280
LAST_MAP = 4  # side of the last feature map of a face of 112 pixels


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the architecture's table."""

    expansion: int  # how many times wider a block is inside
    channels: int
    blocks: int
    stride: int  # of the first block
    kernel: int  # side of the depthwise kernel


B0_STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


class DepthwiseConvolution(nn.Conv2d):
    """One kernel a channel, around two weaknesses of oneDNN's gradient of it on a CPU.

    In bfloat16 it takes two to five times longer than in float32, which would undo what bfloat16 gains
    everywhere else: under autocast it stays in float32. For a kernel larger than the map (5×5 on 4×4) it
    falls back to a slow loop: the map is padded beforehand, which makes a training step a tenth faster.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H', W') of (B, C, H, W)."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float()).to(torch.get_autocast_dtype("cpu"))
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if self.training and x.shape[-1] < self.kernel_size[0]:
            margin = int(self.padding[0])
            padded = functional.pad(x, (margin,) * 4)
            return functional.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)
        return super().forward(x)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    return DepthwiseConvolution(channels, kernel, stride, kernel // 2)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu et al. 2018)."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) times its gates."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv_expand(functional.silu(self.conv_reduce(means))))


class SeparableBlock(nn.Module):
    """The first stage's block: depthwise, squeeze-and-excite, pointwise."""

    NORMALIZED = (("conv_dw", "bn1"), ("conv_pw", "bn2"))

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _depthwise(inputs, kernel, stride)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.se = SqueezeExcite(inputs, inputs // 4)
        self.conv_pw = _convolution(inputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        inner = self.se(functional.silu(self.bn1(self.conv_dw(x))))
        return cast(Tensor, self.bn2(self.conv_pw(inner)))


class InvertedResidual(nn.Module):
    """Widen, depthwise, squeeze-and-excite, narrow; a residual where shapes allow (Sandler et al. 2018)."""

    NORMALIZED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv_pw = _convolution(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv_dw = _depthwise(inner, kernel, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.se = SqueezeExcite(inner, inputs // 4)
        self.conv_pwl = _convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        inner = functional.silu(self.bn1(self.conv_pw(x)))
        inner = self.se(functional.silu(self.bn2(self.conv_dw(inner))))
        narrow = cast(Tensor, self.bn3(self.conv_pwl(inner)))
        return x + narrow if self.is_residual else narrow


def _stage(inputs: int, stage: Stage) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for number in range(stage.blocks):
        stride = stage.stride if number == 0 else 1
        if stage.expansion == 1:
            blocks.append(SeparableBlock(inputs, stage.channels, stage.kernel, stride))
        else:
            blocks.append(InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion))
        inputs = stage.channels
    return nn.Sequential(*blocks)


class EfficientNetEmbedder(nn.Module):
    """EfficientNet-B0 → ``gdc`` → ``embed``; its output is not normalised yet.

    A block's ``NORMALIZED`` names its convolutions and the batch normalisations behind them.
    """

    NORMALIZED = (("conv_stem", "bn1"), ("conv_head", "bn2"))

    def __init__(self, embedding_size: int = EMBEDDING_SIZE) -> None:
        super().__init__()
        self.conv_stem = _convolution(3, 32, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(32)
        stages, channels = [], 32
        for stage in B0_STAGES:
            stages.append(_stage(channels, stage))
            channels = stage.channels
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _convolution(channels, FEATURE_CHANNELS, 1)
        self.bn2 = nn.BatchNorm2d(FEATURE_CHANNELS)
        self.gdc = DepthwiseConvolution(FEATURE_CHANNELS, LAST_MAP)
        self.embed = nn.Linear(FEATURE_CHANNELS, embedding_size)

    def early_layers(self, stages: int) -> list[nn.Module]:
        """Return the stem and the first ``stages`` of the trunk's seven stages; nothing for 0."""
        return [self.conv_stem, self.bn1, *self.blocks[:stages].children()] if stages else []

    def features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (B, 1280, 4, 4) for 112×112 faces."""
        x = self.blocks(functional.silu(self.bn1(self.conv_stem(x))))
        return functional.silu(self.bn2(self.conv_head(x)))

    def pool(self, features: Tensor) -> Tensor:
        """Return (B, embedding_size) of the last feature map."""
        return cast(Tensor, self.embed(self.gdc(features).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, embedding_size), not normalised, of (B, 3, 112, 112) RGB faces in [-1, 1]."""
        return self.pool(self.features(x))

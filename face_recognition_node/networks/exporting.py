"""Write a network as the files that the robot runs: NAME.safetensors, NAME.onnx, NAME.json.

Kernels are stored in half precision, which halves the files; they are computed with in float32.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from face_recognition_node.common.errors import InputError
from face_recognition_node.common.files import file_sha256
from face_recognition_node.networks.efficientnet import EfficientNetEmbedder
from face_recognition_node.networks.loading import write_weights
from face_recognition_node.networks.retinaface import RetinaFace
from face_recognition_node.vision.alignment import ALIGNMENT_FINGERPRINT, ALIGNMENT_TEMPLATE, CROP_SIZE
from face_recognition_node.vision.model_card import ModelCard, write_card

OPSET = 17  # ONNX operator set: the newest that ONNX Runtime 1.13 (2022) and OpenVINO 2022 read


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """What export must know of a network beyond its weights."""

    name: str  # what the card calls the network
    example: tuple[int, ...]
    dynamic: Mapping[int, str]  # names of the axes of the input that may vary
    outputs: tuple[str, ...]
    card: Mapping[str, Any]  # the blocks of the card that follow from the network


DETECTOR = NetworkKind(
    name="retinaface_mobilenet025",
    example=(1, 3, 96, 128),
    dynamic={0: "batch", 2: "height", 3: "width"},
    outputs=("stride8", "stride16", "stride32"),
    card={
        "task": "face detection",
        "input": {
            "size": None,
            "size_note": "any height and width that are multiples of 32",
            "channels": "BGR",
            "mean": [104.0, 117.0, 123.0],
            "scale": [1.0, 1.0, 1.0],
        },
        "output": {
            "maps": "strides 8, 16, 32: (B, 30, H/stride, W/stride) = 2 face logits, 2x4 box, 2x10 landmarks",
            "anchor_sides": [[16, 32], [64, 128], [256, 512]],
            "variances": [0.1, 0.2],
        },
    },
)
EMBEDDER = NetworkKind(
    name="efficientnet_b0_gdc",
    example=(2, 3, CROP_SIZE, CROP_SIZE),
    dynamic={0: "batch"},
    outputs=("embedding",),
    card={
        "task": "face embedding",
        "input": {
            "size": [CROP_SIZE, CROP_SIZE],
            "channels": "RGB",
            "mean": [127.5, 127.5, 127.5],
            "scale": [127.5, 127.5, 127.5],
            "alignment": ALIGNMENT_FINGERPRINT,
            "alignment_template": [[round(float(x), 4) for x in point] for point in ALIGNMENT_TEMPLATE],
        },
    },
)


def kind_of(network: nn.Module) -> NetworkKind:
    """Return what export must know of ``network``."""
    if isinstance(network, RetinaFace):
        return DETECTOR
    if isinstance(network, EfficientNetEmbedder):
        return EMBEDDER
    raise InputError(f"network: expected RetinaFace or EfficientNetEmbedder, got {type(network).__name__}")


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write ``network`` as ONNX, batch normalisation folded in."""
    import onnx

    kind = kind_of(network)
    axes = {"image": dict(kind.dynamic)} | {name: dict(kind.dynamic) for name in kind.outputs}
    if kind is EMBEDDER:
        axes["embedding"] = {0: "batch"}
    else:
        for name in kind.outputs:
            axes[name] = {0: "batch", 2: f"height_{name}", 3: f"width_{name}"}
    with warnings.catch_warnings():
        # the exporter by tracing is older, but needs no further package and folds batch normalisation
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.eval(),
            (torch.zeros(kind.example),),
            str(path),
            input_names=["image"],
            output_names=list(kind.outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(path))
    _halve_initializers(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve_initializers(graph: Any) -> None:
    """Store the kernels of an ONNX graph in half precision, each with a Cast to float32 behind it.

    Runtimes compute the Cast once, when they load the graph.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            if np.isfinite(half).all():
                name, stored = tensor.name, f"{tensor.name}_half"
                tensor.CopyFrom(numpy_helper.from_array(half, stored))
                casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's state for the robot: kernels in half precision, biases and norms in float32.

    The step counters of batch normalisation stay out, and so does half precision where a number exceeds it.
    """
    state = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    for name, value in state.items():
        half = value.half()
        if value.dim() > 1 and half.isfinite().all():
            state[name] = half
    write_weights(state, path)


def check_target(target: Path) -> None:
    """Raise InputError for a name with a dot, of which the endings of the files would replace a part."""
    if not target.name or "." in target.name:
        better = f"; try {target.name.replace('.', '_')}" if target.name else ""
        raise InputError(f"{target}: expected a path that ends in a name without dots{better}")


def export(network: nn.Module, target: Path, about: Mapping[str, Any]) -> ModelCard:
    """Write safetensors, ONNX and card of ``network`` to ``target`` plus their endings; return the card.

    Each file appears whole. The card comes last, so that a half-finished export is refused at load. ``about``
    has the blocks of the card that do not follow from the network (version, licence, training data …); a
    calibration in it is kept only if the weights are those it was learnt for.
    """
    kind = kind_of(network)
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        weights, graph = Path(folder) / "weights.safetensors", Path(folder) / "graph.onnx"
        save_weights(network, weights)
        export_onnx(network, graph)
        files = {"safetensors": file_sha256(weights), "onnx": file_sha256(graph)}
        os.chmod(weights, 0o644)
        os.replace(weights, target.with_suffix(".safetensors"))
        os.replace(graph, target.with_suffix(".onnx"))
    values: dict[str, Any] = {"name": target.name, "task": "", **about, **kind.card}
    values |= {"name": target.name, "network": kind.name, "files": files}
    values["onnx"] = {"opset": OPSET}
    if isinstance(network, EfficientNetEmbedder):
        values["output"] = {"dimension": network.embed.out_features, "distance": "euclidean on unit vectors"}
        learnt = about.get("files", {})
        if learnt.get("safetensors") == files["safetensors"] and "calibration" in learnt:
            files["calibration"] = learnt["calibration"]
        else:
            values["calibration"] = None
    write_card(target.with_suffix(".json"), values)
    return ModelCard.read(target.with_suffix(".json"))

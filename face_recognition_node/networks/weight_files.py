"""Files of weights, read with an error that says what is wrong with them, and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from face_recognition_node.common.errors import ModelMismatchError, ModelMissingError


def read_weights(path: Path) -> dict[str, Any]:
    """Return what a ``.safetensors`` file or a file of PyTorch holds, on the CPU; no code in it is run.

    Raises:
        ModelMissingError: If there is no such file.
        ModelMismatchError: If it is damaged, no file of weights, or holds more than tensors and plain values.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelMissingError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
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

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
    os.replace(temporary, path)


def write_checkpoint(contents: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values in PyTorch's format, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    torch.save(dict(contents), temporary)
    os.replace(temporary, path)

"""Every installed runtime with one model, ready to be measured."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from face_recognition_node.cli.benchmark.frames import let_engine_be_built
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.vision.runner import ModelRunner

RUNTIMES = ("openvino", "onnxruntime", "torch", "torch_tensorrt")
_log = logging.getLogger(__name__)


class Model(Protocol):
    """A detector or an embedder."""

    @property
    def runner(self) -> ModelRunner:
        """What runs its network."""
        ...


Loaded = TypeVar("Loaded", bound=Model)


def open_runtimes(load: Callable[[str], Loaded], use: Callable[[Loaded], object]) -> dict[str, Loaded]:
    """Return by name what ``load`` makes of each runtime that works here, ready to serve."""
    opened = {}
    for name in RUNTIMES:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            model = load(name)
            let_engine_be_built(model, use)
        except BackendUnavailableError as error:  # Torch-TensorRT is installed, but there is no GPU
            _log.warning("left out: %s: %s", name, error)
        else:
            opened[name] = model
    return opened

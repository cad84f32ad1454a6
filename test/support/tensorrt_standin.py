"""A compiler and a backend that stand in for those of a GPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from face_recognition_node.vision.runner import BackendReport

torch = pytest.importorskip("torch", reason="the TensorRT backend is written in torch")


class Standin:
    """Compiles by doing nothing on the CPU, or by whatever a test wants to go wrong."""

    device = "cpu"

    def __init__(self, platform: str = "gpu-1", error: float = 0.0) -> None:
        self.platform = platform
        self.error = error
        self.failure: Exception | None = None
        self.serving_failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.compiled: list[tuple] = []
        self.loaded: list[str] = []

    def _engine(self, network):
        def engine(tensor):
            if self.serving_failure is not None:
                raise self.serving_failure
            outputs = network(tensor)
            parts = outputs if isinstance(outputs, tuple) else (outputs,)
            torch.manual_seed(0)
            return tuple(part + self.error * part.std() * torch.randn_like(part) for part in parts)

        engine.network = network
        return engine

    def compile(self, network, shapes, precision):
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        self.compiled.append((shapes, precision))
        return self._engine(network)

    def save(self, engine, shapes, path):
        torch.save(engine.network, path)

    def load(self, path):
        self.loaded.append(path.name)
        return self._engine(torch.load(path, weights_only=False))


class Fallback:
    """Answers zeros, so that a test sees who answered."""

    report = BackendReport("openvino", "CPU", "until the engine is ready", "fp32")

    def run(self, images_bgr):
        return (np.zeros((len(images_bgr), 64), np.float32),)

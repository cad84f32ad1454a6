"""Whatever runs a network, as the core sees it; the implementations are in backends/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from face_recognition_node.vision.faces import FloatArray, ImageArray


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What runs a network, and why that."""

    name: str  # "openvino", "onnxruntime", "torch" or "torch_tensorrt"
    device: str  # where it runs, as the runtime calls it ("CPU", "cuda:0 NVIDIA …")
    reason: str  # why this one: asked for, first that is available, or what the preferred one failed with
    precision: str  # "fp32", "fp16" or "bf16"


class ModelRunner(Protocol):
    """Runs one network on batches of images; does the preprocessing that the model's card states."""

    @property
    def report(self) -> BackendReport:
        """What runs the network at this moment; it may change when a faster one is ready."""
        ...

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the network's outputs for (B, H, W, 3) BGR uint8 images, B ≥ 1.

        The arrays may be overwritten by the next call. Calls must not overlap.
        """
        ...

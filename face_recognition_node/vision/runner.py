"""Whatever runs a network, as the core sees it; the implementations are in backends/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from numpy.typing import ArrayLike

from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.retinaface_decoding import Cells, Placement


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What runs a network, and why that.

    Attributes:
        name: "openvino", "onnxruntime", "torch" or "torch_tensorrt".
        device: Where it runs, as the runtime calls it ("CPU", "cuda:0 NVIDIA …").
        reason: Why this one: asked for, first that is available, or what the preferred one failed with.
        precision: "fp32", "fp16" or "bf16".
    """

    name: str
    device: str
    reason: str
    precision: str


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


@runtime_checkable
class FrameRunner(Protocol):
    """A detector's runner that does what surrounds the network where the network runs, on a GPU.

    A frame is uploaded once, as bytes; resized, searched and cut there; what comes back are the few anchors
    over the threshold and the aligned faces.
    """

    def find_cells(
        self, image_bgr: ImageArray, placements: Sequence[Placement], least_logit: float
    ) -> list[Cells] | None:
        """Return for each placement of a (H, W, 3) BGR uint8 frame the anchors that reach the logit.

        None means that this is of no use at the moment: the caller resizes, and :meth:`ModelRunner.run` runs
        the network.
        """
        ...

    def align_faces(self, image_bgr: ImageArray, landmarks_xy: ArrayLike) -> ImageArray:
        """Return what :func:`alignment.align_faces` returns, from the copy of the frame last searched.

        Another frame than that is cut on the CPU.
        """
        ...

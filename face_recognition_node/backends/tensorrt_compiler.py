"""Torch-TensorRT itself: compile a network for this GPU, write and read the result.

Written against the documentation of Torch-TensorRT 2.14 and its converter list. **It has never been run on
a GPU by the authors:** there was none. What was tested without one: that both networks export with no
operator outside the converter list, and, with a stand-in for this class, everything around it (cache,
background build, self-test, fall back).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from face_recognition_node.common.errors import BackendUnavailableError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, int, int, int]
Shapes = tuple[Shape, Shape, Shape]
"""Smallest, preferred and largest input, (B, 3, H, W) each."""
Engine = Callable[["torch.Tensor"], Any]
"""Takes the preprocessed (B, 3, H, W) float32 tensor on the GPU, returns the network's outputs there."""


class EngineCompiler(Protocol):
    """Makes engines; the real one needs a GPU, tests use a stand-in."""

    @property
    def device(self) -> str:
        """Torch's name of the device the engines run on."""
        ...

    @property
    def platform(self) -> str:
        """Everything of this machine that an engine depends on."""
        ...

    def compile(self, network: Any, shapes: Shapes, precision: str) -> Engine:
        """Return the engine of a float32 network for the smallest, preferred and largest input shape."""
        ...

    def save(self, engine: Engine, shapes: Shapes, path: Path) -> None:
        """Write an engine that this object compiled."""
        ...

    def load(self, path: Path) -> Engine:
        """Read an engine that was saved on this platform."""
        ...


class TorchTensorRtCompiler:
    """Compiles with ``torch_tensorrt.dynamo``.

    Args:
        device: "cuda:0" and the like.

    Raises:
        BackendUnavailableError: If Torch-TensorRT is not installed or there is no NVIDIA GPU.
    """

    def __init__(self, device: str = "cuda:0") -> None:
        try:
            import torch
            import torch_tensorrt
        except (ImportError, OSError) as error:  # OSError: a library of TensorRT or CUDA is missing
            raise BackendUnavailableError(
                f"torch_tensorrt cannot be imported ({error}): pip install torch-tensorrt, on a machine with "
                "an NVIDIA GPU"
            ) from error
        if not torch.cuda.is_available():
            raise BackendUnavailableError(
                "torch_tensorrt needs an NVIDIA GPU, torch finds none: check the driver with nvidia-smi"
            )
        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if device not in ("cuda", *names):
            raise BackendUnavailableError(
                f"torch_tensorrt runs on NVIDIA GPUs only: expected models.device to be one of "
                f"{', '.join(names)}, got {device}"
            )
        self._torch, self._torch_tensorrt, self.device = torch, torch_tensorrt, device

    @property
    def platform(self) -> str:
        """GPU, its driver, and the versions that engines are bound to."""
        import tensorrt

        properties = self._torch.cuda.get_device_properties(self.device)
        driver = Path("/proc/driver/nvidia/version")
        parts = (
            f"{properties.name} sm{properties.major}{properties.minor}",
            driver.read_text(encoding="utf-8").splitlines()[0] if driver.is_file() else "driver unknown",
            f"cuda {self._torch.version.cuda}",
            f"tensorrt {tensorrt.__version__}",
            f"torch {self._torch.__version__}",
            f"torch_tensorrt {self._torch_tensorrt.__version__}",
        )
        return "; ".join(parts)

    def compile(self, network: Any, shapes: Shapes, precision: str) -> Engine:
        """Export and compile; every operator must go into the engine, or this fails."""
        torch, torch_tensorrt = self._torch, self._torch_tensorrt
        program = export_network(network.to(self.device), shapes, precision, self.device)
        smallest, preferred, largest = shapes
        spec = torch_tensorrt.Input(
            min_shape=smallest, opt_shape=preferred, max_shape=largest, dtype=torch.float32
        )
        options: dict[str, Any] = {"require_full_compilation": True, "min_block_size": 1}
        if "enabled_precisions" in inspect.signature(torch_tensorrt.dynamo.compile).parameters:
            # before 2.13 TensorRT did not take the graph's number formats as they are
            options["enabled_precisions"] = (
                {torch.float16, torch.float32} if precision == "fp16" else {torch.float32}
            )
        if precision == "fp32":
            options["disable_tf32"] = True  # ten bits of mantissa are not what the self-test compares with
        compiled: Engine = torch_tensorrt.dynamo.compile(
            program, inputs=[spec], device=torch.device(self.device), **options
        )
        return compiled

    def save(self, engine: Engine, shapes: Shapes, path: Path) -> None:
        """Write as an exported program with the engine inside."""
        smallest, preferred, largest = shapes
        spec = self._torch_tensorrt.Input(
            min_shape=smallest, opt_shape=preferred, max_shape=largest, dtype=self._torch.float32
        )
        self._torch_tensorrt.save(engine, str(path), arg_inputs=[spec], retrace=False)

    def load(self, path: Path) -> Engine:
        """Read an exported program."""
        loaded: Engine = self._torch.export.load(str(path)).module()
        return loaded


def export_network(
    network: Any, shapes: Shapes, precision: str, device: str = "cpu"
) -> torch.export.ExportedProgram:
    """Return ``network`` as an exported program that takes and gives float32.

    In fp16 the casts are part of the graph, so preprocessing and decoding stay the same. A batch from 1 to
    more is dynamic; height and width are those of the preferred shape.
    """
    import torch

    from face_recognition_node.networks.loading import HalfPrecision

    smallest, preferred, largest = shapes
    module = HalfPrecision(network) if precision == "fp16" else network
    example = torch.zeros(preferred, device=device)
    dynamic = None
    if largest[0] > smallest[0]:
        dynamic = ({0: torch.export.Dim("batch", min=smallest[0], max=largest[0])},)
    return torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic)

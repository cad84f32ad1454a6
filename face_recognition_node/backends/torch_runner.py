"""Plain torch, on a CPU or an NVIDIA GPU: the reference the other backends are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from face_recognition_node.backends.preprocessing import require_batch, thread_count
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.runner import BackendReport

if TYPE_CHECKING:
    import torch

NAME = "torch"


def import_torch() -> Any:
    """Return the torch module or raise BackendUnavailableError telling the cure."""
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f"torch is not installed ({error}): pip install torch safetensors"
        ) from error
    # NVIDIA's default for float32 keeps ten bits of the mantissa; templates are compared across machines
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch


class TorchPreprocessing:
    """The card's preprocessing on the network's device; pictures are uploaded as bytes."""

    def __init__(self, card: ModelCard, device: str) -> None:
        self._torch = import_torch()
        self._device = device
        self._reverse = card.input.channels == "RGB"
        shape = (1, 3, 1, 1)
        self._mean = self._torch.tensor(card.input.mean, device=device).reshape(shape)
        self._factor = 1.0 / self._torch.tensor(card.input.scale, device=device).reshape(shape)

    def __call__(self, images_bgr: ImageArray) -> torch.Tensor:
        """Return (B, 3, H, W) float32 on the device, what the network takes, of (B, H, W, 3) uint8."""
        pixels = self._torch.from_numpy(images_bgr).to(self._device).permute(0, 3, 1, 2)
        if self._reverse:
            pixels = pixels.flip(1)
        planes: torch.Tensor = (pixels.float() - self._mean) * self._factor
        return planes.contiguous()


def as_arrays(outputs: Any) -> tuple[FloatArray, ...]:
    """Return a network's output, one tensor or several, as float32 arrays."""
    tensors = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)


def open_torch_runner(card: ModelCard, models: ModelsConfig, reason: str) -> TorchRunner:
    """Return a runner of ``NAME.safetensors``, or raise what :func:`loading.open_runner` raises."""
    import_torch()
    from face_recognition_node.networks.loading import fold_batch_norm, load_network

    return TorchRunner(card, fold_batch_norm(load_network(card)), models, reason)


class TorchRunner:
    """Runs a network eagerly.

    ``network`` is in evaluation mode and takes the preprocessed (B, 3, H, W) float32 tensor. Without a device
    among the ``models`` parameters it runs on the first NVIDIA GPU, else on the CPU.

    Raises:
        BackendUnavailableError: If the device does not exist.
    """

    def __init__(self, card: ModelCard, network: Any, models: ModelsConfig, reason: str) -> None:
        self._torch = import_torch()
        device = (models.device or ("cuda:0" if self._torch.cuda.is_available() else "cpu")).lower()
        try:
            self._network = network.to(device)
            self._preprocess = TorchPreprocessing(card, device)
        except (RuntimeError, AssertionError) as error:
            raise BackendUnavailableError(f"torch cannot use the device {device!r}: {error}") from error
        if device == "cpu":
            self._torch.set_num_threads(thread_count(models.threads))
        self.report = BackendReport(NAME, device, reason, "fp32")

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        with self._torch.inference_mode():
            return as_arrays(self._network(self._preprocess(require_batch(images_bgr))))

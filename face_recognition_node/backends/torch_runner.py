"""Plain torch, on a CPU or an NVIDIA GPU: the reference the other backends are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from face_recognition_node.backends.preprocessing import require_batch
from face_recognition_node.core.errors import BackendUnavailableError
from face_recognition_node.core.faces import FloatArray, ImageArray
from face_recognition_node.core.model_card import ModelCard, ModelsConfig
from face_recognition_node.core.runner import BackendReport

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
    return torch


class TorchPreprocessing:
    """The card's preprocessing on the network's device: the frame is uploaded once, as bytes."""

    def __init__(self, card: ModelCard, device: str) -> None:
        self._torch = import_torch()
        self._device = device
        self._reverse = card.input.channels == "RGB"
        shape = (1, 3, 1, 1)
        self._mean = self._torch.tensor(card.input.mean, device=device).reshape(shape)
        self._factor = 1.0 / self._torch.tensor(card.input.scale, device=device).reshape(shape)

    def __call__(self, images_bgr: ImageArray) -> torch.Tensor:
        """Return (B, 3, H, W) float32 on the device."""
        pixels = self._torch.from_numpy(images_bgr).to(self._device).permute(0, 3, 1, 2)
        if self._reverse:
            pixels = pixels.flip(1)
        planes: torch.Tensor = (pixels.float() - self._mean) * self._factor
        return planes.contiguous()


class TorchRunner:
    """Runs ``NAME.safetensors`` with torch, eagerly.

    Args:
        card: The model's card.
        models: Device; empty takes the first NVIDIA GPU, else the CPU.
        reason: Why this backend was chosen.

    Raises:
        BackendUnavailableError: If torch is not installed or the device does not exist.
        ModelMissingError: If the file is not there.
        ModelMismatchError: If it does not belong to its card, or not to its network.
    """

    def __init__(self, card: ModelCard, models: ModelsConfig, reason: str = "") -> None:
        self._torch = import_torch()
        from face_recognition_node.networks.folding import fold_batch_norm
        from face_recognition_node.networks.loading import load_network

        device = (models.device or ("cuda:0" if self._torch.cuda.is_available() else "cpu")).lower()
        network = fold_batch_norm(load_network(card))
        try:
            self._network = network.to(device)
            self._preprocess = TorchPreprocessing(card, device)
        except (RuntimeError, AssertionError) as error:
            raise BackendUnavailableError(f"torch cannot use the device {device!r}: {error}") from error
        if models.threads > 0:
            self._torch.set_num_threads(models.threads)
        self.report = BackendReport(NAME, device, reason, "fp32")

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        with self._torch.inference_mode():
            outputs = self._network(self._preprocess(require_batch(images_bgr)))
        return as_arrays(outputs)


def as_arrays(outputs: Any) -> tuple[FloatArray, ...]:
    """Return a network's output, one tensor or several, as float32 arrays."""
    tensors = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)

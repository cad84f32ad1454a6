"""Between the arrays of the pipeline and the tensors of a torch network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard

if TYPE_CHECKING:
    import torch


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
    """The card's preprocessing on the network's device; pictures are uploaded as bytes.

    Args:
        card: The model's card.
        device: Torch's name of the device.
    """

    def __init__(self, card: ModelCard, device: str) -> None:
        self._torch = import_torch()
        self._device = device
        self._reverse = card.input.channels == "RGB"
        shape = (1, 3, 1, 1)
        self._mean = self._torch.tensor(card.input.mean, device=device).reshape(shape)
        self._factor = 1.0 / self._torch.tensor(card.input.scale, device=device).reshape(shape)

    def __call__(self, images_bgr: ImageArray) -> torch.Tensor:
        """Return (B, 3, H, W) float32 on the device, what the network takes, of (B, H, W, 3) uint8."""
        return self.normalise(self.upload(images_bgr))

    def upload(self, images_bgr: ImageArray) -> torch.Tensor:
        """Return (B, 3, H, W) uint8 BGR on the device."""
        pixels: torch.Tensor = self._torch.from_numpy(images_bgr).to(self._device).permute(0, 3, 1, 2)
        return pixels

    def normalise(self, pixels_bgr: torch.Tensor) -> torch.Tensor:
        """Return what the network takes of (B, 3, H, W) BGR in 0 … 255."""
        if self._reverse:
            pixels_bgr = pixels_bgr.flip(1)
        planes: torch.Tensor = (pixels_bgr.float() - self._mean) * self._factor
        return planes.contiguous()


def as_arrays(outputs: Any) -> tuple[FloatArray, ...]:
    """Return a network's output, one tensor or several, as float32 arrays."""
    tensors = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)

"""Plain torch, on a CPU or an NVIDIA GPU: the reference the other backends are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from face_recognition_node.backends.frame_search import FrameSearch
from face_recognition_node.backends.preprocessing import require_batch, thread_count
from face_recognition_node.backends.torch_tensors import TorchPreprocessing, as_arrays, import_torch
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard, ModelsConfig
from face_recognition_node.vision.placement import Placement
from face_recognition_node.vision.retinaface_decoding import Cells
from face_recognition_node.vision.runner import BackendReport

NAME = "torch"


def open_torch_runner(card: ModelCard, models: ModelsConfig, reason: str) -> TorchRunner:
    """Return a runner of ``NAME.safetensors``.

    Raises:
        BackendUnavailableError: If torch is not installed or the device does not exist.
        ModelMissingError: If the file is not there.
        ModelMismatchError: If it does not belong to its card, or not to its network.
    """
    import_torch()
    from face_recognition_node.networks.loading import fold_batch_norm, load_network

    return TorchRunner(card, fold_batch_norm(load_network(card)), models, reason)


class TorchRunner:
    """Runs a network eagerly; on a GPU what surrounds a detector's network as well.

    Args:
        card: The model's card.
        network: In evaluation mode; takes the preprocessed (B, 3, H, W) float32 tensor.
        models: Device; empty takes the first NVIDIA GPU, else the CPU.
        reason: Why this backend was chosen.

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
        # on the CPU OpenCV resizes and cuts faster than torch does
        self._search = FrameSearch(self._torch, self._preprocess, device) if device != "cpu" else None
        self.report = BackendReport(NAME, device, reason, "fp32")

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        with self._torch.inference_mode():
            return as_arrays(self._network(self._preprocess(require_batch(images_bgr))))

    def find_cells(
        self, image_bgr: ImageArray, placements: Sequence[Placement], least_logit: float
    ) -> list[Cells] | None:
        """Return a detector's anchors over the threshold; see runner.FrameRunner."""
        if self._search is None:
            return None
        return self._search.find_cells(self._network, image_bgr, placements, least_logit)

    def align_faces(self, image_bgr: ImageArray, landmarks_xy: ArrayLike) -> ImageArray:
        """Return aligned faces; see runner.FrameRunner."""
        if self._search is None:
            return align_faces(image_bgr, landmarks_xy)
        return self._search.align_faces(image_bgr, landmarks_xy)

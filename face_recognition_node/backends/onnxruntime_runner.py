"""ONNX Runtime: the fallback where OpenVINO is not installed."""

from __future__ import annotations

from typing import cast

import numpy as np

from face_recognition_node.backends.preprocessing import network_input, require_batch, thread_count
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.runner import BackendReport

NAME = "onnxruntime"


class OnnxRuntimeRunner:
    """Runs ``NAME.onnx`` with ONNX Runtime on the CPU; raises what :func:`loading.open_runner` raises."""

    def __init__(self, card: ModelCard, models: ModelsConfig, reason: str = "") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailableError(
                f"onnxruntime is not installed ({error}): pip install onnxruntime"
            ) from error
        self._card = card
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count(models.threads)
        options.inter_op_num_threads = 1
        # workers that spin while they wait would take a core from the rest of the robot
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file = card.weights("onnx")
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common base of their own
            raise BackendUnavailableError(f"onnxruntime cannot run {file}: {error}") from error
        needed = self._session.get_inputs()[0]
        self._input = needed.name
        self._outputs = [card.output] if card.output else None
        self._takes_one = needed.shape[0] == 1
        self.report = BackendReport(NAME, "CPU", reason, "fp32")

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        planes = network_input(require_batch(images_bgr), self._card.input)
        if not self._takes_one:
            return self._run(planes)
        answers = [self._run(planes[k : k + 1]) for k in range(len(planes))]
        return tuple(np.concatenate(parts) for parts in zip(*answers, strict=True))

    def _run(self, planes: FloatArray) -> tuple[FloatArray, ...]:
        return tuple(cast("list[FloatArray]", self._session.run(self._outputs, {self._input: planes})))

"""Choose what runs a model, and make a detector or an embedder of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.common.resources import adopted_models_directory, models_directory
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.vision.embedding import CropEmbedder
from face_recognition_node.vision.model_card import ADOPTED, ModelCard
from face_recognition_node.vision.retinaface import RetinaFaceDetector
from face_recognition_node.vision.runner import ModelRunner

# what `auto` tries, fastest first, where torch has no NVIDIA GPU; see :func:`auto_order`
AUTO_ORDER = ("torch_tensorrt", "openvino", "onnxruntime", "torch")

# where there is neither, torch is not even asked: importing it takes seconds
_NVIDIA_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))

_log = logging.getLogger(__name__)


def _open(name: str, card: ModelCard, models: ModelsConfig, reason: str) -> ModelRunner:
    """Import a backend and open the model with it."""
    if name == "openvino":
        from face_recognition_node.backends.openvino_runner import OpenVinoRunner

        return OpenVinoRunner(card, models, reason)
    if name == "onnxruntime":
        from face_recognition_node.backends.onnxruntime_runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(card, models, reason)
    if card.network == ADOPTED:
        raise BackendUnavailableError(
            f"{card.name} was adopted as ONNX, torch has no network of it; use openvino or onnxruntime"
        )
    if name == "torch":
        from face_recognition_node.backends.torch_runner import open_torch_runner

        return open_torch_runner(card, models, reason)
    from face_recognition_node.backends.tensorrt import TorchTensorRtCompiler, TorchTensorRtRunner

    compiler = TorchTensorRtCompiler(models.device.lower() or "cuda:0")
    # the device is that of the engines; what serves meanwhile chooses its own
    serving = dataclasses.replace(models, device="")
    order = [other for other in auto_order(serving.device) if other != name]
    fallback = _first_available(order, card, serving, "until the engine is ready")
    return TorchTensorRtRunner(card, models, fallback, compiler, reason)


def open_runner(card: ModelCard, models: ModelsConfig) -> ModelRunner:
    """Return what runs this model.

    A backend that is asked for by name is the one that runs, or an error. ``auto`` takes the first of
    :func:`auto_order` that works; every better one that does not is named in the report's reason, and logged
    as a warning unless it is merely a GPU that this machine does not have.

    Raises:
        BackendUnavailableError: If nothing can run the model.
        ModelMissingError: If a file of the model is not there.
        ModelMismatchError: If a file does not belong to its card.
    """
    if models.backend != "auto":
        return _open(models.backend, card, models, "asked for by models.backend")
    return _first_available(auto_order(models.device), card, models, "auto")


def auto_order(device: str) -> tuple[str, ...]:
    """Return what ``auto`` tries, fastest first; torch comes second only for an NVIDIA GPU it may use."""
    may_use_gpu = not device or device.lower().startswith("cuda")
    has_driver = any(path.exists() for path in _NVIDIA_DRIVER)
    if may_use_gpu and has_driver and importlib.util.find_spec("torch") is not None:
        try:
            import torch
        except (ImportError, OSError):  # told when its turn comes
            return AUTO_ORDER
        if torch.cuda.is_available():
            return ("torch_tensorrt", "torch", "openvino", "onnxruntime")
    return AUTO_ORDER


def _first_available(names: Sequence[str], card: ModelCard, models: ModelsConfig, why: str) -> ModelRunner:
    passed_over: list[str] = []
    for name in names:
        if importlib.util.find_spec(name) is None:
            passed_over.append(f"{name} is not installed")
            if name != "torch_tensorrt":
                _log.warning("%s: %s", card.name, passed_over[-1])
            continue
        reason = f"{why}: {'; '.join([*passed_over, f'{name} is the next best'])}" if passed_over else why
        try:
            return _open(name, card, models, reason)
        except BackendUnavailableError as error:
            passed_over.append(f"{name} failed: {error}")
            _log.warning("%s: %s", card.name, passed_over[-1])
    raise BackendUnavailableError(
        f"nothing can run {card.name}: {'; '.join(passed_over)}. Install one: pip install openvino"
    )


def load_card(models: ModelsConfig, name: str) -> ModelCard:
    """Return the card of a model in the configured folder, or of one that the user has adopted."""
    path = models_directory(models.models_dir) / f"{name}.json"
    if not path.is_file() and (folder := adopted_models_directory()) and (folder / path.name).is_file():
        path = folder / path.name
    return ModelCard.read(path)


def load_embedder(models: ModelsConfig) -> CropEmbedder:
    """Return the configured embedder, ready to run; raises what :func:`open_runner` raises."""
    card = load_card(models, models.embedder)
    return CropEmbedder(open_runner(card, models), card)


def load_detector(models: ModelsConfig, detector: DetectorConfig) -> RetinaFaceDetector:
    """Return the configured detector, ready to run; raises what :func:`open_runner` raises."""
    if models.detector == "retinaface_resnet50":
        from face_recognition_node.backends.resnet50_runner import open_resnet50_runner, resnet50_card

        card = resnet50_card(models_directory(models.models_dir))
        return RetinaFaceDetector(open_resnet50_runner(card, models), card, detector)
    card = load_card(models, models.detector)
    return RetinaFaceDetector(open_runner(card, models), card, detector)

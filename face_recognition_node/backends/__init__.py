"""Run a model file: OpenVINO, ONNX Runtime, torch or Torch-TensorRT, each imported only when chosen."""

from face_recognition_node.backends.loading import load_detector, load_embedder, open_runner
from face_recognition_node.vision.runner import BackendReport, ModelRunner

__all__ = ["BackendReport", "ModelRunner", "load_detector", "load_embedder", "open_runner"]

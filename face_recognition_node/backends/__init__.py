"""Run a model file: OpenVINO, ONNX Runtime, torch or Torch-TensorRT, each imported only when chosen."""

"""TensorRT without a GPU: graphs against the list of converters, and what is chosen in its place."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from face_recognition_node.backends import loading
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.common.resources import models_directory
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.model_card import ModelCard

torch = pytest.importorskip("torch", reason="the TensorRT backend is written in torch")

from tensorrt_operators import CONVERTED, exported_operators, unconverted_operators  # noqa: E402

from face_recognition_node.backends.tensorrt import TorchTensorRtCompiler, export_network  # noqa: E402
from face_recognition_node.networks.loading import fold_batch_norm, load_network  # noqa: E402

EMBEDDER_SHAPES = ((1, 3, 112, 112), (4, 3, 112, 112), (16, 3, 112, 112))
DETECTOR_SHAPES = ((1, 3, 96, 128),) * 3


def card(name: str) -> ModelCard:
    return ModelCard.read(models_directory() / f"{name}.json")


@pytest.fixture(scope="module")
def embedder():
    """Return the embedder's network without batch normalisation and its float32 program of dynamic batch."""
    network = fold_batch_norm(load_network(card("efficientnet_b0_64")))
    return network, export_network(network, EMBEDDER_SHAPES, "fp32")


@pytest.fixture(scope="module")
def half_detector():
    """Return the detector's float16 program."""
    return export_network(load_network(card("retinaface_mobilenet025")), DETECTOR_SHAPES, "fp16")


@pytest.mark.slow
def test_every_operator_has_a_converter(embedder, half_detector):
    for program, convolutions in ((embedder[1], 82), (half_detector, 50)):
        operators = exported_operators(program)
        assert operators["convolution.default"] == convolutions
        assert unconverted_operators(operators) == []
        assert not any("batch_norm" in operator for operator in operators)


@pytest.mark.slow
def test_an_operator_without_converter_is_found():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.special.i0(x)

    program = torch.export.export(Odd(), (torch.ones(2, 3),))
    assert unconverted_operators(exported_operators(program)) == ["i0.default"]
    assert len(CONVERTED) > 150


@pytest.mark.slow
def test_the_exported_embedder_takes_every_batch(embedder, rng):
    network, program = embedder[0], embedder[1].module()
    for batch in (1, 2, 16):
        faces = torch.from_numpy(rng.normal(0, 0.5, (batch, 3, 112, 112)).astype(np.float32))
        with torch.no_grad():
            assert torch.allclose(program(faces), network(faces), atol=1e-3)


@pytest.mark.slow
def test_half_precision_is_inside_the_program(half_detector):
    with torch.no_grad():
        outputs = half_detector.module()(torch.zeros(1, 3, 96, 128))
    assert [output.dtype for output in outputs] == [torch.float32] * 3
    assert {value.dtype for value in half_detector.state_dict.values()} == {torch.float16}


def test_absent_torch_tensorrt_tells_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(BackendUnavailableError, match="pip install torch-tensorrt"):
        TorchTensorRtCompiler()


def test_a_gpu_without_torch_tensorrt_is_used_by_torch(monkeypatch, tmp_path):
    assert loading.auto_order("")[1] == ("torch" if torch.cuda.is_available() else "openvino")
    driver = tmp_path / "version"
    driver.write_text("NVRM version")
    monkeypatch.setattr(loading, "_NVIDIA_DRIVER", (driver,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("", "cuda:0"):
        assert loading.auto_order(device) == ("torch_tensorrt", "torch", "openvino", "onnxruntime")
    for device in ("CPU", "GPU"):  # OpenVINO's; torch on the CPU would be the slowest choice
        assert loading.auto_order(device) == loading.AUTO_ORDER
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loading.auto_order("") == loading.AUTO_ORDER


@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:7"])
def test_a_device_that_is_no_nvidia_gpu_is_refused(monkeypatch, device):
    """Then ``auto`` goes on to OpenVINO, which knows a CPU and a GPU of its own."""
    monkeypatch.setitem(sys.modules, "torch_tensorrt", types.ModuleType("torch_tensorrt"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BackendUnavailableError, match=f"one of cuda:0, got {device}"):
        TorchTensorRtCompiler(device)


def test_auto_without_a_gpu_falls_to_the_cpu_aloud(monkeypatch, caplog):
    """Torch-TensorRT is installed, but torch finds no GPU: said in the report and in the log."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", types.ModuleType("torch_tensorrt"))
    real = loading.importlib.util.find_spec
    monkeypatch.setattr(
        loading.importlib.util, "find_spec", lambda name: real("json" if name == "torch_tensorrt" else name)
    )
    report = loading.load_embedder(ModelsConfig()).backend
    assert report.name in ("openvino", "onnxruntime")
    assert "torch_tensorrt failed: torch_tensorrt needs an NVIDIA GPU" in report.reason
    assert "needs an NVIDIA GPU" in caplog.text

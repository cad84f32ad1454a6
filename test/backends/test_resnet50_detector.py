"""The optional ResNet-50 detector: what is told when a part is absent, and how its outputs are rearranged."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from face_recognition_node.backends import load_detector
from face_recognition_node.common.errors import BackendUnavailableError, ModelMismatchError, ModelMissingError
from face_recognition_node.config import DetectorConfig, ModelsConfig

torch = pytest.importorskip("torch", reason="this detector runs on torch only")


class OneFace(torch.nn.Module):
    """Has the package's interface; finds the face that its one weight points to, an anchor of stride 16."""

    def __init__(self, name, pretrained, in_channels, return_layers, out_channels) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        _, _, height, width = x.shape
        counts = [2 * (height // s) * (width // s) for s in (8, 16, 32)]
        rows = torch.zeros(1, sum(counts), 16)
        rows[..., 0] = 5.0  # background
        row, column, anchor = 3, 5, 1
        at = counts[0] + 2 * (row * (width // 16) + column) + anchor
        rows[0, at, :2] = torch.tensor([0.0, 5.0])
        rows[0, at, 2:6] = torch.tensor([1.0, -1.0, 0.0, 0.0])
        rows[0, at, 6:] = torch.arange(10) - 5.0
        return rows[..., 2:6], rows[..., :2], rows[..., 6:]


@pytest.fixture
def package(monkeypatch):
    """Put a stand-in for the package into the interpreter."""
    network = types.ModuleType("retinaface.network")
    network.RetinaFace = OneFace
    monkeypatch.setitem(sys.modules, "retinaface", types.ModuleType("retinaface"))
    monkeypatch.setitem(sys.modules, "retinaface.network", network)


def models(folder, **others) -> ModelsConfig:
    return ModelsConfig(models_dir=str(folder), detector="retinaface_resnet50", **others)


def test_absent_weights_tell_the_cure(tmp_path):
    with pytest.raises(ModelMissingError, match=r"no retinaface_resnet50\.pth; put the weights there"):
        load_detector(models(tmp_path), DetectorConfig())


def test_an_absent_package_tells_the_cure(tmp_path, monkeypatch):
    (tmp_path / "retinaface_resnet50.pth").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "retinaface", None)
    monkeypatch.setitem(sys.modules, "retinaface.network", None)
    with pytest.raises(BackendUnavailableError, match="pip install retinaface-pytorch"):
        load_detector(models(tmp_path), DetectorConfig())


def test_another_backend_is_refused(tmp_path, package):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "retinaface_resnet50.pth")
    with pytest.raises(BackendUnavailableError, match="runs on torch only"):
        load_detector(models(tmp_path, backend="openvino"), DetectorConfig())


def test_other_weights_are_refused(tmp_path, package):
    torch.save({"bias": torch.zeros(1)}, tmp_path / "retinaface_resnet50.pth")
    with pytest.raises(ModelMismatchError, match="expected the weights of retinaface_resnet50"):
        load_detector(models(tmp_path), DetectorConfig())


def test_outputs_become_the_face_they_mean(tmp_path, package):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "retinaface_resnet50.pth")
    detector = load_detector(models(tmp_path), DetectorConfig())
    assert detector.backend.name == "torch"
    faces = detector.detect(np.zeros((128, 160, 3), np.uint8))
    assert len(faces) == 1
    center = np.array([(5 + 0.5) * 16, (3 + 0.5) * 16])
    middle = center + np.array([12.8, -12.8])
    expected = np.concatenate([middle - 64, middle + 64])
    np.testing.assert_allclose(faces[0].box_xyxy, expected, atol=1e-3)
    points = center + 0.1 * 128 * (np.arange(10).reshape(5, 2) - 5.0)
    np.testing.assert_allclose(faces[0].landmarks_xy, points, atol=1e-3)
    assert faces[0].score == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-4)

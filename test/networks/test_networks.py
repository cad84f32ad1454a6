"""The torch networks: shapes, parameter names, folding, export, conversion of the detector's weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks are torch modules")

from face_recognition_node.common.errors import InputError, ModelMismatchError, ModelMissingError  # noqa: E402
from face_recognition_node.common.resources import models_directory  # noqa: E402
from face_recognition_node.networks.efficientnet import EfficientNetEmbedder  # noqa: E402
from face_recognition_node.networks.exporting import export, save_weights  # noqa: E402
from face_recognition_node.networks.loading import (  # noqa: E402
    fold_batch_norm,
    load_network,
    read_checkpoint,
    read_weights,
    write_weights,
)
from face_recognition_node.networks.retinaface import RetinaFace  # noqa: E402
from face_recognition_node.vision.model_card import ModelCard  # noqa: E402


def shipped(name: str) -> ModelCard:
    return ModelCard.read(models_directory() / f"{name}.json")


def test_embedder_shapes_and_size():
    network = EfficientNetEmbedder().eval()
    with torch.no_grad():
        assert network.features(torch.zeros(2, 3, 112, 112)).shape == (2, 1280, 4, 4)
        assert network(torch.zeros(2, 3, 112, 112)).shape == (2, 64)
    trunk = sum(
        value.numel() for name, value in network.named_parameters() if not name.startswith(("gdc", "embed"))
    )
    assert trunk == 4_007_548  # EfficientNet-B0 without its classifier (5,288,548 - 1,281,000)


def test_embedder_has_the_parameter_names_of_timm():
    names = EfficientNetEmbedder().state_dict().keys()
    for name in (
        "conv_stem.weight",
        "bn1.running_var",
        "blocks.0.0.conv_dw.weight",
        "blocks.0.0.se.conv_reduce.bias",
        "blocks.0.0.conv_pw.weight",
        "blocks.3.2.conv_pwl.weight",
        "blocks.6.0.bn3.bias",
        "conv_head.weight",
        "bn2.weight",
    ):
        assert name in names


def test_folding_changes_nothing_but_the_operators():
    network = load_network(shipped("efficientnet_b0_64"))
    folded = fold_batch_norm(network)
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(network(faces), folded(faces), atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_folding_refuses_what_nobody_names():
    with pytest.raises(InputError, match="NORMALIZED"):
        fold_batch_norm(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (480, 640)])
def test_detector_shapes(height, width):
    with torch.no_grad():
        maps = RetinaFace().eval()(torch.zeros(1, 3, height, width))
    assert [tuple(part.shape) for part in maps] == [(1, 30, height // s, width // s) for s in (8, 16, 32)]


def test_a_card_of_an_unknown_network_is_refused(tmp_path):
    values = {**shipped("efficientnet_b0_64").values, "network": "vgg"}
    path = tmp_path / "efficientnet_b0_64.json"
    path.write_text(__import__("json").dumps(values))
    with pytest.raises(ModelMismatchError, match="expected a network of"):
        load_network(ModelCard.read(path))


@pytest.fixture(scope="module")
def trained() -> EfficientNetEmbedder:
    torch.manual_seed(3)
    network = EfficientNetEmbedder(32)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("form", ["safetensors", "plain", "lightning", "averaged"])
def test_checkpoints_of_every_form_are_read(tmp_path, trained, form):
    state = trained.state_dict()
    path = tmp_path / f"last.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        write_weights(state, path)
    elif form == "plain":
        torch.save(state, path)
    elif form == "lightning":
        extra = {"head.weight": torch.zeros(3)}
        torch.save({"epoch": 1, "state_dict": {f"embedder.{k}": v for k, v in state.items()} | extra}, path)
    else:
        worse = {k: torch.zeros_like(v) for k, v in state.items()}
        torch.save({"net": worse, "average": state, "step": 7}, path)
    network = read_checkpoint(path)
    assert isinstance(network, EfficientNetEmbedder)
    assert not network.training
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, state[name]), name


def test_checkpoints_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(ModelMissingError, match="no such file of weights"):
        read_checkpoint(tmp_path / "none.pt")
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="found neither"):
        read_checkpoint(tmp_path / "other.pt")


@pytest.mark.slow
def test_export_writes_three_files_that_belong_together(tmp_path, trained):
    onnx = pytest.importorskip("onnx", reason="the train extra is not installed: no onnx")
    card = export(trained, tmp_path / "new", {"version": "7", "calibration": {"x": 1}, "name": "old"})
    assert {path.name for path in tmp_path.iterdir()} == {"new.safetensors", "new.onnx", "new.json"}
    assert card.weights("onnx").is_file()
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in tmp_path.iterdir())
    assert (card.name, card.dimension, card.values["version"]) == ("new", 32, "7")
    assert card.calibration is None  # it was learnt for other weights
    assert all(node.op_type != "BatchNormalization" for node in onnx.load(card.weights("onnx")).graph.node)
    card = card.write_calibration({"x": 1}, {"table": np.ones(2, np.float32)})
    again = export(load_network(card), tmp_path / "new", card.values)
    assert again.fingerprint == card.fingerprint
    assert again.calibration == {"x": 1}
    assert again.calibration_tables()["table"].tolist() == [1, 1]


def test_weights_are_stored_in_half_precision_and_read_as_float32(tmp_path, trained):
    from safetensors.torch import load_file

    with torch.no_grad():
        trained.conv_head.weight[0, 0] = 1e5  # more than half precision holds
    save_weights(trained, tmp_path / "w.safetensors")
    stored, read = load_file(tmp_path / "w.safetensors"), read_weights(tmp_path / "w.safetensors")
    assert stored["embed.weight"].dtype == torch.float16
    assert {stored[name].dtype for name in ("embed.bias", "bn1.running_var", "conv_head.weight")} == {
        torch.float32
    }
    assert {value.dtype for value in read.values()} == {torch.float32}
    assert torch.equal(read["embed.weight"], trained.embed.weight.half().float())
    assert torch.equal(read["conv_head.weight"], trained.conv_head.weight)


def test_export_refuses_another_network(tmp_path):
    with pytest.raises(InputError, match="expected RetinaFace or EfficientNetEmbedder"):
        export(torch.nn.Linear(2, 2), tmp_path / "x", {})

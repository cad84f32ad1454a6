"""Model cards and where models are found: each thing that can be wrong has its own error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from face_recognition_node.common.errors import ConfigurationError, ModelMismatchError, ModelMissingError
from face_recognition_node.common.files import file_sha256, write_json
from face_recognition_node.common.resources import cache_directory, config_directory, models_directory
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.alignment import ALIGNMENT_FINGERPRINT
from face_recognition_node.vision.model_card import ModelCard, ModelInput

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the card of a made-up model with both of its files."""
    (tmp_path / "toy.onnx").write_bytes(b"graph")
    (tmp_path / "toy.safetensors").write_bytes(b"weights")
    values = {
        "name": "toy",
        "network": "efficientnet_b0_gdc",
        "files": {
            "onnx": file_sha256(tmp_path / "toy.onnx"),
            "safetensors": file_sha256(tmp_path / "toy.safetensors"),
        },
        "input": {
            "size": [112, 112],
            "channels": "RGB",
            "mean": 127.5,
            "scale": [1, 2, 3],
            "alignment": "warp-1",
        },
        "output": {"dimension": 64},
        "calibration": {"table": [1, 2]},
    }
    write_json(tmp_path / "toy.json", values)
    return tmp_path / "toy.json"


def test_a_card_is_read(model):
    card = ModelCard.read(model)
    assert (card.name, card.dimension, card.alignment) == ("toy", 64, "warp-1")
    assert card.input == ModelInput((112, 112), "RGB", (127.5, 127.5, 127.5), (1.0, 2.0, 3.0))
    assert card.calibration == {"table": [1, 2]}
    assert card.weights("onnx").read_bytes() == b"graph"
    assert card.weights("safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_a_changed_or_missing_file_is_refused(model, kind):
    file = model.with_suffix(f".{kind}")
    file.write_bytes(b"something else")
    with pytest.raises(
        ModelMismatchError, match=r"expected SHA-256 [0-9a-f]{64} \(its card\), got [0-9a-f]{64}"
    ):
        ModelCard.read(model).weights(kind)
    file.unlink()
    with pytest.raises(ModelMissingError, match="no such file, but its card is there"):
        ModelCard.read(model).weights(kind)


def test_a_missing_card_names_the_others(model):
    with pytest.raises(ModelMissingError, match=r"other\.json: no such model card; .*: toy"):
        ModelCard.read(model.with_name("other.json"))


@pytest.mark.parametrize(
    "damage",
    [
        "not json",
        "[]",
        "{}",
        '{"name": "x", "network": "y", "files": {}, "input": {}}',
    ],
)
def test_a_damaged_card_is_refused(model, damage):
    model.write_text(damage)
    with pytest.raises(ModelMismatchError, match="expected a model card"):
        ModelCard.read(model)


def test_an_unknown_channel_order_is_refused(model):
    values = json.loads(model.read_text())
    values["input"]["channels"] = "GRB"
    write_json(model, values)
    with pytest.raises(ModelMismatchError, match="RGB or BGR"):
        ModelCard.read(model)


def test_the_fingerprint_follows_weights_and_alignment_only(model):
    before = ModelCard.read(model).fingerprint
    values = json.loads(model.read_text())
    values["calibration"] = None
    values["files"]["onnx"] = "0" * 64
    write_json(model, values)
    assert ModelCard.read(model).fingerprint == before
    for block, name in (("input", "alignment"), ("files", "safetensors")):
        changed = json.loads(model.read_text())
        changed[block][name] = "other"
        write_json(model, changed)
        assert ModelCard.read(model).fingerprint != before
        write_json(model, values)


def test_a_calibration_is_written_whole(model):
    card = ModelCard.read(model)
    table = np.linspace(0, 1, 7, dtype=np.float32).reshape(1, 7)
    again = card.write_calibration({"comparisons_per_track": 3.5, "levels": [0.3, 0.6]}, {"ratio": table})
    assert again.values == ModelCard.read(model).values
    assert again.calibration == {"comparisons_per_track": 3.5, "levels": [0.3, 0.6]}
    assert np.array_equal(again.calibration_tables()["ratio"], table)
    assert again.fingerprint == card.fingerprint
    names = {"toy.json", "toy.onnx", "toy.safetensors", "toy.calibration.npz"}
    assert {path.name for path in model.parent.iterdir()} == names
    assert '"levels": [0.3, 0.6]' in model.read_text()


@pytest.mark.parametrize("damage", ["other", "missing"])
def test_tables_that_are_not_those_of_the_card_are_refused(model, damage):
    ModelCard.read(model).write_calibration({}, {"ratio": np.zeros(3, np.float32)})
    tables = model.with_name("toy.calibration.npz")
    tables.write_bytes(b"other")
    card = ModelCard.read(model)  # which can still be calibrated anew
    if damage == "missing":
        tables.unlink()
    wrong = ModelMissingError if damage == "missing" else ModelMismatchError
    with pytest.raises(wrong, match=r"toy\.calibration\.npz"):
        card.calibration_tables()
    assert card.write_calibration({}, {"ratio": np.ones(3, np.float32)}).calibration_tables()["ratio"].all()


def test_the_shipped_card_is_a_page_for_people():
    path = ROOT / "models" / "efficientnet_b0_64.json"
    text = path.read_text()
    assert len(text) < 12_000
    card = ModelCard.read(path)
    assert {table.dtype for table in card.calibration_tables().values()} == {np.dtype(np.float32)}


def test_a_failed_write_leaves_the_old_file(model):
    before = model.read_text()
    with pytest.raises(TypeError):
        write_json(model, {"name": object()})
    assert model.read_text() == before
    assert len(list(model.parent.iterdir())) == 3


@pytest.mark.parametrize("name", ["retinaface_mobilenet025", "efficientnet_b0_64"])
def test_the_shipped_cards_fit_their_files(name):
    card = ModelCard.read(ROOT / "models" / f"{name}.json")
    assert card.weights("onnx").stat().st_size > 1_000_000
    assert card.weights("safetensors").stat().st_size > 1_000_000
    for block in ("version", "about", "trained_on", "licence", "licence_note"):
        assert card.values[block]
    if card.dimension:
        assert card.alignment == ALIGNMENT_FINGERPRINT


def test_models_are_looked_for_in_order(tmp_path, monkeypatch, model):
    monkeypatch.delenv("FACE_RECOGNITION_MODELS", raising=False)
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "python"))
    assert models_directory() == ROOT / "models"

    in_python = tmp_path / "python" / "share" / "face_recognition_node" / "models"
    in_ros = tmp_path / "ros" / "share" / "face_recognition_node" / "models"
    for folder in (in_python, in_ros):
        folder.mkdir(parents=True)
    assert models_directory() == ROOT / "models"  # an empty folder holds no models
    for folder in (in_python, in_ros):
        (folder / "toy.json").write_text("{}")
    assert models_directory() == in_python
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'nowhere'}:{tmp_path / 'ros'}")
    assert models_directory() == in_ros
    monkeypatch.setenv("FACE_RECOGNITION_MODELS", str(model.parent))
    assert models_directory() == model.parent
    assert models_directory(str(in_python)) == in_python


def test_a_named_folder_that_is_none_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(ModelMissingError, match=r"models\.models_dir: expected a folder"):
        models_directory(str(tmp_path / "none"))
    monkeypatch.setenv("FACE_RECOGNITION_MODELS", str(tmp_path / "none"))
    with pytest.raises(ModelMissingError, match="FACE_RECOGNITION_MODELS"):
        models_directory()


def test_config_and_cache_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert config_directory() == ROOT / "config"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "face_recognition_node"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore it
    assert cache_directory() == Path.home() / ".cache" / "face_recognition_node"


@pytest.mark.parametrize("is_new", [True, False])
def test_cache_folder_is_private_whatever_the_umask(tmp_path, monkeypatch, is_new):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if not is_new:
        (tmp_path / "face_recognition_node").mkdir()
        (tmp_path / "face_recognition_node").chmod(0o755)
    before = os.umask(0)
    try:
        folder = cache_directory()
    finally:
        os.umask(before)
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_models_config_checks_its_choices():
    with pytest.raises(ConfigurationError, match="backend"):
        ModelsConfig(backend="abacus")

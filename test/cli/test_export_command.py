"""`face-recognition export`: files that belong together, checked before they replace anything."""

from __future__ import annotations

import json

import pytest

from face_recognition_node.cli import main
from face_recognition_node.cli.models import export as verb
from face_recognition_node.common.files import file_sha256
from face_recognition_node.common.resources import models_directory
from face_recognition_node.vision.model_card import ModelCard

pytest.importorskip("torch", reason="export needs torch")


@pytest.fixture
def source():
    return models_directory() / "retinaface_mobilenet025.safetensors"


@pytest.mark.slow
def test_the_shipped_detector_is_exported_again_to_the_byte_in_half_precision(source, tmp_path, capsys):
    about = source.with_suffix(".json")
    target = tmp_path / "new" / "retinaface_mobilenet025"
    command = ["export", str(source), f"{target}.onnx", "--about", str(about), "--json"]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)
    assert all(cosine >= 0.9999 for cosine in figures["parity"].values())
    card, shipped = ModelCard.read(target.with_suffix(".json")), ModelCard.read(about)
    # What is shipped is in single precision; what was exported in half precision comes out the same again.
    assert card.fingerprint == figures["fingerprint"] != shipped.fingerprint
    assert card.values["trained_on"] == shipped.values["trained_on"]
    again = tmp_path / "again" / "retinaface_mobilenet025"
    exported = str(target.with_suffix(".safetensors"))
    assert main(["export", exported, f"{again}.onnx", "--about", str(about), "--json"]) == 0
    capsys.readouterr()
    assert file_sha256(again.with_suffix(".safetensors")) == card.sha256
    assert ModelCard.read(again.with_suffix(".json")).fingerprint == card.fingerprint
    assert len(list(target.parent.iterdir())) == 3


@pytest.mark.slow
def test_runtimes_that_disagree_stop_the_export(source, tmp_path, monkeypatch, capsys):
    from face_recognition_node.backends import preprocessing

    monkeypatch.setattr(preprocessing, "least_cosine", lambda expected, got: 0.98)
    assert main(["export", str(source), str(tmp_path / "x")]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_told(source, tmp_path, capsys):
    assert main(["export", str(tmp_path / "none.pt"), str(tmp_path / "x")]) == 2
    assert "no such file of weights" in capsys.readouterr().err
    assert main(["export", str(source), str(tmp_path / "x"), "--about", str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "list.json").write_text("[]")
    assert main(["export", str(source), str(tmp_path / "x"), "--about", str(tmp_path / "list.json")]) == 2
    assert "JSON object" in capsys.readouterr().err


def test_a_name_with_a_dot_is_refused(source, tmp_path, capsys):
    assert main(["export", str(source), str(tmp_path / "net_v1.2")]) == 2
    assert "without dots; try net_v1_2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_words_come_from_the_card_that_is_there(tmp_path):
    (tmp_path / "x.json").write_text('{"version": "3"}')
    assert verb.read_about(None, tmp_path / "x") == {"version": "3"}
    assert verb.read_about(None, tmp_path / "y") == {}

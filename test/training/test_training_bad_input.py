"""What a person may hand to train, export, unlock and teacher by mistake: a sentence, no traceback."""

import zipfile
from pathlib import Path

import pytest

pytest.importorskip("msgspec", reason="recipes are read with msgspec")

from face_recognition_node.cli import main
from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.systems.rgbd.training import Owner
from face_recognition_node.training.recipe import set_value

RECIPES = Path(__file__).parents[2] / "config" / "training"
EMBEDDER = str(RECIPES / "efficientnet_b0_64.yaml")


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """Go to a folder of files of which none is what it should be."""
    pytest.importorskip("lightning", reason="the train extra is not installed: no lightning")
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("neither weights nor a recipe")
    Path("binary").write_bytes(b"\xff\xfe\x00")
    Path("broken.yaml").write_text("kind: [1")
    Path("kind.yaml").write_text("kind: [1]")
    Path("folder").mkdir()
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("a/readme.txt", "no picture")
        archive.writestr("000/001_color.png", b"no picture")
    with zipfile.ZipFile("pictures.zip", "w") as archive:
        archive.writestr("s1/1.pgm", b"no picture")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["train", "folder"], "folder: no such recipe"),
        (["train", "text"], "expected a mapping"),
        (["train", "binary"], "binary: not YAML"),
        (["train", "broken.yaml"], "broken.yaml: not YAML"),
        (["train", "kind.yaml"], "kind: expected one of"),
        (["train", EMBEDDER, "--out", "text"], "--out: text is a file; expected the name of a folder"),
        (["train", EMBEDDER, "--devices", "0"], "devices and nodes of at least 1"),
        (["train", EMBEDDER, "--set", "seed=[1"], "--set seed=[1: the value is not YAML"),
        (["train", EMBEDDER, "--set", "stages.9.steps=1"], "'9' leads nowhere; before it stands a list of 2"),
        (["train", EMBEDDER, "--set", "stages.x=1"], "'x' leads nowhere"),
        (["train", EMBEDDER, "--set", "data=3", "--data", "folder"], "'path' leads nowhere"),
        (["train", EMBEDDER], "missing required field `path` - at `$.data`; name the data with --data PATH"),
        (["train", str(RECIPES / "rgbd_face_id.yaml")], "name the data with --data PATH"),
        (["train", str(RECIPES / "triplet_face_id.yaml")], "or labelled faces (--data PATH)"),
        (["train", str(RECIPES / "olivetti_siamese.yaml"), "--data", "text"], "expected a zip file"),
        (["train", str(RECIPES / "olivetti_siamese.yaml"), "--data", "other.zip"], "sN/M.pgm, found none"),
        (["train", str(RECIPES / "olivetti_siamese.yaml"), "--data", "pictures.zip"], "s1/1.pgm: expected a"),
        (["train", str(RECIPES / "rgbd_face_id.yaml"), "--data", "none.zip"], "got nothing there"),
        (["train", str(RECIPES / "rgbd_face_id.yaml"), "--data", "pictures.zip"], "_depth.png, found none"),
        (["train", str(RECIPES / "rgbd_face_id.yaml"), "--data", "other.zip"], "001_depth.png beside"),
        (["export", "text", "weights"], "text: expected weights"),
        (["unlock", "folder", "text"], "expected a run of a triplet_face_id or rgbd_face_id recipe"),
    ],
)
@pytest.mark.slow
def test_a_mistake_is_reported(command, complaint, wrong, capsys):
    assert main(command) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_a_torn_lock_and_a_torn_owner_are_reported(wrong, capsys):
    Path("folder/lock.pt").write_bytes(b"PK\x03\x04 half a lock")
    assert main(["unlock", "folder", "text"]) == 2
    assert "folder/lock.pt: expected weights" in capsys.readouterr().err
    Path("owner.npz").write_bytes(b"PK\x03\x04 half an owner")
    with pytest.raises(SourceError, match=r"owner\.npz: expected an owner's vectors"):
        Owner.load(Path("owner.npz"), 0.4)


def test_entries_are_set_wherever_they_lead():
    values = {"stages": [{"steps": 1}], "data": None}
    set_value(values, "stages.0.steps", 5)
    set_value(values, "data.path", "x")
    set_value(values, "new.entry", 1)
    assert values == {"stages": [{"steps": 5}], "data": {"path": "x"}, "new": {"entry": 1}}
    for name in ("stages.1.steps", "stages.-1.steps", "stages.0.steps.x"):
        with pytest.raises(ConfigurationError, match="leads nowhere"):
            set_value(values, name, 1)

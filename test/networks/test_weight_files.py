"""Files of weights: a damaged or foreign one is not a missing one, and a torn one never appears."""

import pickle

import pytest

torch = pytest.importorskip("torch", reason="weights are torch's")

from face_recognition_node.common.errors import ModelMismatchError, ModelMissingError  # noqa: E402
from face_recognition_node.networks import loading  # noqa: E402
from face_recognition_node.networks.loading import (  # noqa: E402
    read_weights,
    write_checkpoint,
    write_weights,
)


@pytest.mark.parametrize(("name", "write"), [("a.safetensors", write_weights), ("a.pt", write_checkpoint)])
def test_what_was_written_is_read(tmp_path, name, write):
    write({"weight": torch.arange(6.0).reshape(2, 3).T}, tmp_path / name)
    assert torch.equal(read_weights(tmp_path / name)["weight"], torch.arange(6.0).reshape(2, 3).T)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_named_with_its_cure(tmp_path, name, damage):
    path = tmp_path / name
    (write_weights if path.suffix == ".safetensors" else write_checkpoint)({"w": torch.ones(500)}, path)
    path.write_bytes({"cut": path.read_bytes()[:700], "empty": b"", "text": b"not weights"}[damage])
    with pytest.raises(ModelMismatchError, match=rf"{name}: expected weights .*copy it again"):
        read_weights(path)


class Harmful:
    def __reduce__(self):
        return print, ("code of a foreign file was run",)


def test_no_code_of_a_file_is_run(tmp_path, capsys):
    torch.save({"w": Harmful()}, tmp_path / "torch.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"w": Harmful()}, protocol=2))
    for path in tmp_path.iterdir():
        with pytest.raises(ModelMismatchError):
            read_weights(path)
    assert "was run" not in capsys.readouterr().out


def test_other_contents_and_no_file_are_told_apart(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(ModelMismatchError, match="weights by name, got list"):
        read_weights(tmp_path / "list.pt")
    with pytest.raises(ModelMissingError):
        read_weights(tmp_path / "none.pt")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "lock.pt"
    write_checkpoint({"w": torch.ones(1)}, path)

    def fail(contents, target):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(loading.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint({"w": torch.zeros(1)}, path)
    assert read_weights(path)["w"] == 1

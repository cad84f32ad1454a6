"""What a teacher says of each face: against a slow loop, cut off and continued, another teacher's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from training_material import write_archive

from face_recognition_node.common.errors import ModelMismatchError, ModelMissingError, SourceError

pytest.importorskip("msgspec", reason="recipes are read with msgspec")
pytest.importorskip("torch", reason="the train extra is not installed: no torch")
onnx = pytest.importorskip("onnx", reason="the train extra is not installed: no onnx")

# ruff: noqa: E402  # what follows needs torch
from face_recognition_node.evaluation.face_archive import read_teacher
from face_recognition_node.training import teacher
from face_recognition_node.training.data import FaceSet, open_faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> FaceSet:
    return open_faces(write_archive(tmp_path_factory.mktemp("faces"), people=[*range(20)]))


def make_teacher(path: Path, pool: str = "GlobalAveragePool") -> Path:
    """A network that says the mean colour, and the same as a map."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node(pool, ["image"], ["map"]),
            helper.make_node("Flatten", ["map"], ["embedding"]),
        ],
        "teacher",
        [helper.make_tensor_value_info("image", kind, ["n", 3, 112, 112])],
        [
            helper.make_tensor_value_info("map", kind, ["n", 3, 1, 1]),
            helper.make_tensor_value_info("embedding", kind, ["n", 3]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def test_embeddings_are_those_of_a_slow_loop(faces, tmp_path) -> None:
    teacher.compute_teacher(faces, make_teacher(tmp_path / "t.onnx"), tmp_path / "out", precision="fp32")
    embeddings = np.load(tmp_path / "out" / teacher.EMBEDDINGS)
    assert embeddings.dtype == np.int8
    for row in range(len(faces.labels)):
        mean = faces.crop(row)[:, :, ::-1].astype(np.float64).mean((0, 1))
        assert np.allclose(embeddings[row], 127 * mean / np.abs(mean).max(), atol=0.6)


def test_the_embedding_is_told_by_its_axes_and_may_be_of_any_size(faces, tmp_path) -> None:
    path = make_teacher(tmp_path / "t.onnx")
    model = onnx.load(path)
    outputs = list(model.graph.output)
    model.graph.node.append(onnx.helper.make_node("Concat", ["embedding"] * 50, ["wide"], axis=1))
    wide = onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.FLOAT, ["n", 150])
    del model.graph.output[:]
    model.graph.output.extend([outputs[0], wide, outputs[1]])  # the map first, an output too many last
    onnx.save(model, path)
    teacher.compute_teacher(faces, path, tmp_path / "out", precision="fp32")
    teacher.compute_teacher(
        faces, make_teacher(tmp_path / "plain.onnx"), tmp_path / "plain", precision="fp32"
    )
    embeddings = np.load(tmp_path / "out" / teacher.EMBEDDINGS)
    assert np.array_equal(embeddings, np.tile(np.load(tmp_path / "plain" / teacher.EMBEDDINGS), 50))


def test_a_teacher_without_an_embedding_is_refused(faces, tmp_path) -> None:
    path = make_teacher(tmp_path / "t.onnx")
    model = onnx.load(path)
    del model.graph.output[1]
    onnx.save(model, path)
    with pytest.raises(ModelMismatchError, match=r"expected an output \(N, D\)"):
        teacher.compute_teacher(faces, path, tmp_path / "out")


def test_a_call_that_was_cut_off_is_continued(faces, tmp_path, monkeypatch) -> None:
    model, out = make_teacher(tmp_path / "t.onnx"), tmp_path / "out"
    teacher.compute_teacher(faces, model, tmp_path / "whole")
    monkeypatch.setattr(teacher, "_BATCH", 8)
    monkeypatch.setattr(teacher, "_BATCHES_PER_SAVE", 1)
    save, calls = teacher._save, []

    def breaks(*arguments: object) -> None:
        save(*arguments)
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(teacher, "_save", breaks)
    with pytest.raises(KeyboardInterrupt):
        teacher.compute_teacher(faces, model, out)
    assert json.loads((out / teacher.STATE).read_text())["done"] == 16
    with pytest.raises(SourceError, match=f"16 of {len(faces.labels)} faces are done"):
        read_teacher(out / teacher.EMBEDDINGS, len(faces.labels))
    teacher.compute_teacher(faces, model, out)
    assert len(calls) == -(-len(faces.labels) // 8)
    assert read_teacher(out / teacher.EMBEDDINGS, len(faces.labels)) is not None
    name = teacher.EMBEDDINGS
    assert np.array_equal(np.load(out / name), np.load(tmp_path / "whole" / name))


def test_a_call_that_was_killed_before_it_saved_is_begun_again(faces, tmp_path, monkeypatch) -> None:
    model, out = make_teacher(tmp_path / "t.onnx"), tmp_path / "out"

    def breaks(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(teacher, "to_int8", breaks)
        with pytest.raises(KeyboardInterrupt):
            teacher.compute_teacher(faces, model, out)
    teacher.compute_teacher(faces, model, out)
    assert read_teacher(out / teacher.EMBEDDINGS, len(faces.labels)) is not None


def test_a_lost_file_is_computed_again_not_left_empty(faces, tmp_path) -> None:
    model, out = make_teacher(tmp_path / "t.onnx"), tmp_path / "out"
    teacher.compute_teacher(faces, model, out)
    expected = np.load(out / teacher.EMBEDDINGS)
    (out / teacher.EMBEDDINGS).unlink()
    teacher.compute_teacher(faces, model, out)
    assert np.array_equal(np.load(out / teacher.EMBEDDINGS), expected)


def test_files_of_another_teacher_or_of_nobody_are_left_alone(faces, tmp_path) -> None:
    out = tmp_path / "out"
    teacher.compute_teacher(faces, make_teacher(tmp_path / "a.onnx"), out)
    before = (out / teacher.EMBEDDINGS).read_bytes()
    with pytest.raises(ModelMismatchError, match="--out"):
        teacher.compute_teacher(faces, make_teacher(tmp_path / "b.onnx", "GlobalMaxPool"), out)
    (out / teacher.STATE).unlink()
    with pytest.raises(ModelMismatchError, match="--out"):
        teacher.compute_teacher(faces, tmp_path / "a.onnx", out)
    assert (out / teacher.EMBEDDINGS).read_bytes() == before


def test_no_teacher_is_named(faces, tmp_path) -> None:
    with pytest.raises(ModelMissingError, match="no such teacher"):
        teacher.compute_teacher(faces, tmp_path / "none.onnx", tmp_path)

"""What a teacher says of each face: against a slow loop, cut off and continued, another teacher's files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
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


def make_teacher(path: Path, window: int = 28) -> Path:
    """A network that says the mean colour, and as its map the mean colours of a grid."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    side = 112 // window
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["embedding"]),
            helper.make_node(
                "AveragePool", ["image"], ["map"], kernel_shape=[window] * 2, strides=[window] * 2
            ),
        ],
        "teacher",
        [helper.make_tensor_value_info("image", kind, ["n", 3, 112, 112])],
        [
            helper.make_tensor_value_info("embedding", kind, ["n", 3]),
            helper.make_tensor_value_info("map", kind, ["n", 3, side, side]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def test_embeddings_and_maps_are_those_of_a_slow_loop(faces, tmp_path) -> None:
    teacher.compute_teacher(faces, make_teacher(tmp_path / "t.onnx"), tmp_path / "out", precision="fp32")
    embeddings = np.load(tmp_path / "out" / teacher.EMBEDDINGS)
    maps = np.load(tmp_path / "out" / teacher.MAPS)
    assert embeddings.dtype == maps.dtype == np.int8
    assert maps.shape == (len(faces.labels), 2, 3, 4, 4)
    for row in range(len(faces.labels)):
        rgb = faces.crop(row)[:, :, ::-1].astype(np.float64)
        mean = rgb.mean((0, 1))
        assert np.allclose(embeddings[row], 127 * mean / np.abs(mean).max(), atol=0.6)
        for side, view in enumerate((rgb, rgb[:, ::-1])):
            cells = cv2.resize(view, (4, 4), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
            assert np.allclose(maps[row, side], 127 * cells / np.abs(cells).max(), atol=0.6)


def test_outputs_are_told_by_their_axes_and_may_be_of_any_size(faces, tmp_path) -> None:
    path = make_teacher(tmp_path / "t.onnx")
    model = onnx.load(path)
    outputs = list(model.graph.output)
    model.graph.node.append(onnx.helper.make_node("Concat", ["embedding"] * 50, ["wide"], axis=1))
    wide = onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.FLOAT, ["n", 150])
    del model.graph.output[:]
    model.graph.output.extend([outputs[1], wide, outputs[0]])  # the map first, an output too many last
    onnx.save(model, path)
    teacher.compute_teacher(faces, path, tmp_path / "out", precision="fp32")
    teacher.compute_teacher(
        faces, make_teacher(tmp_path / "plain.onnx"), tmp_path / "plain", precision="fp32"
    )
    embeddings = np.load(tmp_path / "out" / teacher.EMBEDDINGS)
    assert np.array_equal(embeddings, np.tile(np.load(tmp_path / "plain" / teacher.EMBEDDINGS), 50))
    maps = [np.load(tmp_path / folder / teacher.MAPS) for folder in ("out", "plain")]
    assert np.array_equal(*maps)


def test_a_teacher_without_an_embedding_is_refused(faces, tmp_path) -> None:
    path = make_teacher(tmp_path / "t.onnx")
    model = onnx.load(path)
    del model.graph.output[0]
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
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(teacher, "_save", breaks)
    with pytest.raises(KeyboardInterrupt):
        teacher.compute_teacher(faces, model, out)
    assert json.loads((out / teacher.STATE).read_text())["done"] == 16
    with pytest.raises(SourceError, match=f"16 of {len(faces.labels)} faces are done"):
        read_teacher(out / teacher.EMBEDDINGS, len(faces.labels))
    teacher.compute_teacher(faces, model, out)
    assert len(calls) == 1 + -(-len(faces.labels) // 8)
    assert read_teacher(out / teacher.EMBEDDINGS, len(faces.labels)) is not None
    for name in (teacher.EMBEDDINGS, teacher.MAPS):
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


@pytest.mark.parametrize("name", [teacher.EMBEDDINGS, teacher.MAPS])
def test_a_lost_file_is_computed_again_not_left_empty(faces, tmp_path, name) -> None:
    model, out = make_teacher(tmp_path / "t.onnx"), tmp_path / "out"
    teacher.compute_teacher(faces, model, out)
    expected = np.load(out / name)
    (out / name).unlink()
    teacher.compute_teacher(faces, model, out)
    assert np.array_equal(np.load(out / name), expected)


def test_files_of_another_teacher_or_of_nobody_are_left_alone(faces, tmp_path) -> None:
    out = tmp_path / "out"
    teacher.compute_teacher(faces, make_teacher(tmp_path / "a.onnx"), out)
    before = (out / teacher.MAPS).read_bytes()
    with pytest.raises(ModelMismatchError, match="--out"):
        teacher.compute_teacher(faces, make_teacher(tmp_path / "b.onnx", window=56), out)
    (out / teacher.STATE).unlink()
    with pytest.raises(ModelMismatchError, match="--out"):
        teacher.compute_teacher(faces, tmp_path / "a.onnx", out)
    assert (out / teacher.MAPS).read_bytes() == before


def test_no_teacher_is_named(faces, tmp_path) -> None:
    with pytest.raises(ModelMissingError, match="no such teacher"):
        teacher.compute_teacher(faces, tmp_path / "none.onnx", tmp_path)

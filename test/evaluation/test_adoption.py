"""A face network from elsewhere becomes the embedder: what its file says, what is found out by trying."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from face_recognition_node.backends import load_embedder
from face_recognition_node.cli import main
from face_recognition_node.cli.models import calibrate
from face_recognition_node.common.errors import BackendUnavailableError, ModelMismatchError, ModelMissingError
from face_recognition_node.config import ModelsConfig
from face_recognition_node.evaluation.adoption import (
    EmbedderFile,
    candidate_inputs,
    decidability,
    inspect_embedder,
    try_inputs,
)
from face_recognition_node.vision.model_card import ModelInput

onnx = pytest.importorskip("onnx")

DIMENSION = 20


def write_network(
    path: Path, layout: str = "NCHW", batch: int | str = "B", side: int = 56, second_output: int = 0
) -> Path:
    """Write a network that sees a face as a few color means and projects them at random."""
    from onnx import TensorProto, helper, numpy_helper

    shape = [batch, 3, side, side] if layout == "NCHW" else [batch, side, side, 3]
    weights = np.random.default_rng(5).normal(size=(3 * 8 * 8, DIMENSION)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["faces"], ["planes"], perm=[0, 3, 1, 2])
        if layout == "NHWC"
        else helper.make_node("Identity", ["faces"], ["planes"]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[7, 7], strides=[7, 7]),
        helper.make_node("Flatten", ["means"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["embedding"]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, DIMENSION])]
    if second_output:
        nodes.append(helper.make_node("Identity", ["row"], ["other"]))
        outputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [batch, second_output]))
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


@pytest.fixture
def archive(rng: np.random.Generator) -> SimpleNamespace:
    """Twelve people with two pictures each, which differ by noise, and pairs of both kinds."""
    faces = rng.integers(0, 256, (12, 8, 8, 3)).repeat(14, axis=1).repeat(14, axis=2)
    noisy = [np.clip(faces + rng.normal(0, 30, faces.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    pictures = np.stack(noisy, axis=1).reshape(24, 112, 112, 3)
    first, second = np.arange(24), np.concatenate([np.arange(24) ^ 1])
    pairs = SimpleNamespace(
        first=np.concatenate([first, first]),
        second=np.concatenate([second, (first + 2) % 24]),
        is_same=np.arange(48) < 24,
    )
    return SimpleNamespace(pairs=pairs, read=lambda number: pictures[number])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", [1, "B"])
def test_a_file_says_its_shapes(tmp_path: Path, layout: str, batch: int | str) -> None:
    file = inspect_embedder(write_network(tmp_path / "net.onnx", layout, batch, side=57))
    assert file == EmbedderFile((57, 57), layout, "embedding", DIMENSION)


def test_one_of_several_outputs_has_to_be_named(tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.onnx", second_output=192)
    with pytest.raises(ModelMismatchError, match="got embedding, other; name one by --output"):
        inspect_embedder(path)
    assert inspect_embedder(path, "other").dimension == 192
    with pytest.raises(ModelMismatchError, match="expected an output 'third'"):
        inspect_embedder(path, "third")


def test_what_is_no_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="no such file"):
        inspect_embedder(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelMismatchError, match="expected a face embedder in ONNX"):
        inspect_embedder(tmp_path / "text.onnx")


def test_what_is_given_is_not_tried_in_other_ways() -> None:
    file = EmbedderFile((112, 112), "NCHW", "embedding", DIMENSION)
    every = candidate_inputs(file)
    assert len(every) == 10
    assert {candidate.channels for candidate in every} == {"RGB", "BGR"}
    (one,) = candidate_inputs(file, "BGR", 127.5, 128.0)
    assert one == ModelInput((112, 112), "BGR", (127.5,) * 3, (128.0,) * 3)
    red = {candidate.mean[0 if candidate.channels == "RGB" else 2] for candidate in every}
    assert 123.675 in red
    assert 103.53 not in red, "the mean of blue went to red"


def test_decidability_is_the_distance_in_standard_deviations(rng: np.random.Generator) -> None:
    same, different = rng.normal(0.6, 0.1, 20_000), rng.normal(0.1, 0.1, 20_000)
    similarity = np.concatenate([same, different]).astype(np.float32)
    is_same = np.arange(40_000) < 20_000
    assert decidability(similarity, is_same) == pytest.approx(5.0, abs=0.1)
    assert decidability(similarity, rng.permutation(is_same)) == pytest.approx(0.0, abs=0.1)


def test_the_convention_that_separates_people_best_comes_first(archive: SimpleNamespace) -> None:
    right = ModelInput((112, 112), "RGB", (127.5,) * 3, (128.0,) * 3)

    def embed_with(candidate: ModelInput, crops: np.ndarray) -> np.ndarray:
        noise = 0.0 if candidate == right else 60.0
        disturbed = crops[:, ::14, ::14].reshape(len(crops), -1) + np.random.default_rng(1).normal(
            0, noise, (len(crops), 192)
        )
        centered = disturbed - 127.5
        return (centered / np.linalg.norm(centered, axis=1, keepdims=True)).astype(np.float32)

    file = EmbedderFile((112, 112), "NCHW", "embedding", DIMENSION)
    trials = try_inputs(candidate_inputs(file), embed_with, archive)  # type: ignore[arg-type]
    assert trials[0].input == right
    assert trials[0].decidability > trials[1].decidability
    assert str(trials[0]).startswith("RGB, minus 127.5, divided by 128: d' ")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_adopted_network_is_the_embedder_on_every_cpu_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: SimpleNamespace, layout: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(
        "face_recognition_node.evaluation.picture_archive.LfwArchive.open", lambda path: archive
    )
    calibrated = []
    monkeypatch.setattr(calibrate, "run", lambda arguments: calibrated.append(arguments.embedder) or 0)
    network = write_network(tmp_path / "net.onnx", layout, batch=1)
    command = ["adopt", str(network), "--name", "other", "--calibrate", str(tmp_path)]
    assert main(command) == 2, "the terms of use are missing"
    assert "--license" in capsys.readouterr().err
    assert main([*command, "--license", "MIT"]) == 0
    assert calibrated == ["other"]
    crops = np.stack([archive.read(number) for number in range(3)])
    answers = []
    for backend in ("openvino", "onnxruntime"):
        embedder = load_embedder(ModelsConfig(embedder="other", backend=backend, precision="fp32"))
        assert embedder.dimension == DIMENSION
        assert embedder.card.values["licence"] == "MIT"
        answers.append(embedder.embed(crops))
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(answers[0], axis=1), 1.0, atol=1e-5)
    with pytest.raises(BackendUnavailableError, match="adopted as ONNX"):
        load_embedder(ModelsConfig(embedder="other", backend="torch"))

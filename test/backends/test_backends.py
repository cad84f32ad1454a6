"""Backends: all say the same, preprocessing is the card's, the choice among them is reported."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.backends import load_detector, load_embedder, loading, open_runner, openvino_runner
from face_recognition_node.backends.openvino_runner import remove_damaged
from face_recognition_node.backends.preprocessing import network_input, thread_count
from face_recognition_node.common.errors import (
    BackendUnavailableError,
    InputError,
    ModelMismatchError,
    ModelMissingError,
)
from face_recognition_node.common.files import file_sha256
from face_recognition_node.common.resources import cache_directory, models_directory
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.model_card import ModelCard, ModelInput, write_card

NAMES = ("openvino", "onnxruntime", "torch")


def card(name: str) -> ModelCard:
    return ModelCard.read(models_directory() / f"{name}.json")


@pytest.fixture(
    scope="module", params=[NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
)
def backend(request) -> str:
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def faces(guest_bgr, stranger_bgr) -> np.ndarray:
    """Return eight real aligned faces: two people, brighter, darker, mirrored."""
    detector = load_detector(ModelsConfig(), DetectorConfig())
    crops = [align_faces(p, [detector.detect(p)[0].landmarks_xy])[0] for p in (guest_bgr, stranger_bgr)]
    variants = [crops, [crop[:, ::-1] for crop in crops], [crop // 2 for crop in crops]]
    variants.append([255 - (255 - crop) // 2 for crop in crops])
    return np.ascontiguousarray(np.concatenate([np.stack(part) for part in variants]))


def slow_input(image_bgr: np.ndarray, needs: ModelInput) -> np.ndarray:
    """Preprocess one picture, pixel channel by pixel channel, in float64."""
    order = (2, 1, 0) if needs.channels == "RGB" else (0, 1, 2)
    planes = [
        (image_bgr[:, :, source].astype(np.float64) - needs.mean[n]) / needs.scale[n]
        for n, source in enumerate(order)
    ]
    return np.stack(planes)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_preprocessing_equals_a_slow_one(rng, channels):
    needs = ModelInput(None, channels, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    images = rng.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    planes = network_input(images, needs)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes, [slow_input(image, needs) for image in images], rtol=1e-6)


def reference(name: str, images_bgr: np.ndarray) -> list[np.ndarray]:
    """Return the float32 torch network's answers to the slowly preprocessed images."""
    torch = pytest.importorskip("torch")
    from face_recognition_node.networks.loading import load_network

    needs = card(name).input
    planes = np.stack([slow_input(image, needs) for image in images_bgr]).astype(np.float32)
    with torch.no_grad():
        outputs = load_network(card(name))(torch.from_numpy(planes))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def test_every_backend_embeds_like_the_torch_network(backend, faces):
    runner = open_runner(card("efficientnet_b0_64"), ModelsConfig(backend=backend, precision="fp32"))
    (got,) = runner.run(faces)
    (expected,) = reference("efficientnet_b0_64", faces)
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.9999
    assert runner.report.name == backend
    assert runner.report.precision == "fp32"


@pytest.fixture(scope="module")
def halved(tmp_path_factory) -> dict[str, ModelCard]:
    """Return both shipped networks as export writes them: kernels in half precision."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from face_recognition_node.networks.exporting import export
    from face_recognition_node.networks.loading import load_network

    folder = tmp_path_factory.mktemp("halved")
    names = ("efficientnet_b0_64", "retinaface_mobilenet025")
    return {name: export(load_network(card(name)), folder / name, {}) for name in names}


@pytest.mark.slow
def test_weights_in_half_precision_give_the_same_on_every_backend(backend, halved, faces, guest_bgr):
    from face_recognition_node.networks.loading import load_network

    for name, made in halved.items():
        numbers = sum(value.numel() for value in load_network(card(name)).state_dict().values())
        for kind in ("safetensors", "onnx"):
            assert made.weights(kind).stat().st_size < 2.28 * numbers
    models = ModelsConfig(backend=backend, precision="fp32")
    (got,) = open_runner(halved["efficientnet_b0_64"], models).run(faces)
    (expected,) = reference("efficientnet_b0_64", faces)
    assert got.dtype == np.float32
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.9999
    picture = np.ascontiguousarray(guest_bgr[None, 32:288, 96:416])
    maps = open_runner(halved["retinaface_mobilenet025"], models).run(picture)
    for one, other in zip(maps, reference("retinaface_mobilenet025", picture), strict=True):
        cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine >= 0.9999


def test_every_backend_detects_like_the_torch_network(backend, guest_bgr):
    picture = np.ascontiguousarray(guest_bgr[None, 32:288, 96:416])
    models = ModelsConfig(backend=backend, precision="fp32")
    runner = open_runner(card("retinaface_mobilenet025"), models)
    assert runner.report.precision == "fp32"
    got, expected = runner.run(picture), reference("retinaface_mobilenet025", picture)
    assert len(got) == 3
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.slow
def test_a_size_that_is_no_longer_asked_for_is_let_go_and_comes_back(monkeypatch):
    pytest.importorskip("openvino")
    from face_recognition_node.backends import openvino_runner

    monkeypatch.setattr(openvino_runner, "_KEPT_RUNS", 4)
    runner = openvino_runner.OpenVinoRunner(card("retinaface_mobilenet025"), ModelsConfig())
    usual, rare = np.full((1, 32, 64, 3), 90, np.uint8), np.full((1, 32, 32, 3), 90, np.uint8)
    before = [output.copy() for output in runner.run(rare)]
    for kept in [[(1, 32, 32), (1, 32, 64)]] * 4 + [[(1, 32, 64)]] * 3:
        runner.run(usual)
        assert list(runner._requests) == kept
    for one, other in zip(runner.run(rare), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_detector_in_bfloat16_finds_the_same_faces(guest_bgr):
    openvino = pytest.importorskip("openvino")
    if openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
        pytest.skip("this processor does not multiply in bfloat16")
    quick, exact = (
        load_detector(ModelsConfig(backend="openvino", precision=precision), DetectorConfig())
        for precision in ("auto", "fp32")
    )
    assert (quick.runner.report.precision, exact.runner.report.precision) == ("bf16", "fp32")
    for scale in (0.25, 1.0):
        picture = cv2.resize(guest_bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        (one,), (other,) = quick.detect(picture), exact.detect(picture)
        assert np.abs(one.box_xyxy - other.box_xyxy).max() < 0.03 * other.size_px
        assert np.abs(one.landmarks_xy - other.landmarks_xy).max() < 0.02 * other.size_px
        assert one.score == pytest.approx(other.score, abs=0.02)


def test_embeddings_in_bfloat16_can_be_compared_with_exact_ones(faces):
    openvino = pytest.importorskip("openvino")
    if openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
        pytest.skip("this processor does not multiply in bfloat16")
    quick, exact = (
        load_embedder(ModelsConfig(backend="openvino", precision=precision)) for precision in ("auto", "fp32")
    )
    assert (quick.precision, exact.precision) == ("bf16", "fp32")
    assert (quick.embed(faces) * exact.embed(faces)).sum(1).min() >= 0.995


def test_colour_order_is_the_cards(faces):
    """Red and blue exchanged must give another embedding, or somebody mixes them up."""
    embedder = load_embedder(ModelsConfig())
    straight, exchanged = (
        embedder.embed(faces[:2]),
        embedder.embed(np.ascontiguousarray(faces[:2, ..., ::-1])),
    )
    assert ((straight * exchanged).sum(1) < 0.995).all()


def test_batches_of_any_size_give_the_same_embeddings(backend, faces):
    embedder = load_embedder(ModelsConfig(backend=backend, precision="fp32"))
    together = embedder.embed(faces)
    one_by_one = np.concatenate([embedder.embed(face[None]) for face in faces])
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    many = np.concatenate([faces] * 5)
    np.testing.assert_allclose(embedder.embed(many), np.concatenate([together] * 5), atol=1e-4)
    assert embedder.embed(faces[:0]).shape == (0, 64)


def test_the_runner_wants_a_batch_of_bytes(backend):
    runner = open_runner(card("efficientnet_b0_64"), ModelsConfig(backend=backend, precision="fp32"))
    for images in (np.zeros((1, 112, 112, 3), np.float32), np.zeros((112, 112, 3), np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            runner.run(images)


def pretend(monkeypatch, installed: set[str]) -> None:
    """Let only these backends be installed."""
    real = importlib.util.find_spec

    def find(name, package=None):
        if name in loading.AUTO_ORDER:
            return real("json") if name in installed else None
        return real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_auto_takes_the_best_and_says_why(monkeypatch, caplog):
    pretend(monkeypatch, {"openvino", "onnxruntime"})
    with caplog.at_level(logging.WARNING):
        report = load_embedder(ModelsConfig()).backend
    assert report.name == "openvino"
    assert report.reason == "auto: torch_tensorrt is not installed; openvino is the next best"
    assert not caplog.records  # a robot without a GPU is nothing to warn of


def test_a_missing_openvino_is_a_warning_not_a_silence(monkeypatch, caplog):
    pretend(monkeypatch, {"onnxruntime"})
    with caplog.at_level(logging.WARNING):
        report = load_embedder(ModelsConfig()).backend
    assert report.name == "onnxruntime"
    assert "openvino is not installed" in report.reason
    assert "openvino is not installed" in caplog.text


def test_a_backend_that_fails_is_passed_over_aloud(monkeypatch, caplog):
    pretend(monkeypatch, {"openvino", "onnxruntime"})

    def broken(card, models, reason):
        raise BackendUnavailableError("no such instruction")

    monkeypatch.setattr(openvino_runner, "OpenVinoRunner", broken)
    with caplog.at_level(logging.WARNING):
        report = load_embedder(ModelsConfig()).backend
    assert report.name == "onnxruntime"
    assert "openvino failed: no such instruction" in report.reason
    assert "openvino failed: no such instruction" in caplog.text
    with pytest.raises(BackendUnavailableError, match="no such instruction"):
        load_embedder(ModelsConfig(backend="openvino"))


def test_nothing_installed_tells_the_cure(monkeypatch):
    pretend(monkeypatch, set())
    with pytest.raises(BackendUnavailableError, match="pip install openvino"):
        load_embedder(ModelsConfig())


@pytest.mark.parametrize(("name", "module"), [("openvino", "openvino"), ("onnxruntime", "onnxruntime")])
def test_a_backend_asked_for_but_absent_tells_the_cure(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match=f"pip install {module}"):
        load_embedder(ModelsConfig(backend=name))


def test_torch_asked_for_but_absent_tells_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendUnavailableError, match="pip install torch"):
        load_embedder(ModelsConfig(backend="torch"))


@pytest.mark.slow
def test_openvino_comes_without_its_converter_and_lets_others_have_it():
    pytest.importorskip("openvino.tools.ovc")
    code = (
        "import sys; from face_recognition_node.backends.openvino_runner import import_openvino; "
        "openvino = import_openvino(); assert openvino.Core; "
        "assert not [name for name in sys.modules if 'ovc' in name or 'telemetry' in name]; "
        "import openvino.tools.ovc; assert openvino.tools.ovc.convert_model; "
        "assert import_openvino() is openvino"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("backend_name", NAMES)
def test_a_file_that_is_no_model_is_refused(tmp_path, backend_name):
    pytest.importorskip(backend_name)
    good = card("efficientnet_b0_64")
    for kind in ("onnx", "safetensors"):
        (tmp_path / f"efficientnet_b0_64.{kind}").write_bytes(b"no model")
    write_card(tmp_path / "efficientnet_b0_64.json", good.values)
    with pytest.raises(ModelMismatchError, match="SHA-256"):
        load_embedder(ModelsConfig(models_dir=str(tmp_path), backend=backend_name))
    (tmp_path / "efficientnet_b0_64.onnx").unlink()
    (tmp_path / "efficientnet_b0_64.safetensors").unlink()
    with pytest.raises(ModelMissingError):
        load_embedder(ModelsConfig(models_dir=str(tmp_path), backend=backend_name))


def test_a_detector_is_no_embedder():
    with pytest.raises(ModelMismatchError, match="alignment"):
        load_embedder(ModelsConfig(embedder="retinaface_mobilenet025"))


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch, caplog, faces):
    pytest.importorskip("openvino")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with caplog.at_level(logging.WARNING):
        embedder = load_embedder(ModelsConfig(backend="openvino"))
    assert "no cache of compiled models" in caplog.text
    assert embedder.embed(faces[:1]).shape == (1, 64)


def test_thread_count():
    assert thread_count(3) == 3
    assert 1 <= thread_count(0) <= 4


@pytest.mark.slow
def test_a_damaged_compiled_model_is_compiled_anew(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = "efficientnet_b0_64"
    open_runner(card(name), ModelsConfig(backend="openvino"))
    (blob,) = tmp_path.rglob("*.blob")
    good = blob.read_bytes()
    blob.write_bytes(good[:-1000] + bytes(1000))
    remove_damaged(blob.parent)
    assert list(blob.parent.iterdir()) == []
    open_runner(card(name), ModelsConfig(backend="openvino"))
    assert blob.is_file()
    assert blob.with_suffix(".sha256").read_text() == file_sha256(blob)


def test_no_home_directory_only_costs_the_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_directory() is None

"""TensorRT without a GPU: cache, background build, self-test, refusal, with a stand-in compiler."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from face_recognition_node.backends.preprocessing import least_cosine
from face_recognition_node.backends.tensorrt import LEAST_COSINE, engine_file_name
from face_recognition_node.common.files import file_sha256, write_json
from face_recognition_node.common.resources import models_directory
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.model_card import ModelCard

torch = pytest.importorskip("torch", reason="the TensorRT backend is written in torch")

from tensorrt_standin import Fallback, Standin  # noqa: E402

from face_recognition_node.backends.tensorrt import TorchTensorRtRunner  # noqa: E402
from face_recognition_node.networks.exporting import save_weights  # noqa: E402

EMBEDDER_SHAPES = ((1, 3, 112, 112), (4, 3, 112, 112), (16, 3, 112, 112))
DETECTOR_SHAPES = ((1, 3, 96, 128),) * 3


def card(name: str) -> ModelCard:
    return ModelCard.read(models_directory() / f"{name}.json")


class ToyEmbedder(torch.nn.Module):
    """Small enough that only the control flow takes time."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 16, 16)
        self.embed = torch.nn.Linear(8 * 49, 64)

    def forward(self, x):
        return self.embed(self.convolution(x).flatten(1))


class ToyDetector(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(3, 30, s, s) for s in (8, 16, 32))

    def forward(self, x):
        return tuple(head(x) for head in self.heads)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Return a folder of model files of two small networks that the loader knows for this module."""
    from face_recognition_node.networks import loading as networks

    folder = tmp_path_factory.mktemp("toys")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for name, like, network in (
            ("toy_embedder", "efficientnet_b0_64", ToyEmbedder),
            ("toy_detector", "retinaface_mobilenet025", ToyDetector),
        ):
            patch.setitem(networks.NETWORKS, name, lambda card, network=network: network())
            save_weights(network(), folder / f"{name}.safetensors")
            digest = file_sha256(folder / f"{name}.safetensors")
            values = {**card(like).values, "name": name, "network": name}
            write_json(folder / f"{name}.json", {**values, "files": {"safetensors": digest, "onnx": ""}})
        yield folder


@pytest.fixture
def start(toys, tmp_path):
    """Return a function that starts a runner of the toy embedder with its cache in the test's folder."""

    def start(compiler, folder=tmp_path, precision="auto") -> TorchTensorRtRunner:
        models = ModelsConfig(precision=precision)
        toy = ModelCard.read(toys / "toy_embedder.json")
        return TorchTensorRtRunner(toy, models, Fallback(), compiler, "auto", folder)

    return start


@pytest.fixture
def crops(rng) -> np.ndarray:
    return rng.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)


def test_the_other_backend_serves_until_the_engine_is_proven(start, crops):
    compiler = Standin()
    compiler.gate.clear()
    runner = start(compiler)
    assert not runner.run(crops)[0].any()
    report = runner.report
    assert (report.name, report.precision) == ("openvino", "fp32")
    assert "its engine is" in report.reason
    assert "meanwhile openvino" in report.reason
    compiler.gate.set()
    assert runner.wait(60)
    assert runner.run(crops)[0].any()
    report = runner.report
    assert (report.name, report.device, report.precision) == ("torch_tensorrt", "cpu", "fp16")
    assert "self-test cosine 1.0" in report.reason
    assert compiler.compiled == [(EMBEDDER_SHAPES, "fp16")]


def test_a_second_start_reads_the_cache(start, tmp_path, crops):
    first = Standin()
    assert start(first).wait(60)
    second = Standin()
    runner = start(second)
    assert runner.wait(60)
    assert runner.run(crops)[0].any()
    assert second.compiled == []
    assert len(second.loaded) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change", ["platform", "precision"])
def test_another_gpu_driver_version_or_precision_builds_anew(start, change):
    assert start(Standin()).wait(60)
    other = Standin(platform="gpu-2" if change == "platform" else "gpu-1")
    assert start(other, precision="fp32" if change == "precision" else "auto").wait(60)
    assert len(other.compiled) == 1
    assert other.loaded == []


def test_a_torn_cache_file_is_built_anew(start, tmp_path, crops):
    assert start(Standin()).wait(60)
    next(tmp_path.iterdir()).write_bytes(b"torn")
    compiler = Standin()
    runner = start(compiler)
    assert runner.wait(60)
    assert len(compiler.compiled) == 1
    assert runner.report.name == "torch_tensorrt"  # it has not answered yet, but would
    third = Standin()
    assert start(third).wait(60)
    assert third.compiled == []  # the torn file was replaced by a whole one


def test_an_inexact_engine_is_refused_and_not_kept(start, tmp_path, crops, caplog):
    runner = start(Standin(error=0.2))
    assert runner.wait(60)
    assert not runner.run(crops)[0].any()
    assert runner.report.name == "openvino"
    assert "refused: self-test cosine" in runner.report.reason
    assert "refused" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_kept_engine_that_turns_bad_is_thrown_away(start, tmp_path):
    assert start(Standin()).wait(60)
    bad = Standin(error=0.2)
    runner = start(bad)
    assert runner.wait(60)
    assert len(bad.loaded) == len(bad.compiled) == 1
    assert runner.report.name == "openvino"
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_is_reported_and_the_other_serves_on(start, crops, caplog):
    compiler = Standin()
    compiler.failure = RuntimeError("out of GPU memory")
    runner = start(compiler)
    assert runner.wait(60)
    assert not runner.run(crops)[0].any()
    assert "refused: RuntimeError: out of GPU memory" in runner.report.reason
    assert "Traceback" in caplog.text


def test_an_engine_that_fails_while_it_serves_is_refused_and_the_other_serves_on(start, crops, caplog):
    compiler = Standin()
    runner = start(compiler)
    assert runner.wait(60)
    assert runner.run(crops)[0].any()
    compiler.serving_failure = RuntimeError("CUDA out of memory")
    assert not runner.run(crops)[0].any()
    assert (runner.report.name, runner.report.precision) == ("openvino", "fp32")
    assert "failed while it served: RuntimeError: CUDA out of memory" in runner.report.reason
    assert "another backend serves" in caplog.text
    compiler.serving_failure = None
    assert not runner.run(crops)[0].any()  # it had its chance


def test_an_engine_that_cannot_be_written_serves_this_run(start, crops, caplog):
    """Torch tells a full disk by exceptions that are no OSError."""
    compiler = Standin()
    compiler.save = lambda *arguments: (_ for _ in ()).throw(RuntimeError("file write failed"))
    runner = start(compiler)
    assert runner.wait(60)
    assert runner.run(crops)[0].any()
    assert "cannot be kept" in caplog.text


def test_a_mishap_in_the_self_test_does_not_cost_the_kept_engine(start, tmp_path):
    assert start(Standin()).wait(60)
    unlucky = Standin()
    unlucky.serving_failure = RuntimeError("CUDA out of memory")
    assert start(unlucky).wait(60)
    assert unlucky.compiled == []
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_two_runners_never_build_or_read_at_once(toys, tmp_path):
    """Torch's export keeps its state in the process: two at a time break each other."""
    busy, overlaps = threading.Lock(), []

    class Watched(Standin):
        def compile(self, network, shapes, precision):
            overlaps.append(not busy.acquire(blocking=False))
            time.sleep(0.05)
            if not overlaps[-1]:
                busy.release()
            return super().compile(network, shapes, precision)

    toy = ModelCard.read(toys / "toy_embedder.json")
    runners = [
        TorchTensorRtRunner(toy, ModelsConfig(), Fallback(), Watched(), "", tmp_path / str(n))
        for n in range(4)
    ]
    assert all(runner.wait(60) for runner in runners)
    assert overlaps == [False] * 4


def test_few_sizes_are_kept(toys, tmp_path):
    compiler = Standin()
    runner = TorchTensorRtRunner(
        ModelCard.read(toys / "toy_detector.json"), ModelsConfig(), Fallback(), compiler, "",
        tmp_path, order_after=1,
    )  # fmt: skip
    for height in (32, 64, 96, 128, 160, 192):
        runner.run(np.zeros((1, height, 128, 3), np.uint8))
        assert runner.wait(60)
    assert len(runner._engines) == 4
    runner.run(np.zeros((1, 32, 128, 3), np.uint8))  # let go of, and read again
    assert runner.wait(60)
    assert len(compiler.compiled) == 6
    assert len(compiler.loaded) == 1


def test_a_folder_that_cannot_be_written_serves_this_run_only(start, tmp_path, crops, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    runner = start(Standin(), blocked)
    assert runner.wait(60)
    assert runner.run(crops)[0].any()
    assert "cannot be kept" in caplog.text


def test_a_detector_gets_one_engine_for_each_size(toys, tmp_path):
    class Maps(Fallback):
        def run(self, images_bgr):
            _, height, width, _ = images_bgr.shape
            return tuple(np.zeros((1, 30, height // s, width // s), np.float32) for s in (8, 16, 32))

    compiler = Standin()
    runner = TorchTensorRtRunner(
        ModelCard.read(toys / "toy_detector.json"),
        ModelsConfig(),
        Maps(),
        compiler,
        "auto",
        tmp_path,
    )
    assert "ordered when a size has come 5 times" in runner.report.reason
    for height in (64, 96, 32, 64, 96):  # 32 rows come once only
        for _ in range(1 if height == 32 else 5):
            runner.run(np.zeros((1, height, 128, 3), np.uint8))
        assert runner.wait(60)
    assert [shapes[1][2] for shapes, _ in compiler.compiled] == [64, 96]
    maps = runner.run(np.zeros((1, 96, 128, 3), np.uint8))
    assert [part.shape for part in maps] == [(1, 30, 12, 16), (1, 30, 6, 8), (1, 30, 3, 4)]
    assert maps[0].any()


def test_keys_name_everything_an_engine_depends_on():
    shapes = EMBEDDER_SHAPES
    key = engine_file_name("net", "weights", shapes, "fp16", "gpu")
    variants = {
        key,
        engine_file_name("net", "other", shapes, "fp16", "gpu"),
        engine_file_name("net", "weights", shapes, "fp32", "gpu"),
        engine_file_name("net", "weights", shapes, "fp16", "other"),
        engine_file_name("net", "weights", DETECTOR_SHAPES, "fp16", "gpu"),
    }
    assert len(variants) == 5
    assert key.startswith("net-112x112-fp16-")


def test_least_cosine(rng):
    one = rng.normal(0, 1, (3, 64)).astype(np.float32)
    assert least_cosine((one,), (one,)) == pytest.approx(1)
    turned = one.copy()
    turned[1] *= -1
    assert least_cosine((one, one), (one, turned)) == pytest.approx(-1)
    assert least_cosine((one,), (one[:2],)) == -1
    assert least_cosine((one,), (one, one)) == -1
    broken = one.copy()
    broken[0, 0] = np.nan
    assert least_cosine((one,), (broken,)) == -1
    near = one + 0.02 * rng.normal(0, 1, one.shape)
    assert LEAST_COSINE < least_cosine((one,), (near,)) < 1

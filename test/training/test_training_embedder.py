"""The embedder's two stages end to end on made-up faces: resuming, two processes, the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_material import write_archive

from face_recognition_node.common.errors import ConfigurationError, ModelMissingError

pytest.importorskip("msgspec", reason="recipes are read with msgspec")
pytest.importorskip("lightning", reason="the train extra is not installed: no lightning")
torch = pytest.importorskip("torch", reason="the train extra is not installed: no torch")

# ruff: noqa: E402  # what follows needs lightning
import msgspec
import yaml
from safetensors.torch import load_file, save_file

from face_recognition_node.networks.efficientnet import DepthwiseConvolution, EfficientNetEmbedder
from face_recognition_node.networks.loading import read_checkpoint
from face_recognition_node.training.data import TrainingData
from face_recognition_node.training.recipe import (
    BatchRecipe,
    DataRecipe,
    EmbedderRecipe,
    RunOptions,
    StageRecipe,
    build,
    read_recipe,
)
from face_recognition_node.training.run import train_embedder
from face_recognition_node.training.stage import EmbedderStage, rate_factor
from face_recognition_node.training.start import lite_names, load_start

pytestmark = pytest.mark.slow  # each trains

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {
    "kind": "embedder",
    "name": "tiny",
    "validate_every": 2,
    "save_every_s": 0,
    "data": {"path": "archive", "minimum_images": 2},
    "stages": [
        {
            "name": "classification",
            "steps": 2,
            "batch": {"random": 6},
            "identity": {"kind": "cross_entropy"},
            "warmup": 1,
        },
        {
            "name": "metric",
            "steps": 4,
            "batch": {"identities": 2, "images_each": 2, "random": 2},
            "metric": {"kind": "contrastive", "margin": 1.0, "miner": "all"},
            "distillation": {
                "embedding": 1.0,
                "relation": 1.0,
                "look_alike": 5.0,
                "look_alike_from": -1.0,
                "memory": 8,
            },
            "warmup": 1,
        },
    ],
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    # 1 and 51 are validation people, 0 and 10 test people
    return write_archive(tmp_path_factory.mktemp("faces"), people=[*range(11), 51])


@pytest.fixture
def recipe(archive):
    made = build(EmbedderRecipe, RECIPE)
    return msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, path=archive))


@pytest.fixture(scope="module")
def finished(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    made = build(EmbedderRecipe, RECIPE)
    made = msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, path=archive))
    return out, train_embedder(made, RunOptions(out, threads=1, accelerator="cpu"))


def test_both_stages_leave_weights_that_the_robots_network_loads(finished):
    out, weights = finished
    assert weights == out / "metric" / "weights.safetensors"
    EfficientNetEmbedder().load_state_dict(load_file(weights))
    first = load_file(out / "classification" / "weights.safetensors")
    assert any(not torch.equal(first[name], value) for name, value in load_file(weights).items())
    logs = list((out / "metric").rglob("metrics.csv"))
    assert logs
    assert "validation/tar_at_far_0.01_24px" in logs[0].read_text()
    assert list((out / "metric").rglob("events.out.tfevents*"))
    assert (out / "metric" / "curves.png").stat().st_size > 1000


def test_export_takes_the_averaged_weights_of_a_checkpoint(finished):
    out, weights = finished
    averaged, read = load_file(weights), read_checkpoint(out / "metric" / "last.ckpt").state_dict()
    assert all(torch.equal(read[name], value) for name, value in averaged.items())
    stored = torch.load(out / "metric" / "last.ckpt", weights_only=True)["current_model_state"]
    assert any(not torch.equal(stored[f"network.{name}"], value) for name, value in averaged.items())


def test_a_finished_run_is_not_repeated(finished, recipe, monkeypatch):
    out, weights = finished
    monkeypatch.setattr(EmbedderStage, "training_step", lambda *_: pytest.fail("trained again"))
    assert train_embedder(recipe, RunOptions(out, threads=1, accelerator="cpu")) == weights


def test_a_checkpoint_of_another_run_is_not_gone_on_from(finished, recipe, tmp_path):
    out, weights = finished
    options = RunOptions(out, threads=1, accelerator="cpu")
    with pytest.raises(ConfigurationError, match="made with another fast; name another --out"):
        train_embedder(recipe, msgspec.structs.replace(options, fast=True))
    with pytest.raises(ConfigurationError, match="made with another start"):
        train_embedder(msgspec.structs.replace(recipe, start=str(weights)), options)
    first = msgspec.structs.replace(recipe.stages[0], learning_rate=0.5)
    with pytest.raises(ConfigurationError, match="made with another learning_rate"):
        train_embedder(msgspec.structs.replace(recipe, stages=(first, *recipe.stages[1:])), options)


def test_a_run_that_was_killed_ends_like_one_that_was_not(finished, recipe, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    step = EmbedderStage.training_step

    def breaks(self, batch, index):
        if self.stage.name == "metric" and self.global_step == 2:
            raise KilledError
        return step(self, batch, index)

    monkeypatch.setattr(EmbedderStage, "training_step", breaks)
    options = RunOptions(tmp_path, threads=1, accelerator="cpu")
    with pytest.raises(KilledError):
        train_embedder(recipe, options)
    monkeypatch.setattr(EmbedderStage, "training_step", step)
    resumed = load_file(train_embedder(recipe, options))
    for name, value in load_file(finished[1]).items():
        assert torch.allclose(value.float(), resumed[name].float(), atol=1e-5), name


def test_two_processes_train_together(archive, tmp_path):
    values = {**RECIPE, "data": {"path": str(archive), "minimum_images": 2}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "face_recognition_node.cli", "train", str(tmp_path / "recipe.yaml")]
    command += ["--out", str(tmp_path / "out"), "--accelerator", "cpu", "--devices", "2", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("weights:") == 1
    assert (tmp_path / "out" / "metric" / "weights.safetensors").is_file()
    checkpoint = torch.load(tmp_path / "out" / "metric" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4


def test_bfloat16_and_frozen_stages_leave_early_layers_alone_and_train_the_rest(recipe, tmp_path):
    stage = msgspec.structs.replace(recipe.stages[1], frozen_stages=2, average=0.0)
    quick = msgspec.structs.replace(recipe, stages=(stage,), precision="bf16-mixed")
    torch.manual_seed(0)
    start = EfficientNetEmbedder().state_dict()
    save_file({name: value.contiguous() for name, value in start.items()}, tmp_path / "start.safetensors")
    quick = msgspec.structs.replace(quick, start=str(tmp_path / "start.safetensors"))
    trained = load_file(train_embedder(quick, RunOptions(tmp_path, threads=1, accelerator="cpu")))
    assert all(value.dtype is not torch.bfloat16 for value in trained.values())
    changed = {name for name, value in trained.items() if not torch.equal(value, start[name])}
    frozen = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    assert not [name for name in changed if name.startswith(frozen)]
    assert {"blocks.2.0.conv_dw.weight", "blocks.2.0.bn1.running_mean", "embed.weight"} <= changed


def test_the_weights_started_from_keep_their_share(recipe, tmp_path):
    torch.manual_seed(0)
    start = EfficientNetEmbedder().state_dict()
    save_file({name: value.contiguous() for name, value in start.items()}, tmp_path / "start.safetensors")
    count = len(TrainingData.open(recipe.data).labels)
    teacher = np.random.default_rng(0).integers(-99, 99, (count, 16)).astype(np.int8)
    np.save(tmp_path / "teacher.npy", teacher)
    data = msgspec.structs.replace(recipe.data, teacher=tmp_path / "teacher.npy", lookalike_similarity=1.0)
    distillation = {
        **RECIPE["stages"][1]["distillation"],
        "discriminants": 2,
        "teacher_look_alike_from": -1.0,
    }
    ends = []
    for share in (0.0, 0.25):
        values = {**RECIPE["stages"][1], "distillation": distillation, "steps": 2, "start_share": share}
        made = msgspec.structs.replace(
            recipe,
            data=data,
            stages=(build(StageRecipe, values),),
            start=str(tmp_path / "start.safetensors"),
        )
        options = RunOptions(tmp_path / str(share), threads=1, accelerator="cpu")
        ends.append(load_file(train_embedder(made, options)))
    for name, value in ends[1].items():
        expected = 0.75 * ends[0][name] + 0.25 * start[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_layers_far_from_the_embedding_learn_more_slowly():
    stage = StageRecipe("a", 10, distillation=build_distillation(), learning_rate=1.0, rate_decay=0.5)
    module = EmbedderStage(stage, 3, 16)
    rates = {}
    for group in module.configure_optimizers()["optimizer"].param_groups:
        rates |= {id(weight): group["initial_lr"] for weight in group["params"]}
    network = module.network
    assert rates[id(network.embed.weight)] == rates[id(network.conv_head.weight)] == 1.0
    assert rates[id(network.blocks[6][0].conv_pw.weight)] == 0.5
    assert rates[id(network.blocks[0][0].conv_dw.weight)] == 0.5**7
    assert rates[id(network.conv_stem.weight)] == 0.5**8
    assert len(rates) == len(list(module.parameters()))


def test_a_compiled_run_trains_through_the_compiled_trunk_alone_to_the_same_end(
    finished, recipe, tmp_path, monkeypatch
):
    calls = []

    def compile_without_a_compiler(function):
        def compiled(images):
            calls.append(images.shape)
            return function(images)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_without_a_compiler)
    quick = msgspec.structs.replace(recipe, compiled=True)
    weights = load_file(train_embedder(quick, RunOptions(tmp_path, threads=1, accelerator="cpu")))
    assert calls == [(6, 3, 112, 112)] * 6  # two and four steps; validation took the plain network
    for name, value in load_file(finished[1]).items():
        assert torch.allclose(value.float(), weights[name].float(), atol=1e-5), name


@pytest.mark.parametrize(("side", "stride"), [(4, 1), (7, 2)])
def test_padding_a_small_map_first_changes_no_result(side: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConvolution(8, 5, stride, padding=2)
    x = torch.randn(2, 8, side, side, requires_grad=True)
    results = []
    for is_training in (True, False):
        layer.train(is_training).zero_grad()
        y = layer(x)
        gradients = torch.autograd.grad(y.square().sum(), (x, layer.weight))
        results.append((y, *gradients))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_depthwise_convolutions_compute_in_float32_under_autocast():
    layer = DepthwiseConvolution(8, 3, padding=1)
    x = torch.randn(2, 8, 7, 7, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = layer(x)
    assert under_autocast.dtype is torch.bfloat16
    assert torch.equal(under_autocast, layer(x).to(torch.bfloat16))


def test_a_faulty_recipe_says_where(tmp_path):
    whole = {"kind": "embedder", "name": "x", "data": {"path": "y"}}
    with pytest.raises(ConfigurationError, match=r"unknown field `step` - at `\$\.stages\[0\]`"):
        build(EmbedderRecipe, {**whole, "stages": [{"name": "a", "step": 3}]})
    with pytest.raises(ConfigurationError, match=r"Expected `int`, got `str` - at `\$\.seed`"):
        build(EmbedderRecipe, {**whole, "stages": [], "seed": "three"})
    with pytest.raises(ConfigurationError, match=r"expected one or more with different names, got \[\]"):
        build(EmbedderRecipe, {**whole, "stages": []})
    with pytest.raises(ConfigurationError, match="config/training"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match=r"<= 7 - at `\$\.frozen_stages`"):
        build(StageRecipe, {"name": "a", "steps": 3, "frozen_stages": 8})
    with pytest.raises(ConfigurationError, match=r"'16' - at `\$\.precision`"):
        build(
            EmbedderRecipe,
            {**whole, "stages": [{"name": "a", "steps": 1, "identity": {}}], "precision": "16"},
        )
    with pytest.raises(ConfigurationError, match="identities of at least 2"):
        build(StageRecipe, {"name": "a", "steps": 3, "metric": {}})


def test_set_changes_nested_entries(tmp_path):
    (tmp_path / "r.yaml").write_text("kind: embedder\nstages: [{name: a, steps: 3}]\n")
    values = read_recipe(tmp_path / "r.yaml", ["stages.0.steps=7", "data.minimum_images=4", "seed=5"])
    assert values["stages"][0]["steps"] == 7
    assert values["data"] == {"minimum_images": 4}
    assert values["seed"] == 5
    with pytest.raises(ConfigurationError, match="NAME=VALUE"):
        read_recipe(tmp_path / "r.yaml", ["seed"])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config" / "training").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_recipes_are_sound(path):
    from face_recognition_node.systems.olivetti.training import OlivettiRecipe
    from face_recognition_node.systems.rgbd.training import RgbdRecipe
    from face_recognition_node.systems.triplet import TripletRecipe

    kinds = {
        "embedder": EmbedderRecipe,
        "olivetti_siamese": OlivettiRecipe,
        "rgbd_face_id": RgbdRecipe,
        "triplet_face_id": TripletRecipe,
    }
    values = read_recipe(path, ["data.path=faces"])
    assert build(kinds[values["kind"]], values).kind == values["kind"]


def test_distillation_without_a_teacher_is_refused(recipe, tmp_path):
    bare = write_archive(tmp_path / "bare", teacher=False)
    bare_recipe = msgspec.structs.replace(
        recipe, data=DataRecipe(path=bare, minimum_images=2), stages=recipe.stages[1:]
    )
    with pytest.raises(ConfigurationError, match=r"train_teacher\.npy"):
        train_embedder(bare_recipe, RunOptions(tmp_path / "out", accelerator="cpu"))


def test_rates_warm_up_and_fall():
    cosine = StageRecipe("a", 100, BatchRecipe(), distillation=build_distillation(), warmup=10)
    rates = [rate_factor(cosine, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) <= 1
    assert rates[-1] < 0.01
    constant = msgspec.structs.replace(cosine, schedule="constant", cooldown=20)
    rates = [rate_factor(constant, step) for step in range(100)]
    assert rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5)


def build_distillation():
    from face_recognition_node.training.recipe import Distillation

    return Distillation()


def test_start_weights_must_fit(tmp_path):
    module = EmbedderStage(StageRecipe("a", 1, BatchRecipe(), distillation=build_distillation()), 3, 16)
    with pytest.raises(ModelMissingError, match="no such weights"):
        load_start(module, str(tmp_path / "none.safetensors"))
    torch.save({"state_dict": {"network.strange": torch.zeros(1)}}, tmp_path / "x.pt")
    with pytest.raises(ConfigurationError, match="strange"):
        load_start(module, str(tmp_path / "x.pt"))
    torch.save({"other": 1}, tmp_path / "y.pt")
    with pytest.raises(ConfigurationError, match="state_dict"):
        load_start(module, str(tmp_path / "y.pt"))


def test_lite0_names_lead_to_ours():
    own = EfficientNetEmbedder().state_dict()
    package = {
        "_conv_stem.weight": 1,
        "_bn1.bias": 1,
        "_blocks.0._depthwise_conv.weight": 1,
        "_blocks.0._bn2.bias": 1,
        "_blocks.15._project_conv.weight": 1,
        "_blocks.1._expand_conv.weight": 1,
        "_fc.weight": 1,
    }
    renamed = lite_names(package)
    assert set(renamed) <= set(own)
    assert len(renamed) == 6
    assert "blocks.6.0.conv_pwl.weight" in renamed


def test_the_last_stage_of_a_run_can_start_another(finished, recipe, tmp_path):
    last = finished[0] / "metric" / "last.ckpt"
    size = torch.load(last, weights_only=True)["state_dict"]["project.weight"].shape[0]
    module = EmbedderStage(recipe.stages[1], 3, size)
    summary = load_start(module, str(last))
    assert summary == "started from last.ckpt, and project"
    averaged = load_file(finished[1])
    assert torch.equal(module.network.embed.weight, averaged["embed.weight"])


def test_a_failed_command_says_what_to_do(tmp_path, capsys):
    from face_recognition_node.cli import main

    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert "config/training" in capsys.readouterr().err
    (tmp_path / "x.yaml").write_text(json.dumps({"kind": "other"}))
    assert main(["train", str(tmp_path / "x.yaml")]) == 2
    assert "olivetti_siamese" in capsys.readouterr().err

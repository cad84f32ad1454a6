"""Heads found in closed form: right where the truth is known, and harmless to the network."""

import dataclasses

import numpy as np
import pytest
from training_material import write_archive

pytest.importorskip("msgspec", reason="recipes are read with msgspec")
pytest.importorskip("lightning", reason="the train extra is not installed: no lightning")
torch = pytest.importorskip("torch", reason="the train extra is not installed: no torch")

# ruff: noqa: E402  # what follows needs lightning
from face_recognition_node.networks.efficientnet import EfficientNetEmbedder
from face_recognition_node.training.augmentation import NO_AUGMENTATION
from face_recognition_node.training.data import AugmentedFaces, class_numbers, open_faces
from face_recognition_node.training.recipe import EmbedderRecipe, RunOptions, StageRecipe, build
from face_recognition_node.training.run import train_embedder
from face_recognition_node.training.stage import EmbedderStage
from face_recognition_node.training.start import choose_faces, fit_heads

STAGE = {
    "name": "distillation",
    "steps": 2,
    "warmup": 1,
    "batch": {"identities": 2, "random": 4},
    "distillation": {"embedding": 1.0, "relation": 1.0},
    "identity": {"kind": "cosface", "vectors": "embedding"},
    "head_faces": 30,
}

pytestmark = pytest.mark.slow  # each trains


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = write_archive(tmp_path_factory.mktemp("faces"), people=[2, 3, 4, 5], images=4, unlabelled=40)
    return open_faces(folder)


def test_every_class_is_chosen_before_any_comes_again(faces):
    everything = np.arange(len(faces.labels))
    classes, n_classes = class_numbers(faces.labels, everything, 2)
    chosen = choose_faces(everything, classes, 10, seed=0)
    counts = np.bincount(classes[chosen][classes[chosen] >= 0], minlength=n_classes)
    assert len(set(chosen.tolist())) == 10
    assert counts.tolist() in (
        [3, 3, 2, 2],
        [3, 2, 3, 2],
        [3, 2, 2, 3],
        [2, 3, 3, 2],
        [2, 3, 2, 3],
        [2, 2, 3, 3],
    )
    assert np.array_equal(chosen, choose_faces(everything, classes, 10, seed=0))
    assert sorted(choose_faces(everything, classes, 1000, seed=0)) == everything.tolist()


def test_heads_fit_a_teacher_that_is_a_linear_map_of_the_network(faces):
    torch.manual_seed(0)
    everything = np.arange(len(faces.labels))
    classes, n_classes = class_numbers(faces.labels, everything, 2)
    module = EmbedderStage(build(StageRecipe, STAGE), n_classes, teacher_size=8)
    crops = torch.stack(
        [torch.from_numpy(faces.crop(i)[:, :, ::-1].transpose(2, 0, 1).copy()) for i in everything]
    )
    module.eval()
    with torch.no_grad():
        unit = module(crops)
    module.train()
    teacher = torch.nn.functional.normalize(unit @ torch.randn(64, 8), dim=1)
    known = dataclasses.replace(faces, teacher=teacher.numpy())
    data = AugmentedFaces(known, classes, NO_AUGMENTATION)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}

    aligned = torch.nn.functional.cosine_similarity(module.project(unit), teacher).mean()
    summary = fit_heads(module, data, everything)
    fitted = torch.nn.functional.cosine_similarity(module.project(unit), teacher).mean()
    assert "4 class centres" in summary
    assert aligned < 0.5 < 0.98 < fitted
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, before[name])
    centres = module.identity.centres().detach()
    for label in range(n_classes):
        mean = unit[torch.from_numpy(classes == label)].mean(dim=0)
        assert torch.nn.functional.cosine_similarity(centres[:, label], mean, dim=0) > 0.9999
    assert module.training


def test_a_run_fits_its_heads_when_it_starts_from_weights(tmp_path, caplog):
    from safetensors.torch import save_file

    archive = write_archive(tmp_path / "faces")
    start = tmp_path / "start.safetensors"
    save_file(EfficientNetEmbedder().state_dict(), start)
    recipe = build(
        EmbedderRecipe,
        {"kind": "embedder", "name": "x", "stages": [STAGE], "start": str(start),
         "data": {"path": str(archive), "minimum_images": 2}},
    )  # fmt: skip
    with caplog.at_level("INFO"):
        train_embedder(recipe, RunOptions(tmp_path / "run", fast=True, threads=1, accelerator="cpu"))
    assert "fitted to 30 faces: the map to the teacher's embedding" in caplog.text

"""The four systems of the literature: their parts, and a run of seconds of each where the data is."""

import json
import logging
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("msgspec", reason="recipes are read with msgspec")
torch = pytest.importorskip("torch", reason="the train extra is not installed: no torch")
pytest.importorskip("lightning", reason="the train extra is not installed: no lightning")

# ruff: noqa: E402  # what follows needs torch and lightning
from face_recognition_node.cli import main
from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.systems.olivetti.training import SiameseScorer, draw_references, one_shot
from face_recognition_node.systems.rgbd.network import SqueezeEncoder
from face_recognition_node.systems.rgbd.training import (
    Owner,
    RgbdData,
    RgbdRecipe,
    load_threshold,
    pair_distances,
    try_lock,
)
from face_recognition_node.systems.siamese import SiameseEncoder
from face_recognition_node.systems.triplet import (
    TripletLock,
    TripletSettings,
    all_triplets,
    train_lock,
    triplet_loss,
)
from face_recognition_node.training.losses import HadsellContrastiveLoss
from face_recognition_node.training.recipe import RunOptions

pytestmark = pytest.mark.slow  # what is quick of it is in test_systems_data.py
ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "config" / "training"


@pytest.fixture(scope="module")
def few_people(shared_data, tmp_path_factory):
    """Return a folder of the archives with some of their people: every step is done, in less time."""
    folder = tmp_path_factory.mktemp("few")
    for name, kept in (
        ("orl_faces.zip", {f"s{person}" for person in range(1, 7)}),
        ("rap3df_rgbd.zip", {f"{person:03d}" for person in range(12)}),
    ):
        with zipfile.ZipFile(shared_data / name) as archive, zipfile.ZipFile(folder / name, "w") as part:
            for file in archive.namelist():
                if file.split("/")[0] in kept:
                    part.writestr(file, archive.read(file))
    (folder / "lfw_pairs_112.zip").symlink_to(shared_data / "lfw_pairs_112.zip")
    return folder


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def test_near_pairs_score_high():
    scorer = SiameseScorer(SiameseEncoder()).eval()
    a = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        same, other = torch.sigmoid(scorer(a, a)), torch.sigmoid(scorer(a, a.flip(0) * 5))
    assert (same > other).all()
    assert scorer.encoder(a).shape == (2, 128)


def test_one_shot_counts():
    scores = np.array([[0.9, 0.6, 0.1], [0.2, 0.4, 0.7]])
    result = one_shot(scores, np.array([0, 1]), 0.5)
    assert result.over_threshold == 1.5
    assert result.right_over == 0.5
    assert result.right_first == 0.5


def test_a_picture_is_never_its_own_reference():
    labels = np.repeat(np.arange(5), 3)
    drawn = draw_references(labels, seed=1)
    assert drawn.shape == (15, 5)
    assert (labels[drawn] == np.arange(5)).all()
    assert (drawn != np.arange(15)[:, None]).all()


def test_all_triplets_are_permutations_times_others():
    triplets = all_triplets(3, 2).tolist()
    assert len(triplets) == 3 * 2 * 2
    assert [0, 1, 3] in triplets
    assert [1, 0, 4] in triplets
    assert len(all_triplets(7, 10)) == 420
    assert all_triplets(1, 3).shape == (0, 3)


@pytest.mark.parametrize("alpha", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_triplet_loss_is_the_articles_formula(alpha):
    vectors = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    triplets = all_triplets(3, 2)
    expected = [
        max(0.0, float((unit[a] - unit[p]).norm() - (unit[a] - unit[n]).norm()) + alpha)
        for a, p, n in triplets
    ]
    value = triplet_loss(vectors, triplets, alpha)
    assert float(value) == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-6)


def faces_of(seed, count):
    base = cv2.resize(np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8), (112, 112))
    noise = np.random.default_rng(seed + 1).normal(0, 10, (count, 112, 112, 3))
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def test_a_lock_opens_for_its_owner_only(tmp_path):
    me = faces_of(1, 6)
    others = np.concatenate([faces_of(seed, 1) for seed in range(10, 20)])
    settings = TripletSettings(alpha=0.5, steps=60)
    lock = train_lock(settings, me[:4], others[:6], RunOptions(tmp_path, threads=1))
    assert lock.margins(me[4:]).min() >= settings.production_alpha
    assert lock.margins(me[4:]).min() > lock.margins(others[6:]).max()
    lock.save(tmp_path)
    again = TripletLock.load(tmp_path)
    assert np.allclose(again.margins(me), lock.margins(me), atol=1e-5)
    assert len(lock.margins(me[:0])) == 0


def test_locks_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="from -1 to 1"):
        TripletSettings(alpha=1.5)
    with pytest.raises(ConfigurationError, match="two or more"):
        train_lock(TripletSettings(), faces_of(1, 1), faces_of(2, 1), RunOptions(tmp_path))
    with pytest.raises(SourceError, match="train one"):
        TripletLock.load(tmp_path)


def test_the_rgbd_loss_counts_all_pairs_of_one_person_and_the_near_ones_of_two():
    angles, people = torch.tensor([0.0, 20.0, 50.0, 170.0]), torch.tensor([0, 0, 1, 2])
    turned = torch.deg2rad(angles)
    criterion = HadsellContrastiveLoss(margin=1.0, counts_near_only=True)
    loss = criterion(torch.stack([turned.cos(), turned.sin()], dim=1), people)

    def distance(degrees):
        return 2 * np.sin(np.radians(degrees) / 2)

    # 0-50 and 20-50 are nearer than the margin; the pairs with 170 are not and do not dilute them
    near = np.mean([(1 - distance(50)) ** 2, (1 - distance(30)) ** 2])
    assert float(loss) == pytest.approx(0.5 * distance(20) ** 2 + 0.5 * near, abs=1e-5)


def test_an_owner_unlocks_adapts_and_is_stored(tmp_path):
    owner = Owner(0.4, np.array([[0, 0]], np.float32))
    look = np.array([0.3, 0], np.float32)
    later = np.array([0.6, 0], np.float32)
    assert owner.unlocks(look)
    assert not owner.unlocks(later)
    assert owner.unlocks(look, adapt=True)
    assert owner.unlocks(later, adapt=True)
    assert len(owner.vectors) == 3
    assert owner.vectors[0].tolist() == [0, 0]
    assert not owner.unlocks(np.array([5, 5], np.float32), adapt=True)
    owner.save(tmp_path / "owner.npz")
    assert (tmp_path / "owner.npz").stat().st_mode & 0o777 == 0o600
    assert np.array_equal(Owner.load(tmp_path / "owner.npz", 0.4).vectors, owner.vectors)


def test_pair_distances_against_a_loop(rng):
    vectors, labels = rng.normal(size=(6, 3)).astype(np.float32), np.array([0, 0, 1, 1, 1, 2])
    same, different = pair_distances(vectors, labels)
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    distance = {pair: float(np.linalg.norm(vectors[pair[0]] - vectors[pair[1]])) for pair in pairs}
    assert sorted(same) == pytest.approx(
        sorted(d for (i, j), d in distance.items() if labels[i] == labels[j])
    )
    assert len(same) + len(different) == len(pairs)


def test_a_lock_tried_on_points_in_the_plane():
    vectors = np.array(
        [[0, 0], [0.1, 0], [0, 0.1], [0.1, 0.1], [9, 9], [9.1, 9], [9, 9.1], [9, 9.2]], np.float32
    )
    report = try_lock(vectors, np.repeat([0, 1], 4), RgbdRecipe("rgbd_face_id", RgbdData(Path())))
    assert report.owner_unlocks == 1
    assert report.stranger_unlocks == 0
    assert report.equal_error == 0
    assert report.same_distance < 0.2
    assert report.different_distance > 10


@pytest.mark.parametrize(
    ("recipe", "data", "wanted"),
    [
        ("olivetti_siamese", "orl_faces.zip", ("curves.png", "grid.png")),
        ("rgbd_face_id", "rap3df_rgbd.zip", ("held_out.png", "distances.png")),
        ("triplet_face_id", "lfw_pairs_112.zip", ("curves.png", "margins.png")),
    ],
)
def test_each_system_runs_with_one_command(recipe, data, wanted, few_people, tmp_path, capsys):
    command = [
        "train",
        str(RECIPES / f"{recipe}.yaml"),
        "--data",
        str(few_people / data),
        "--fast",
        "--threads",
        "1",
    ]
    command += [
        "--out",
        str(tmp_path),
        *(["--set", "lock.network=small"] if recipe.startswith("triplet") else []),
    ]
    assert main(command) == 0
    assert "report.json" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recipe"]["kind"] == recipe
    for name in wanted:
        assert (tmp_path / name).stat().st_size > 1000


def test_rgbd_takes_any_number_of_steps_and_goes_on_with_another(few_people, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("face_recognition_node.systems.rgbd.training.EPOCH_STEPS", 5)
    archive = str(few_people / "rap3df_rgbd.zip")
    command = ["train", str(RECIPES / "rgbd_face_id.yaml"), "--data", archive, "--out", str(tmp_path)]
    command += ["--threads", "1", "--set", "people=2", "--set", "views=2"]
    for steps in (8, 14):  # neither ends with an epoch
        assert main([*command, "--set", f"steps={steps}"]) == 0
        stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert stored["global_step"] == steps
    assert main([*command, "--devices", "2"]) == 2
    assert "expected one device" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["olivetti_siamese", "rgbd_face_id"])
def test_the_seed_is_that_of_the_first_weights_too(module, few_people, tmp_path):
    data = {"olivetti_siamese": "orl_faces.zip", "rgbd_face_id": "rap3df_rgbd.zip"}[module]
    name = {"olivetti_siamese": "siamese.pt", "rgbd_face_id": "rgbd.pt"}[module]
    command = ["train", str(RECIPES / f"{module}.yaml"), "--data", str(few_people / data), "--fast"]
    runs = []
    for number in range(2):
        torch.manual_seed(number)
        assert main([*command, "--threads", "1", "--out", str(tmp_path / str(number))]) == 0
        runs.append(torch.load(tmp_path / str(number) / name, weights_only=True))
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


def test_unlocking_by_rgbd_from_the_command_line(shared_data, tmp_path, capsys):
    from zipfile import ZipFile

    from face_recognition_node.systems.rgbd.training import WEIGHTS

    torch.manual_seed(0)
    torch.save(SqueezeEncoder().state_dict(), tmp_path / WEIGHTS)
    with ZipFile(shared_data / "rap3df_rgbd.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("000/"))
        archive.extractall(tmp_path, names)
    first = str(tmp_path / next(name for name in names if name.endswith("_color.png")))
    run = ["unlock", str(tmp_path)]
    assert main([*run, first]) == 2
    assert "register" in capsys.readouterr().err
    assert main([*run, first, "--register"]) == 0
    assert main([*run, first]) == 0
    assert "yes" in capsys.readouterr().out
    assert main([*run, first, "--threshold", "-1"]) == 2
    assert load_threshold(tmp_path) == 0.4
    (tmp_path / "report.json").write_text('{"recipe": {"threshold": 0.7}}')
    assert main([*run, first]) == 0
    assert "needed below 0.70" in capsys.readouterr().out
    assert main(["unlock", str(tmp_path / "nothing"), first]) == 2

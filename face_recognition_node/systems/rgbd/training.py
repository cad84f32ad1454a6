"""RGB-D Face ID: a SqueezeNet-like siamese network on four channels, trained with contrastive loss."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from face_recognition_node.common.errors import SourceError
from face_recognition_node.common.files import write_json, written_whole
from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.networks.loading import read_weights, write_checkpoint
from face_recognition_node.systems.rgbd.data import augment_rgbd, read_rgbd
from face_recognition_node.systems.rgbd.network import SqueezeEncoder
from face_recognition_node.systems.runs import answers, equal_error, fit, set_up
from face_recognition_node.training.losses import HadsellContrastiveLoss
from face_recognition_node.training.recipe import RunOptions, Section, plain_values
from face_recognition_node.vision.faces import FloatArray

WEIGHTS, REPORT = "rgbd.pt", "report.json"
ARTICLE_THRESHOLD = 0.4
EPOCH_STEPS = 50  # batches that a run which is cut off can lose


class RgbdData(Section, frozen=True):
    """Zip of RAP3DF; people whose number is divisible by the modulus are never trained on, but the test."""

    path: Path
    held_out_modulus: int = 5


class RgbdRecipe(Section, frozen=True):
    """How the network is trained and tried."""

    kind: str
    data: RgbdData
    steps: int = 1200
    people: int = 16
    views: int = 4
    margin: float = 1.4  # of the contrastive loss
    learning_rate: float = 1e-3  # of AdamW, falling to zero along a cosine
    threshold: float = ARTICLE_THRESHOLD  # distance below which a face unlocks
    registered_views: int = 3  # views a person registers with
    seed: int = 0


class RgbdTraining(lightning.LightningModule):
    """Contrastive loss over the pairs of a batch; the rate rises for a tenth of the steps, then falls."""

    def __init__(self, recipe: RgbdRecipe, steps: int) -> None:
        super().__init__()
        self.network = SqueezeEncoder()
        self.recipe, self.steps = recipe, steps
        self.loss = HadsellContrastiveLoss(recipe.margin, counts_near_only=True)

    def rate_factor(self, step: int) -> float:
        """Return the factor on the learning rate at a step of however many there are now."""
        rising = max(1, self.steps // 10)
        if step < rising:
            return (step + 1) / rising
        share = min(1.0, (step - rising) / max(1, self.steps - rising))
        return 0.5 * (1 + math.cos(math.pi * share))

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        """Return the loss of (B, 4, 80, 80) heads with (B,) people."""
        faces, people = batch
        loss: Tensor = self.loss(self.network(faces), people)
        self.log("train/loss", loss.detach(), on_step=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with the schedule of :meth:`rate_factor`."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.recipe.learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


Draws = list[tuple[int, int]]  # face numbers, each with the seed of its augmentation


class PeopleBatches(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of augmented views with their people."""

    def __init__(self, faces: FloatArray, labels: LabelArray) -> None:
        self.faces, self.labels = faces, labels

    def __getitem__(self, draws: Draws) -> tuple[Tensor, Tensor]:
        views = [augment_rgbd(self.faces[index], np.random.default_rng(seed)) for index, seed in draws]
        return torch.from_numpy(np.stack(views)), torch.from_numpy(self.labels[[i for i, _ in draws]])


class PeopleSampler(Sampler[Draws]):
    """Batches of some views of some people; ``steps`` of them an epoch, other ones in the next epoch."""

    def __init__(self, labels: LabelArray, recipe: RgbdRecipe, steps: int) -> None:
        self.members = [np.flatnonzero(labels == person) for person in np.unique(labels)]
        self.recipe, self.steps, self.epoch = recipe, steps, 0

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        """Begin with this epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draws]:
        random, views = np.random.default_rng((self.recipe.seed, self.epoch)), self.recipe.views
        people = min(self.recipe.people, len(self.members))
        for _ in range(self.steps):
            chosen = [
                self.members[person] for person in random.choice(len(self.members), people, replace=False)
            ]
            batch = [random.choice(own, views, replace=len(own) < views) for own in chosen]
            faces = np.concatenate(batch).tolist()
            yield list(zip(faces, random.integers(0, 2**62, len(faces)).tolist(), strict=True))


@dataclass
class Owner:
    """The owner of a device: unlocked by a face nearer than ``threshold`` to one of the (K, D) vectors."""

    threshold: float
    vectors: FloatArray

    def distance(self, vector: FloatArray) -> float:
        """Return the Euclidean distance of (D,) to the nearest of the owner's vectors."""
        return float(np.linalg.norm(self.vectors - vector, axis=1).min())

    def unlocks(self, vector: FloatArray, adapt: bool = False) -> bool:
        """Return whether (D,) is near enough; with ``adapt`` an accepted vector is added to the owner's."""
        is_owner = self.distance(vector) < self.threshold
        if is_owner and adapt:
            self.vectors = np.concatenate([self.vectors, np.asarray(vector, np.float32)[None]])
        return is_owner

    def save(self, path: Path) -> None:
        """Write the vectors to an ``.npz``, whole or not at all, readable by its user only."""
        with written_whole(path, 0o600) as draft:
            np.savez(draft, vectors=self.vectors)

    @classmethod
    def load(cls, path: Path, threshold: float) -> Owner:
        """Read what ``save`` wrote."""
        if not path.is_file():
            raise SourceError(f"{path}: no such file; register the owner first (unlock --register PICTURES)")
        try:
            with np.load(path) as stored:
                return cls(threshold, stored["vectors"])
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise SourceError(
                f"{path}: expected an owner's vectors, got a file that is damaged or something else "
                f"({error}); register the owner again"
            ) from error


@dataclass(frozen=True, slots=True)
class RgbdReport:
    """What people never trained on gave."""

    people: int
    same_distance: float  # mean distance of two views of one person (the article: 0.30)
    different_distance: float  # mean distance of views of two people (the article: 1.1)
    threshold: float  # used for unlocking (the article: 0.4)
    owner_unlocks: float  # share of owners' attempts that unlock, registered from several poses
    stranger_unlocks: float  # share of other people's attempts that unlock
    owner_unlocks_one_view: float  # the same as owner_unlocks, registered from one view
    owner_unlocks_adapting: float  # registered from one view, adding each accepted vector
    stranger_unlocks_adapting: float  # strangers who unlock after that
    equal_error_threshold: float  # threshold at which owners and strangers fail equally often
    equal_error: float

    def __str__(self) -> str:
        return (
            f"{self.people} people never trained on: distance {self.same_distance:.2f} same, "
            f"{self.different_distance:.2f} different\n"
            f"threshold {self.threshold:.2f}: owners unlock {100 * self.owner_unlocks:.1f} %, strangers "
            f"{100 * self.stranger_unlocks:.1f} %\n"
            f"registered from one view: {100 * self.owner_unlocks_one_view:.1f} %, adding accepted vectors "
            f"{100 * self.owner_unlocks_adapting:.1f} % "
            f"(strangers {100 * self.stranger_unlocks_adapting:.1f} %)\n"
            f"equal error {100 * self.equal_error:.1f} % at {self.equal_error_threshold:.2f}"
        )


def train_rgbd(recipe: RgbdRecipe, options: RunOptions) -> RgbdReport:
    """Train on most people, try the lock on the others, draw."""
    set_up(options)
    faces, labels = read_rgbd(recipe.data.path)
    held = labels % recipe.data.held_out_modulus == 0
    trained, trained_labels = faces[~held], labels[~held]
    steps = min(recipe.steps, 4) if options.fast else recipe.steps
    lightning.seed_everything(recipe.seed, verbose=False)
    module = RgbdTraining(recipe, steps)
    sampler = PeopleSampler(trained_labels, recipe, min(EPOCH_STEPS, steps))
    loader = DataLoader(PeopleBatches(trained, trained_labels), sampler=sampler, batch_size=None)
    lightning.seed_everything(recipe.seed, verbose=False)  # whatever the first weights drew
    fit(module, loader, None, steps, options)
    network = module.network.eval()
    write_checkpoint(network.state_dict(), options.out / WEIGHTS)
    embeddings = answers(network, faces)
    report = try_lock(embeddings[held], labels[held], recipe)
    same, different = pair_distances(embeddings[held], labels[held])
    plots.plot_projections(embeddings[held], labels[held], options.out / "held_out.png", "People held out")
    plots.plot_projections(embeddings[~held], labels[~held], options.out / "trained.png", "Trained on")
    plots.plot_histogram(same, different, options.out / "distances.png", "distance", recipe.threshold)
    plots.plot_curves(options.out, {"contrastive loss": ("train/loss",)}, options.out / "curves.png")
    write_json(options.out / REPORT, {"recipe": plain_values(recipe), **asdict(report)})
    return report


def load_rgbd(run: Path) -> SqueezeEncoder:
    """Return the trained network of a run's folder."""
    network = SqueezeEncoder()
    network.load_state_dict(read_weights(run / WEIGHTS))
    return network.eval()


def load_threshold(run: Path) -> float:
    """Return the unlocking distance of a run's recipe; the article's for weights without a report."""
    if not (run / REPORT).is_file():
        return ARTICLE_THRESHOLD
    return float(json.loads((run / REPORT).read_text(encoding="utf-8"))["recipe"]["threshold"])


def pair_distances(embeddings: FloatArray, labels: LabelArray) -> tuple[FloatArray, FloatArray]:
    """Return the Euclidean distances of all pairs of one person, and of two people."""
    first, second = np.triu_indices(len(labels), 1)
    distance = np.linalg.norm(embeddings[first] - embeddings[second], axis=1)
    same = labels[first] == labels[second]
    return distance[same], distance[~same]


def try_lock(embeddings: FloatArray, labels: LabelArray, recipe: RgbdRecipe) -> RgbdReport:
    """Let each person register and unlock, and everybody else try."""
    random = np.random.default_rng(recipe.seed)
    own: dict[str, list[bool]] = {"several": [], "one": [], "adapting": []}
    foreign: dict[str, list[bool]] = {"several": [], "adapting": []}
    owner_distances, stranger_distances = [], []
    for person in np.unique(labels):
        views = random.permutation(np.flatnonzero(labels == person))
        count = min(recipe.registered_views, len(views) - 1)
        if count < 1:
            continue
        attempts, strangers = embeddings[views[count:]], embeddings[labels != person]
        owner = Owner(recipe.threshold, embeddings[views[:count]])
        owner_distances += [owner.distance(one) for one in attempts]
        stranger_distances += [owner.distance(one) for one in strangers]
        own["several"] += [owner.unlocks(one) for one in attempts]
        foreign["several"] += [owner.unlocks(one) for one in strangers]
        single = Owner(recipe.threshold, embeddings[views[:1]])
        own["one"] += [single.unlocks(one) for one in attempts]
        # the views that registration would have used are the first looks of the adapting owner
        for look in embeddings[views[1:count]]:
            single.unlocks(look, adapt=True)
        own["adapting"] += [single.unlocks(one, adapt=True) for one in attempts]
        foreign["adapting"] += [single.unlocks(one) for one in strangers]
    unlocked, intruded = (
        {name: float(np.mean(values)) for name, values in attempts.items()} for attempts in (own, foreign)
    )
    same, different = pair_distances(embeddings, labels)
    nearness, error = equal_error(-np.array(owner_distances), -np.array(stranger_distances))
    return RgbdReport(
        len(np.unique(labels)), float(same.mean()), float(different.mean()), recipe.threshold,
        unlocked["several"], intruded["several"], unlocked["one"],
        unlocked["adapting"], intruded["adapting"], -nearness, error,
    )  # fmt: skip

"""Face ID with triplets: owner or not, from a few pictures; alpha, from -1 to 1, is the sensitivity."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import lightning
import numpy as np
import torch
from pytorch_metric_learning import distances, losses, reducers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.networks.weight_files import read_weights, write_checkpoint
from face_recognition_node.systems.siamese import GREY_FACE_SIZE, SiameseEncoder
from face_recognition_node.systems.small_runs import LAST, fit_epochs
from face_recognition_node.training.augmentation import Augmentation
from face_recognition_node.training.embedder_training import RunOptions
from face_recognition_node.vision.faces import FloatArray, ImageArray

LOCK = "lock.pt"
SMALL, HEAD = "small", "head"


@dataclass(frozen=True, slots=True)
class TripletSettings:
    """How the lock is trained.

    Attributes:
        network: ``small`` (three convolutions from scratch) or ``head`` (one layer on the robot's embedder).
        alpha: Margin while training, in [-1, 1].
        steps: Most steps; each sees every triplet once.
        learning_rate: Of Adam.
        embedding_size: Numbers in a vector, which is brought to unit length.
        stop_after: Steps in a row without any loss after which training is done.
        seed: Of everything random.
    """

    network: str = SMALL
    alpha: float = 0.5
    steps: int = 150
    learning_rate: float = 1e-3
    embedding_size: int = 64
    stop_after: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not -1 <= self.alpha <= 1:
            raise ConfigurationError(f"alpha: expected a number from -1 to 1, got {self.alpha}")
        if self.network not in (SMALL, HEAD):
            raise ConfigurationError(f"network: expected {SMALL!r} or {HEAD!r}, got {self.network!r}")

    @property
    def production_alpha(self) -> float:
        """Sensitivity in use: half of that in training, since new pictures are not as good."""
        return max(0.0, self.alpha / 2)


def all_triplets(n_me: int, n_not_me: int) -> Tensor:
    """Return (T, 3) anchor, positive, negative: each ordered pair of the owner's × every other picture.

    The owner's pictures are numbered 0 … n_me - 1, the others follow; T is n_me · (n_me - 1) · n_not_me.
    """
    pairs = itertools.permutations(range(n_me), 2)
    others = range(n_me, n_me + n_not_me)
    triplets = [(*pair, other) for pair, other in itertools.product(pairs, others)]
    return torch.tensor(triplets, dtype=torch.long).reshape(-1, 3)


def triplet_loss(alpha: float) -> losses.TripletMarginLoss:
    """Return mean max(‖A − P‖ − ‖A − N‖ + alpha, 0) on unit vectors; distances are not squared."""
    distance = distances.LpDistance(normalize_embeddings=True, p=2, power=1)
    return losses.TripletMarginLoss(margin=alpha, distance=distance, reducer=reducers.MeanReducer())


class TripletTraining(lightning.LightningModule):
    """All triplets at once: each picture goes through the network once a step.

    Args:
        settings: How.
        network: (B, …) inputs → (B, D).
        n_me: The owner's pictures, the first of each batch.
        n_not_me: The others.
    """

    def __init__(self, settings: TripletSettings, network: nn.Module, n_me: int, n_not_me: int) -> None:
        super().__init__()
        self.settings, self.network = settings, network
        self.loss = triplet_loss(settings.alpha)
        self.register_buffer("triplets", all_triplets(n_me, n_not_me), persistent=False)
        self.register_buffer(
            "labels", torch.tensor([0] * n_me + list(range(1, n_not_me + 1))), persistent=False
        )
        self.idle = 0
        self.steps_done = 0

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """Return the mean loss of all triplets of one augmented view of every picture."""
        triplets = self.get_buffer("triplets")
        value: Tensor = self.loss(self.network(batch), self.get_buffer("labels"), tuple(triplets.T))
        self.idle = self.idle + 1 if float(value.detach()) == 0 else 0
        self.steps_done += 1
        if self.idle >= self.settings.stop_after:
            self.trainer.should_stop = True
        self.log("train/loss", value.detach(), on_step=True)
        return value

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.settings.learning_rate)


class Views(Dataset[Tensor]):
    """Augmented views of the pictures, all of them in order, ``rounds`` times."""

    def __init__(self, settings: TripletSettings, inputs: ImageArray | FloatArray, rounds: int) -> None:
        self.settings, self.inputs, self.rounds = settings, inputs, rounds
        self.augmentation = Augmentation(far=0.1, far_min=32, cover=0, lower_cover=0)

    def __len__(self) -> int:
        return self.rounds * len(self.inputs)

    def __getitem__(self, place: int) -> Tensor:
        number = place % len(self.inputs)
        random = np.random.default_rng((self.settings.seed, place))
        if self.settings.network == HEAD:
            moved = self.inputs[number] + random.normal(0, 0.02, self.inputs.shape[1])
            return torch.from_numpy(np.asarray(moved, np.float32))
        face = np.asarray(self.inputs[number], np.uint8)
        face = np.ascontiguousarray(face[:, ::-1]) if random.random() < 0.5 else face
        return small_input(self.augmentation.apply(face, random)[None])[0]


def small_input(crops_bgr: ImageArray) -> Tensor:
    """Return (N, 3, 64, 64) in [0, 1] of (N, 112, 112, 3) crops: the face without its surroundings."""
    size = (GREY_FACE_SIZE, GREY_FACE_SIZE)
    inner = [cv2.resize(crop[12:108, 8:104], size, interpolation=cv2.INTER_AREA) for crop in crops_bgr]
    return torch.from_numpy(np.stack(inner).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def make_network(settings: TripletSettings, input_size: int = 64) -> nn.Module:
    """Return the network to train: small, or a linear layer on embeddings of ``input_size``."""
    torch.manual_seed(settings.seed)
    if settings.network == SMALL:
        return SiameseEncoder(dropout=0.1, input_channels=3, embedding_size=settings.embedding_size)
    head = nn.Linear(input_size, settings.embedding_size, bias=False)
    # it starts as the embedder's own distances, which a few pictures then bend
    nn.init.eye_(head.weight)
    return head


@dataclass(frozen=True, slots=True, eq=False)
class TripletLock:
    """A trained lock: the network's unit vectors of the pictures it was trained on, and alpha.

    Attributes:
        settings: How it was trained.
        network: What turns inputs into vectors.
        me: (K, D) the owner's vectors.
        not_me: (M, D) the others'.
        steps: Steps that training took.
        seconds: Time that it took.
    """

    settings: TripletSettings
    network: nn.Module
    me: FloatArray
    not_me: FloatArray
    steps: int = 0
    seconds: float = 0.0

    def vectors(self, inputs: ImageArray | FloatArray) -> FloatArray:
        """Return (N, D) unit vectors of crops (small) or embeddings (head)."""
        return _vectors(self.settings, self.network, inputs)

    def margins(self, inputs: ImageArray | FloatArray) -> FloatArray:
        """Return (N,) how much nearer each face is to the owner than to the others; high is owner.

        It is minus the article's triplet value without alpha: mean ‖A − N‖ − mean ‖A − P‖.
        """
        vectors = self.vectors(inputs)
        to_me = np.linalg.norm(vectors[:, None] - self.me[None], axis=2).mean(axis=1)
        to_others = np.linalg.norm(vectors[:, None] - self.not_me[None], axis=2).mean(axis=1)
        return np.asarray(to_others - to_me, np.float32)

    def unlocks(
        self, inputs: ImageArray | FloatArray, alpha: float | None = None
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Return (N,) whether max(‖A − P‖ − ‖A − N‖ + alpha, 0) is 0, on average: is it the owner?"""
        return self.margins(inputs) >= (self.settings.production_alpha if alpha is None else alpha)

    def save(self, folder: Path) -> None:
        """Write the lock into a run's folder."""
        names = TripletSettings.__slots__
        stored = {"settings": {name: getattr(self.settings, name) for name in names}}
        vectors = {"me": torch.from_numpy(self.me), "not_me": torch.from_numpy(self.not_me)}
        write_checkpoint({**stored, **vectors, "network": self.network.state_dict()}, folder / LOCK)

    @classmethod
    def load(cls, folder: Path) -> TripletLock:
        """Read a lock from a run's folder."""
        if not (folder / LOCK).is_file():
            raise SourceError(f"{folder / LOCK}: no such file; train one with a triplet_face_id recipe first")
        stored = read_weights(folder / LOCK)
        settings = TripletSettings(**stored["settings"])
        weights = stored["network"]
        network = make_network(settings, weights["weight"].shape[1] if settings.network == HEAD else 0)
        network.load_state_dict(weights)
        return cls(settings, network.eval(), stored["me"].numpy(), stored["not_me"].numpy())


def _vectors(settings: TripletSettings, network: nn.Module, inputs: ImageArray | FloatArray) -> FloatArray:
    if len(inputs) == 0:
        return np.empty((0, settings.embedding_size), np.float32)
    small = settings.network == SMALL
    tensor = (
        small_input(np.asarray(inputs, np.uint8))
        if small
        else torch.from_numpy(np.asarray(inputs, np.float32))
    )
    network.eval()
    with torch.inference_mode():
        made = torch.cat([functional.normalize(network(part), dim=1) for part in torch.split(tensor, 64)])
    return np.asarray(made.numpy(), np.float32)


def train_lock(
    settings: TripletSettings,
    me: ImageArray | FloatArray,
    not_me: ImageArray | FloatArray,
    options: RunOptions,
    is_kept: bool = True,
) -> TripletLock:
    """Train a lock on the owner's and others' faces: crops for ``small``, embeddings for ``head``.

    Raises:
        ConfigurationError: With fewer than two pictures of the owner or none of others.
    """
    if len(me) < 2 or len(not_me) < 1:
        raise ConfigurationError(
            f"expected two or more pictures of ME and one of NOT_ME, got {len(me)}, {len(not_me)}"
        )
    steps = min(settings.steps, 5) if options.fast else settings.steps
    inputs = np.concatenate([me, not_me])
    network = make_network(settings, inputs.shape[-1] if settings.network == HEAD else 0)
    module = TripletTraining(settings, network, len(me), len(not_me))
    loader = DataLoader(Views(settings, inputs, steps), batch_size=len(inputs))
    # a lock takes seconds: it starts anew instead of going on
    (options.out / LAST).unlink(missing_ok=True)
    started = time.perf_counter()
    fit_epochs(module, loader, None, 1, options, settings.seed, is_kept)
    seconds = time.perf_counter() - started
    vectors = _vectors(settings, network, inputs)
    return TripletLock(settings, network, vectors[: len(me)], vectors[len(me) :], module.steps_done, seconds)

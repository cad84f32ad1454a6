"""Face ID with triplets: owner or not, from a few pictures; alpha, from -1 to 1, is the sensitivity."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from face_recognition_node.common.errors import ConfigurationError, InputError, SourceError
from face_recognition_node.common.files import write_json, write_text
from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.picture_archive import IMAGE_ENDINGS, LfwArchive
from face_recognition_node.networks.loading import read_weights, write_checkpoint
from face_recognition_node.systems.pictures import crop_face, embed_crops
from face_recognition_node.systems.runs import answers, equal_error, set_up
from face_recognition_node.systems.siamese import GREY_FACE_SIZE, SiameseEncoder
from face_recognition_node.training.augmentation import Augmentation
from face_recognition_node.training.recipe import RunOptions, Section, plain_values
from face_recognition_node.vision.embedding import normalize
from face_recognition_node.vision.faces import FloatArray, ImageArray

LOCK = "lock.pt"
SMALL, HEAD = "small", "head"
AUGMENTATION = Augmentation(far=0.1, far_min=32, cover=0, lower_cover=0)


class TripletSettings(Section, frozen=True):
    """How the lock is trained."""

    # small (three convolutions from scratch) or head (one layer on the robot's embedder)
    network: Literal["small", "head"] = "small"
    alpha: float = 0.5  # margin while training, in [-1, 1]
    steps: int = 150  # most steps; each sees every triplet once
    learning_rate: float = 1e-3
    embedding_size: int = 64  # numbers in a vector, which is brought to unit length
    stop_after: int = 5  # steps in a row without any loss after which training is done
    seed: int = 0

    def __post_init__(self) -> None:
        if not -1 <= self.alpha <= 1:
            raise ConfigurationError(f"alpha: expected a number from -1 to 1, got {self.alpha}")

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


def triplet_loss(vectors: Tensor, triplets: Tensor, alpha: float) -> Tensor:
    """Return mean max(‖A − P‖ − ‖A − N‖ + alpha, 0) of (N, D) vectors brought to unit length.

    ``triplets`` are (T, 3) numbers of anchor, positive and negative; distances are not squared.
    """
    unit = functional.normalize(vectors, dim=1)
    anchor, positive, negative = (unit[place] for place in triplets.T)
    gap = functional.pairwise_distance(anchor, positive) - functional.pairwise_distance(anchor, negative)
    return functional.relu(gap + alpha).mean()


def draw_view(
    settings: TripletSettings, face: ImageArray | FloatArray, random: np.random.Generator
) -> Tensor:
    """Return an augmented input of the network, of a crop or (``head``) of an embedding."""
    if settings.network == HEAD:
        return torch.from_numpy(np.asarray(face + random.normal(0, 0.02, len(face)), np.float32))
    return small_input(AUGMENTATION.apply(np.asarray(face, np.uint8), random)[None])[0]


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
    """A trained lock: the network's unit vectors of the pictures it was trained on, and alpha."""

    settings: TripletSettings
    network: nn.Module
    me: FloatArray  # (K, D) the owner's vectors
    not_me: FloatArray  # (M, D) the others'
    losses: tuple[float, ...] = ()  # of each step that training took
    seconds: float = 0.0

    def margins(self, inputs: ImageArray | FloatArray) -> FloatArray:
        """Return (N,) how much nearer each face, crop (small) or embedding (head), is to the owner.

        It is minus the article's triplet value without alpha: mean ‖A − N‖ − mean ‖A − P‖; from alpha on it
        is the owner.
        """
        vectors = embed(self.settings, self.network, inputs)
        to_me = np.linalg.norm(vectors[:, None] - self.me[None], axis=2).mean(axis=1)
        to_others = np.linalg.norm(vectors[:, None] - self.not_me[None], axis=2).mean(axis=1)
        return np.asarray(to_others - to_me, np.float32)

    def save(self, folder: Path) -> None:
        """Write the lock into a run's folder."""
        stored = {"settings": msgspec.structs.asdict(self.settings)}
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


def embed(settings: TripletSettings, network: nn.Module, inputs: ImageArray | FloatArray) -> FloatArray:
    """Return (N, D) unit vectors of crops (small) or embeddings (head)."""
    if len(inputs) == 0:
        return np.empty((0, settings.embedding_size), np.float32)
    if settings.network == SMALL:
        inputs = small_input(np.asarray(inputs, np.uint8)).numpy()
    return normalize(answers(network, np.asarray(inputs, np.float32)))


def train_lock(
    settings: TripletSettings,
    me: ImageArray | FloatArray,
    not_me: ImageArray | FloatArray,
    options: RunOptions,
) -> TripletLock:
    """Train a lock on the owner's and others' faces: crops for ``small``, embeddings for ``head``.

    Each step sends a view of every picture through the network once and takes all triplets of them.

    Raises:
        ConfigurationError: With fewer than two pictures of the owner or none of others.
    """
    if len(me) < 2 or len(not_me) < 1:
        raise ConfigurationError(
            f"expected two or more pictures of ME and one of NOT_ME, got {len(me)}, {len(not_me)}"
        )
    set_up(options)
    inputs = np.concatenate([me, not_me])
    network = make_network(settings, inputs.shape[-1] if settings.network == HEAD else 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    triplets = all_triplets(len(me), len(not_me))
    costs: list[float] = []
    started = time.perf_counter()
    for step in range(min(settings.steps, 5) if options.fast else settings.steps):
        draws = enumerate(inputs, step * len(inputs))
        views = [draw_view(settings, face, np.random.default_rng((settings.seed, n))) for n, face in draws]
        cost = triplet_loss(network(torch.stack(views)), triplets, settings.alpha)
        optimizer.zero_grad()
        torch.autograd.backward(cost)
        optimizer.step()
        costs.append(float(cost.detach()))
        if len(costs) >= settings.stop_after and not any(costs[-settings.stop_after :]):
            break
    seconds = time.perf_counter() - started
    vectors = embed(settings, network, inputs)
    return TripletLock(settings, network, vectors[: len(me)], vectors[len(me) :], tuple(costs), seconds)


@dataclass(frozen=True, slots=True)
class LockTrial:
    """What a lock did with faces it had not seen."""

    n_me: int
    n_not_me: int
    alpha: float
    steps: int  # steps until no triplet cost anything, or all of them
    seconds: float
    is_satisfied: bool  # whether every triplet of unchanged pictures meets the margin
    owner_unlocks: float  # share of the owner's new pictures that unlock at production_alpha
    stranger_unlocks: float  # share of unknown people's that do
    equal_error: float  # error rate where both kinds of error are equal, over all production alphas
    equal_error_alpha: float

    def __str__(self) -> str:
        return (
            f"{self.n_me:2d} of me, {self.n_not_me:2d} not, alpha {self.alpha:+.1f}: {self.steps:3d} steps "
            f"{self.seconds:5.1f} s; I unlock {100 * self.owner_unlocks:3.0f} %, strangers "
            f"{100 * self.stranger_unlocks:3.0f} %; equal error {100 * self.equal_error:4.1f} % at alpha "
            f"{self.equal_error_alpha:+.2f}"
        )


def try_lock(
    lock: TripletLock, me_tests: ImageArray | FloatArray, not_me_tests: ImageArray | FloatArray
) -> LockTrial:
    """Show a lock new faces of its owner and of people it has never seen."""
    mine, theirs = lock.margins(me_tests), lock.margins(not_me_tests)
    limit_in_use = lock.settings.production_alpha
    limit, error = equal_error(mine, theirs)
    a, p, n = all_triplets(len(lock.me), len(lock.not_me)).numpy().T
    known = np.concatenate([lock.me, lock.not_me])
    gaps = np.linalg.norm(known[a] - known[p], axis=1) - np.linalg.norm(known[a] - known[n], axis=1)
    return LockTrial(
        len(lock.me),
        len(lock.not_me),
        lock.settings.alpha,
        len(lock.losses),
        lock.seconds,
        bool((gaps + lock.settings.alpha <= 1e-6).all()),
        float((mine >= limit_in_use).mean()),
        float((theirs >= limit_in_use).mean()),
        error,
        limit,
    )


def read_folder(folder: Path) -> ImageArray:
    """Return (N, 112, 112, 3) aligned faces of a folder's pictures, by name; SourceError without any."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (*IMAGE_ENDINGS, ".jpeg", ".bmp"))
    if not paths:
        raise SourceError(f"{folder}: expected a folder of pictures (jpg, png, webp), found none")
    return np.stack([read_face(path) for path in paths])


def read_face(path: Path) -> ImageArray:
    """Return the aligned face of one picture; a picture of 112×112 pixels is taken to be one already."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: expected a picture, cannot read it")
    picture = np.asarray(image, np.uint8)
    return picture if picture.shape == (112, 112, 3) else crop_face(picture)


def demonstration(
    archive: LfwArchive, owner: str, n_me: int, n_not_me: int, seed: int
) -> tuple[ImageArray, ImageArray, ImageArray, ImageArray]:
    """Return aligned faces of an archive: the owner's and others' to train on, and both to try the lock with.

    The owner needs more than ``n_me`` faces; there is one face each of the others.
    """
    random = np.random.default_rng(seed)
    people = np.array(archive.people)
    own = random.permutation(np.flatnonzero(people == owner))
    if len(own) <= n_me:
        raise InputError(f"{owner}: expected over {n_me} faces, the archive has {len(own)}")
    others = random.permutation(np.unique(people[people != owner]))[: n_not_me + 200]
    one_each = [int(random.choice(np.flatnonzero(people == name))) for name in others]
    me, tests = own[:n_me], own[n_me:]

    def read(numbers: Iterable[int]) -> ImageArray:
        return np.stack([archive.read(int(number)) for number in numbers])

    return read(me), read(one_each[:n_not_me]), read(tests), read(one_each[n_not_me:])


class TripletData(Section, frozen=True):
    """Whose faces."""

    me: Path | None = None  # folder of the owner's pictures
    not_me: Path | None = None  # folder of other people's pictures
    me_tests: Path | None = None  # optional folder of new pictures of the owner, only to try the lock
    not_me_tests: Path | None = None  # optional folder of pictures of further people, only to try the lock
    path: Path | None = None  # zip of labelled faces to take a demonstration from where no folders are given
    owner: str = "Tony_Blair"
    n_me: int = 7
    n_not_me: int = 10


class TripletRecipe(Section, frozen=True):
    """How a lock is made."""

    kind: str
    data: TripletData = msgspec.field(default_factory=TripletData)
    lock: TripletSettings = msgspec.field(default_factory=TripletSettings)
    seed: int = 0  # of the choice of faces


def network_inputs(settings: TripletSettings, crops: ImageArray) -> ImageArray | FloatArray:
    """Return what the network of a lock sees of (N, 112, 112, 3) crops: themselves, or their embeddings."""
    return embed_crops(crops) if settings.network == HEAD else crops


def train_triplet(recipe: TripletRecipe, options: RunOptions) -> str:
    """Make the lock; return what came out as text."""
    data = recipe.data
    if data.me is not None and data.not_me is not None:
        nobody = np.empty((0, 112, 112, 3), np.uint8)
        folders = (data.me, data.not_me, data.me_tests, data.not_me_tests)
        parts = [nobody if folder is None else read_folder(folder) for folder in folders]
    elif data.path is not None:
        archive = LfwArchive.open(data.path)
        parts = list(demonstration(archive, data.owner, data.n_me, data.n_not_me, recipe.seed))
    else:
        raise ConfigurationError(
            "expected folders (--set data.me=ME --set data.not_me=NOT_ME) or labelled faces (--data PATH)"
        )
    me, not_me, me_tests, not_me_tests = (network_inputs(recipe.lock, part) for part in parts)
    lock = train_lock(recipe.lock, me, not_me, options)
    lock.save(options.out)
    table = "".join(f"{step},{loss}\n" for step, loss in enumerate(lock.losses))
    write_text(options.out / "metrics.csv", f"step,train/loss\n{table}")
    plots.plot_curves(options.out, {"mean triplet loss": ("train/loss",)}, options.out / "curves.png")
    steps = len(lock.losses)
    report: dict[str, Any] = {"recipe": plain_values(recipe), "steps": steps, "seconds": lock.seconds}
    summary = f"trained on {len(me)} of me and {len(not_me)} of others in {lock.seconds:.1f} s, {steps} steps"
    if len(me_tests) and len(not_me_tests):
        trial = try_lock(lock, me_tests, not_me_tests)
        plots.plot_histogram(
            lock.margins(me_tests), lock.margins(not_me_tests), options.out / "margins.png",
            "mean distance to the others minus mean distance to me", recipe.lock.production_alpha,
        )  # fmt: skip
        report["trial"], summary = asdict(trial), f"{summary}\n{trial}"
    write_json(options.out / "report.json", report)
    return summary

"""Recipes: YAML read into typed structs, so that a wrong entry is refused with its place.

The structs of the embedder's recipe are here; each system of ``systems/`` has its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.files import user_path
from face_recognition_node.evaluation.face_archive import LOOKALIKE_SIMILARITY
from face_recognition_node.training.augmentation import Augmentation

RecipeT = TypeVar("RecipeT")
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of a recipe; entries that it does not know are errors."""


class RunOptions(Section, frozen=True):
    """What the command line says beside the recipe."""

    out: Path
    fast: bool = False  # A run of two minutes that proves that everything works
    threads: int = 0  # CPU threads of this process; 0 leaves torch's choice
    accelerator: str = "auto"  # auto, cpu, gpu
    devices: int = 1  # processes on this node
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.threads < 0 or self.devices < 1 or self.nodes < 1:
            raise ConfigurationError(
                "expected threads of at least 0, devices and nodes of at least 1, got "
                f"{self.threads}, {self.devices} and {self.nodes}"
            )
        user_path(self.out, "folder", name="--out", error=ConfigurationError)


class DataRecipe(Section, frozen=True):
    """Which faces to train on."""

    path: Path  # folder of an archive (train_faces.bin) or of prepared crops (manifest.csv)
    minimum_images: int = 3  # identities with fewer training faces count as unlabelled
    # optional file made by face-recognition teacher: the teacher's embeddings; None takes train_teacher.npy
    # beside the faces, if it is there. Look-alikes of held-out people are found with it
    teacher: Path | None = None
    # faces that the teacher finds nearer than this (cosine) to a held-out face are left out of training.
    # Teachers differ: 0.55 for MobileFace, 0.45 for EdgeFace
    lookalike_similarity: float = LOOKALIKE_SIMILARITY
    labelled_only: bool = False  # leave out faces without a label (where there is no teacher to learn from)
    # optional CSV of row numbers (from 0) that are never trained on, in its first column
    exclude: Path | None = None
    clusters: Path | None = None  # optional CSV row,identity of identities found for unlabelled faces


class BatchRecipe(Section, frozen=True):
    """What one batch of one process holds: ``identities`` × ``images_each`` plus ``random`` faces."""

    identities: Count = 0
    images_each: Annotated[int, msgspec.Meta(ge=2)] = 4
    random: Count = 64

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigurationError(f"expected two faces in a batch or more, got {self.size}")

    @property
    def size(self) -> int:
        """Faces in a batch."""
        return self.identities * self.images_each + self.random


class IdentityObjective(Section, frozen=True):
    """Classification of the labelled faces."""

    kind: Literal["cross_entropy", "cosface"] = "cross_entropy"
    # features (1280 numbers, a layer of its own that the next stage drops) or embedding (64)
    vectors: Literal["features", "embedding"] = "features"
    weight: float = 1.0
    margin: float = 0.2  # of cosface, a cosine; scale is cosface's, too
    scale: float = 24.0
    smoothing: float = 0.05


class MetricObjective(Section, frozen=True):
    """Distances of pairs or triplets."""

    kind: Literal["contrastive", "triplet"] = "triplet"  # contrastive (Hadsell) or triplet (Schroff)
    weight: float = 1.0
    margin: float = 0.2  # contrastive: distance in [0, 2]; triplet: difference of squared distances
    # which pairs or triplets count; see :func:`losses.build_miner`
    miner: Literal["all", "semihard"] = "semihard"


class Distillation(Section, frozen=True):
    """Learning from a teacher's embeddings; a weight of 0 leaves a part out."""

    embedding: float = 3.0  # cosine between the teacher's vector and a linear map of ours
    relation: float = 15.0  # squared difference of the two similarity matrices of a batch
    # squared difference of similarities over pairs of a batch's and earlier faces that look alike
    look_alike: float = 0.0
    look_alike_from: float = 0.35  # the network's cosine from which a pair looks alike
    teacher_look_alike_from: float | None = None  # the teacher's; None takes the network's
    # compare with so many linear discriminants of the teacher's embedding between the labelled identities
    # (:func:`data.discriminants`); 0 compares with the embedding itself
    discriminants: Count = 0
    memory: Positive = 8192  # earlier faces that each batch is compared with for it


class StageRecipe(Section, frozen=True):
    """One stage of training."""

    name: str  # folder of its logs and checkpoints
    steps: Positive  # batches to see
    batch: BatchRecipe = msgspec.field(default_factory=BatchRecipe)
    identity: IdentityObjective | None = None
    metric: MetricObjective | None = None
    distillation: Distillation | None = None
    learning_rate: float = 1e-3  # highest rate of AdamW
    # factor on the rate for each stage of the trunk further from the embedding
    rate_decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    weight_decay: float = 0.02  # on matrices, not on biases and norms
    warmup: int = 300  # steps over which the rate rises from zero
    # cosine to zero over all steps, or constant (a run that never ends: branch off a cooldown)
    schedule: Literal["cosine", "constant"] = "cosine"
    cooldown: int = 0  # last steps over which a constant rate falls linearly to zero
    # decay of the moving average of the weights, which is what is judged and exported
    average: float = 0.9995
    # share of the weights started from in those written, the rest is the moving average (Wortsman et al.
    # 2022, *Robust fine-tuning*): what was learned before is kept on other pictures
    start_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    clip: float = 5.0  # largest norm of the gradient
    # the stem and so many of the trunk's seven stages stay as they are, weights and statistics. They see the
    # largest maps and so cost most, and change least: with 2 of 7 frozen a step on a CPU takes two thirds of
    # the time
    frozen_stages: Annotated[int, msgspec.Meta(ge=0, le=7)] = 0
    # so many faces are looked at first, to fit new heads to a network that has learned before
    # (:func:`start.fit_heads`); 0 starts them at random
    head_faces: Count = 0

    def __post_init__(self) -> None:
        if self.identity is None and self.metric is None and self.distillation is None:
            raise ConfigurationError(f"{self.name}: expected identity, metric or distillation, got none")
        if self.metric is not None and self.batch.identities < 2:
            raise ConfigurationError(f"{self.name}: a metric loss needs batch.identities of at least 2")


class EmbedderRecipe(Section, frozen=True):
    """How the embedder is trained from start to end."""

    kind: str
    name: str
    stages: tuple[StageRecipe, ...]  # one after the other, each starting from the weights of the one before
    data: DataRecipe
    augmentation: Augmentation = msgspec.field(default_factory=Augmentation)
    # weights to start from: a .safetensors of the network, a checkpoint, imagenet, or None
    start: str | None = None
    seed: int = 0
    workers: int = 0  # processes that decode and augment; 0 does it in the training process
    validate_every: int = 1000  # steps between two validations
    save_every_s: float = 60.0  # seconds between two checkpoints: what a kill can lose
    # 32-true, or bf16-mixed: weights and their updates in float32, most of the arithmetic in bfloat16, a
    # quarter faster on CPUs with AMX
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    # compile the trunk with TorchInductor first. Needs a C++ compiler and some minutes, the first time; after
    # that a step is a quarter faster on a CPU
    compiled: bool = False

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"stages: expected one or more with different names, got {names}")


def read_recipe(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML recipe and apply ``changes`` like ``seed=3`` or ``stages.1.steps=100``.

    Raises:
        ConfigurationError: If there is no such file, it is no mapping, or a change does not fit.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such recipe; the ones shipped are in config/training/")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict) or "kind" not in values:
        raise ConfigurationError(f"{path}: expected a mapping with a 'kind'")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {change}: expected NAME=VALUE")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--set {change}: the value is not YAML: {error}") from error
        set_value(values, name, value)
    return values


def set_value(values: Any, name: str, value: object) -> None:
    """Set the entry that ``name`` leads to: names of mappings and numbers of lists, with dots between.

    Raises:
        ConfigurationError: If it leads nowhere.
    """
    *parents, last = name.split(".")
    for part in parents:
        if isinstance(values, dict) and values.get(part) is None:
            values[part] = {}
        values = values[_key(values, part, name)]
    values[_key(values, last, name)] = value


def _key(values: object, part: str, name: str) -> int | str:
    if isinstance(values, list) and part.isdecimal() and int(part) < len(values):
        return int(part)
    if isinstance(values, dict):
        return part
    has = f"a list of {len(values)}, numbered from 0" if isinstance(values, list) else repr(values)
    raise ConfigurationError(f"{name}: {part!r} leads nowhere; before it stands {has}")


def build(kind: type[RecipeT], values: object) -> RecipeT:
    """Make a struct of ``kind`` from the values of a recipe.

    Raises:
        ConfigurationError: For an unknown, missing or ill-typed entry, named with its place.
    """
    try:  # not strict: YAML reads 1e-3 (no dot) as text
        return msgspec.convert(values, kind, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        hint = "; name the data with --data PATH" if "required field `path`" in str(error) else ""
        raise ConfigurationError(f"recipe: {error}{hint}") from error


def _decode_path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str):
        raise ValueError(f"Expected a path, got {value!r}")
    return user_path(value, error=ConfigurationError)


def plain_values(recipe: msgspec.Struct) -> dict[str, Any]:
    """Return a recipe as plain values for JSON."""
    return dict(json.loads(msgspec.json.encode(recipe, enc_hook=str)))

"""The recipe of the embedder: its data and its stages, first classification, then metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.training.augmentation import Augmentation

FEATURES, EMBEDDING = "features", "embedding"
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """Which faces to train on.

    Attributes:
        path: Folder of an archive (``train_faces.bin``) or of prepared crops (``manifest.csv``).
        minimum_images: Identities with fewer training faces count as unlabelled.
        keep_held_out: True keeps the fixed validation and test people out (see evaluation/face_archive.py).
        teacher: Optional file made by ``face-recognition teacher``: the teacher's embeddings; None takes
            ``train_teacher.npy`` beside the faces, if it is there.
        teacher_maps: Optional file made by ``face-recognition teacher``: the teacher's last feature maps.
        labelled_only: Leave out faces without a label (where there is no teacher to learn from).
    """

    path: Path = Path("../shared/data")
    minimum_images: int = 3
    keep_held_out: bool = True
    teacher: Path | None = None
    teacher_maps: Path | None = None
    labelled_only: bool = False


@dataclass(frozen=True, slots=True)
class BatchRecipe:
    """What one batch of one process holds: ``identities`` × ``images_each`` plus ``random`` faces.

    Attributes:
        identities: People drawn for pairs and triplets.
        images_each: Faces of each of them.
        random: Faces drawn from all, each once an epoch.
    """

    identities: int = 0
    images_each: int = 4
    random: int = 64

    def __post_init__(self) -> None:
        if self.identities < 0 or self.random < 0 or self.images_each < 2 or self.size < 2:
            raise ConfigurationError(
                "batch: expected identities and random of at least 0, images_each of at least 2 and two "
                f"faces in all, got {self.identities}, {self.random} and {self.images_each}"
            )

    @property
    def size(self) -> int:
        """Faces in a batch."""
        return self.identities * self.images_each + self.random


@dataclass(frozen=True, slots=True)
class IdentityObjective:
    """Classification of the labelled faces.

    Attributes:
        kind: ``cross_entropy``, ``cosface`` or ``arcface``.
        vectors: ``features`` (1280 numbers, a layer of its own that the next stage drops) or ``embedding``
            (64).
        weight: Factor of this loss.
        margin: Of cosface (cosine) or arcface (degrees).
        scale: Of cosface and arcface.
        smoothing: Label smoothing.
    """

    kind: str = "cross_entropy"
    vectors: str = FEATURES
    weight: float = 1.0
    margin: float = 0.2
    scale: float = 24.0
    smoothing: float = 0.05

    def __post_init__(self) -> None:
        if self.vectors not in (FEATURES, EMBEDDING):
            raise ConfigurationError(
                f"identity.vectors: expected {FEATURES!r} or {EMBEDDING!r}, got {self.vectors!r}"
            )


@dataclass(frozen=True, slots=True)
class MetricObjective:
    """Distances of pairs or triplets.

    Attributes:
        kind: ``contrastive`` (Hadsell) or ``triplet`` (Schroff).
        weight: Factor of this loss.
        margin: Contrastive: distance in [0, 2]; triplet: difference of squared distances.
        miner: ``all``, ``semihard``, ``hard`` or ``multi_similarity``.
    """

    kind: str = "triplet"
    weight: float = 1.0
    margin: float = 0.2
    miner: str = "semihard"


@dataclass(frozen=True, slots=True)
class Distillation:
    """Learning from a teacher's embeddings; a weight of 0 leaves a part out.

    Attributes:
        embedding: Cosine between the teacher's vector and a linear map of ours.
        relation: Squared difference of the two similarity matrices of a batch.
        feature_map: Cosine at each position of the last feature map; needs ``data.teacher_maps``.
        look_alike: Squared difference of similarities over pairs of a batch's and earlier faces that look
            alike.
        look_alike_from: Cosine, the network's or the teacher's, from which a pair looks alike.
        memory: Earlier faces that each batch is compared with for it.
    """

    embedding: float = 3.0
    relation: float = 15.0
    feature_map: float = 0.0
    look_alike: float = 0.0
    look_alike_from: float = 0.35
    memory: int = 8192

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ConfigurationError(f"distillation.memory: expected at least 1, got {self.memory}")


@dataclass(frozen=True, slots=True)
class StageRecipe:
    """One stage of training.

    Attributes:
        name: Folder of its logs and checkpoints.
        steps: Batches to see.
        batch: What a batch holds.
        identity: Classification, or None.
        metric: Pairs or triplets, or None.
        distillation: Teacher, or None.
        learning_rate: Highest rate of AdamW.
        weight_decay: On matrices, not on biases and norms.
        warmup: Steps over which the rate rises from zero.
        schedule: ``cosine`` to zero over all steps, or ``constant`` (a run that never ends: branch off a
            cooldown).
        cooldown: Last steps over which a constant rate falls linearly to zero.
        average: Decay of the moving average of the weights, which is what is judged and exported.
        clip: Largest norm of the gradient.
        frozen_stages: The stem and so many of the trunk's seven stages stay as they are, weights and
            statistics. They see the largest maps and so cost most, and change least: with 2 of 7 frozen a
            step on a CPU takes two thirds of the time.
        head_faces: So many faces are looked at first, to fit new heads to a network that has learned before
            (training/head_start.py); 0 starts them at random.
    """

    name: str
    steps: int
    batch: BatchRecipe = field(default_factory=BatchRecipe)
    identity: IdentityObjective | None = None
    metric: MetricObjective | None = None
    distillation: Distillation | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 300
    schedule: str = "cosine"
    cooldown: int = 0
    average: float = 0.9995
    clip: float = 5.0
    frozen_stages: int = 0
    head_faces: int = 0

    def __post_init__(self) -> None:
        if self.head_faces < 0:
            raise ConfigurationError(f"{self.name}.head_faces: expected at least 0, got {self.head_faces}")
        if not 0 <= self.frozen_stages <= 7:
            raise ConfigurationError(f"{self.name}.frozen_stages: expected 0 to 7, got {self.frozen_stages}")
        if self.steps < 1:
            raise ConfigurationError(f"{self.name}.steps: expected at least 1, got {self.steps}")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigurationError(
                f"{self.name}.schedule: expected 'cosine' or 'constant', got {self.schedule!r}"
            )
        if self.identity is None and self.metric is None and self.distillation is None:
            raise ConfigurationError(
                f"{self.name}: expected identity, metric or distillation, got none of them"
            )
        if self.metric is not None and self.batch.identities < 2:
            raise ConfigurationError(f"{self.name}: a metric loss needs batch.identities of at least 2")


@dataclass(frozen=True, slots=True)
class EmbedderRecipe:
    """How the embedder is trained from start to end.

    Attributes:
        kind: ``embedder``.
        name: What the weights will be called.
        stages: One after the other, each starting from the weights of the one before.
        data: Which faces.
        augmentation: How they are changed.
        start: Weights to start from: a ``.safetensors`` of the network, a checkpoint, ``imagenet``, or None.
        seed: Of everything random.
        workers: Processes that decode and augment; 0 does it in the training process.
        validate_every: Steps between two validations.
        save_every_s: Seconds between two checkpoints: what a kill can lose.
        precision: ``32-true``, or ``bf16-mixed``: weights and their updates in float32, most of the
            arithmetic in bfloat16, a quarter faster on CPUs with AMX.
        compiled: Compile the trunk with TorchInductor first. Needs a C++ compiler and some minutes, the first
            time; after that a step is a quarter faster on a CPU.
    """

    kind: str
    name: str
    stages: tuple[StageRecipe, ...]
    data: DataRecipe = field(default_factory=DataRecipe)
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: str | None = None
    seed: int = 0
    workers: int = 0
    validate_every: int = 1000
    save_every_s: float = 60.0
    precision: str = "32-true"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(
                f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"stages: expected one or more with different names, got {names}")

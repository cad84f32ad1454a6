"""Train the embedder through its stages, resuming where it stood."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.evaluation.embedding_plots import plot_curves
from face_recognition_node.evaluation.face_archive import (
    IdentitySplit,
    LabelArray,
    read_teacher,
    split_identities,
)
from face_recognition_node.networks.weight_files import read_weights
from face_recognition_node.training.augmentation import NO_AUGMENTATION
from face_recognition_node.training.callbacks import WEIGHTS, AveragedWeights, ImageProgress, ValidationCurve
from face_recognition_node.training.embedder_module import EmbedderStage
from face_recognition_node.training.face_data import (
    AugmentedFaces,
    BatchStream,
    FaceSet,
    class_numbers,
    open_faces,
)
from face_recognition_node.training.head_start import choose_faces, fit_heads
from face_recognition_node.training.stage_record import CHECKPOINT, check_record
from face_recognition_node.training.stages import EmbedderRecipe, StageRecipe
from face_recognition_node.training.start_weights import load_start

log = logging.getLogger(__name__)
FAST_STEPS, FAST_FACES = 12, 128
VALIDATION_FACES = 600
CURVES = {
    "loss": ("train/loss", "train/identity", "train/metric", "train/distillation"),
    "true accept rate, validation people": tuple(
        f"validation/tar_at_far_{rate}_{size}" for size in ("112px", "24px") for rate in ("0.01", "0.001")
    ),
}
"""What each stage's ``curves.png`` shows."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says beside the recipe.

    Attributes:
        out: Folder for logs, checkpoints and weights.
        fast: A run of two minutes that proves that everything works.
        threads: CPU threads of this process; 0 leaves torch's choice.
        accelerator: ``auto``, ``cpu``, ``gpu``.
        devices: Processes on this node.
        nodes: Nodes.
    """

    out: Path
    fast: bool = False
    threads: int = 0
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.threads < 0 or self.devices < 1 or self.nodes < 1:
            raise ConfigurationError(
                "expected threads of at least 0, devices and nodes of at least 1, got "
                f"{self.threads}, {self.devices} and {self.nodes}"
            )
        if self.out.exists() and not self.out.is_dir():
            raise ConfigurationError(f"{self.out}: expected a folder to write the run to, got a file")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The faces with everything derived from them.

    Attributes:
        faces: The crops.
        split: Who is held out.
        classes: (N,) class numbers, -1 none.
        n_classes: How many.
        maps: Teacher's feature maps, or None.
    """

    faces: FaceSet
    split: IdentitySplit
    classes: LabelArray
    n_classes: int
    maps: Any | None


def open_training_data(recipe: EmbedderRecipe) -> TrainingData:
    """Open the recipe's faces and split them."""
    data = recipe.data
    faces = open_faces(data.path, with_teacher=data.teacher is None)
    if data.teacher is not None:
        teacher = read_teacher(data.teacher, len(faces.labels))
        if teacher is None:
            raise SourceError(
                f"{data.teacher}: no such file; data.teacher: null takes the one beside the faces"
            )
        faces = dataclasses.replace(faces, teacher=teacher)
    split = split_identities(faces.labels, faces.teacher)
    if not data.keep_held_out:
        everything = np.arange(len(faces.labels), dtype=np.int64)
        split = dataclasses.replace(split, training=everything, n_lookalikes=0)
    classes, n_classes = class_numbers(faces.labels, split.training, data.minimum_images)
    if data.labelled_only:
        split = dataclasses.replace(split, training=split.training[classes[split.training] >= 0])
    maps = None
    if data.teacher_maps is not None:
        if not data.teacher_maps.is_file():
            raise SourceError(
                f"{data.teacher_maps}: no such file; data.teacher_maps: null trains without maps"
            )
        maps = np.load(data.teacher_maps, mmap_mode="r")
        if len(maps) != len(faces.labels):
            raise SourceError(f"{data.teacher_maps}: expected {len(faces.labels)} rows, got {len(maps)}")
    return TrainingData(faces, split, classes, n_classes, maps)


def train_embedder(recipe: EmbedderRecipe, options: RunOptions) -> Path:
    """Run every stage and return the weights file of the last one.

    A stage that is done is skipped, one that was cut off goes on from its last checkpoint.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    # a run that goes on finds its own files there
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    lightning.seed_everything(recipe.seed, verbose=False)
    data = open_training_data(recipe)
    log.info("%s; %d classes", data.split, data.n_classes)
    start, weights = recipe.start, options.out / WEIGHTS
    for stage in recipe.stages:
        weights = _run_stage(recipe, _shortened(stage) if options.fast else stage, data, options, start)
        start = str(weights)
    return weights


def _shortened(stage: StageRecipe) -> StageRecipe:
    return dataclasses.replace(
        stage,
        steps=min(stage.steps, FAST_STEPS),
        warmup=min(stage.warmup, 5),
        cooldown=0,
        head_faces=min(stage.head_faces, FAST_FACES),
    )


def _run_stage(
    recipe: EmbedderRecipe, stage: StageRecipe, data: TrainingData, options: RunOptions, start: str | None
) -> Path:
    folder = options.out / stage.name
    last = folder / CHECKPOINT
    check_record(folder, stage, options.fast, start)
    if last.is_file() and _steps_done(last) >= stage.steps:
        return folder / WEIGHTS
    module = make_stage(stage, data)
    if start is not None and not last.is_file():
        log.info("%s: %s", stage.name, load_start(module, start))
        if stage.head_faces and not start.endswith((".ckpt", ".pt")):  # those bring heads
            plain = AugmentedFaces(data.faces, data.classes, NO_AUGMENTATION, data.maps)
            chosen = choose_faces(data.split.training, data.classes, stage.head_faces, recipe.seed)
            log.info("%s: %s", stage.name, fit_heads(module, plain, chosen))
    if recipe.compiled:
        module.compile_features()
    averaged = AveragedWeights(stage.average, folder)
    world = options.devices * options.nodes
    callbacks: list[lightning.Callback] = [
        averaged,
        ModelCheckpoint(
            folder,
            CHECKPOINT.removesuffix(".ckpt"),
            save_top_k=1,
            enable_version_counter=False,
            train_time_interval=timedelta(seconds=recipe.save_every_s),
            save_on_train_epoch_end=False,
        ),
        ImageProgress(stage.batch.size * world, stage.steps, stage.name),
    ]
    if has_both_kinds_of_pairs(data.faces.labels[data.split.validation]):
        chosen = data.split.validation[: 64 if options.fast else VALIDATION_FACES]
        every = max(1, stage.steps // 2) if options.fast else recipe.validate_every
        callbacks.insert(1, ValidationCurve(data.faces, chosen, averaged, every))
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if world > 1 else "auto",
        use_distributed_sampler=False,
        max_steps=stage.steps,
        max_epochs=-1,
        gradient_clip_val=stage.clip,
        precision=recipe.precision,  # type: ignore[arg-type]  # one of PRECISIONS
        log_every_n_steps=10 if options.fast else 50,
        callbacks=callbacks,
        logger=[CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    stream = BatchStream(
        data.split.training, data.classes, stage.batch, recipe.seed, trainer.global_rank, trainer.world_size
    )
    if last.is_file():
        stream.first = _steps_done(last)
    dataset = AugmentedFaces(data.faces, data.classes, recipe.augmentation, data.maps)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=stream,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
    )
    trainer.fit(module, loader, ckpt_path=str(last) if last.is_file() else None)
    trainer.save_checkpoint(folder / "done.ckpt")
    if trainer.is_global_zero:
        (folder / "done.ckpt").replace(last)
        plot_curves(folder, CURVES, folder / "curves.png")
    trainer.strategy.barrier()
    return folder / WEIGHTS


def has_both_kinds_of_pairs(labels: LabelArray) -> bool:
    """Return whether there are two faces of one person and faces of two people."""
    _, counts = np.unique(labels, return_counts=True)
    return len(counts) > 1 and bool((counts > 1).any())


def make_stage(stage: StageRecipe, data: TrainingData) -> EmbedderStage:
    """Return the stage's module with heads that fit the data."""
    teacher = data.faces.teacher
    if stage.distillation is not None and teacher is None:
        raise ConfigurationError(
            f"{stage.name}: distillation needs train_teacher.npy beside the faces; leave it out without"
        )
    if stage.distillation is not None and stage.distillation.feature_map > 0 and data.maps is None:
        raise ConfigurationError(f"{stage.name}: distillation.feature_map needs data.teacher_maps")
    channels = 0 if data.maps is None else data.maps.shape[2]
    return EmbedderStage(stage, data.n_classes, 0 if teacher is None else teacher.shape[1], channels)


def _steps_done(checkpoint: Path) -> int:
    return int(read_weights(checkpoint)["global_step"])

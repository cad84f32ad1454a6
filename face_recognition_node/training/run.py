"""Train the embedder through its stages, resuming where it stood."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import lightning
import msgspec
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.files import file_sha256, user_path, write_json
from face_recognition_node.evaluation.degradation import reduce_face
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.plots import plot_curves
from face_recognition_node.networks.loading import read_weights, write_weights
from face_recognition_node.training.augmentation import NO_AUGMENTATION
from face_recognition_node.training.data import AugmentedFaces, BatchStream, FaceSet, TrainingData
from face_recognition_node.training.recipe import EmbedderRecipe, RunOptions, StageRecipe, plain_values
from face_recognition_node.training.stage import VALIDATION_SIZES, EmbedderStage
from face_recognition_node.training.start import IMAGENET, choose_faces, fit_heads, load_start

log = logging.getLogger(__name__)
CHECKPOINT, RECORD, WEIGHTS = "last.ckpt", "stage.json", "weights.safetensors"
FAST_STEPS, FAST_FACES = 12, 128
VALIDATION_FACES = 600
# what each stage's `curves.png` shows
CURVES = {
    "loss": ("train/loss", "train/identity", "train/metric", "train/distillation"),
    "true accept rate, validation people": tuple(
        f"validation/tar_at_far_{rate}_{size}px" for size in VALIDATION_SIZES for rate in ("0.01", "0.001")
    ),
}
# how long a stage goes on may be changed while it runs
_MAY_CHANGE = ("steps", "warmup", "cooldown", "schedule")


class AveragedWeights(WeightAveraging):
    """An exponential moving average of the stage; a checkpoint's ``state_dict`` is the average.

    ``decay`` in [0, 1) is the share kept at each step; early in a run it grows with the steps, so that the
    random start is soon forgotten.
    """

    def __init__(self, decay: float) -> None:
        def move(average: Tensor, weight: Tensor, updates: Tensor | int) -> Tensor:
            keep = min(decay, (1 + int(updates)) / (10 + int(updates)))
            return average + (1 - keep) * (weight - average)

        super().__init__(avg_fn=move)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the stage its own weights, so that its last checkpoint can be gone on from."""

    def save(self, path: Path, start_share: float = 0.0, start: Mapping[str, Tensor] | None = None) -> None:
        """Write the averaged network or its mean with ``start``; names as in ``networks/efficientnet.py``."""
        if self._average_model is None:
            raise RuntimeError("expected a stage that was trained")
        prefix = "module.network."
        state = self._average_model.state_dict()
        network = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
        written = {name: value for name, value in network.items() if value.is_floating_point()}
        if start_share > 0 and start is not None:
            written = {
                name: value.lerp(start[name].to(value), start_share) for name, value in written.items()
            }
        write_weights(written, path)


class ValidationFaces(Dataset[tuple[Tensor, Tensor]]):
    """Faces of the validation people: (2, 3, 112, 112) RGB uint8, near and far, with the identity."""

    def __init__(self, faces: FaceSet, indices: LabelArray) -> None:
        self.faces, self.indices = faces, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        index = int(self.indices[place])
        crop = self.faces.crop(index)
        views = np.stack([reduce_face(crop, size) for size in VALIDATION_SIZES])
        images = np.ascontiguousarray(views[..., ::-1].transpose(0, 3, 1, 2))
        return torch.from_numpy(images), torch.tensor(self.faces.labels[index])


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
    data = TrainingData.open(recipe.data)
    log.info("%s; %d classes", data.split, data.n_classes)
    start, weights = recipe.start, options.out / WEIGHTS
    if start not in (None, IMAGENET):
        start = str(user_path(start, "file", name="start", error=ConfigurationError))
    for stage in recipe.stages:
        weights = _run_stage(recipe, _shortened(stage) if options.fast else stage, data, options, start)
        start = str(weights)
    return weights


def _shortened(stage: StageRecipe) -> StageRecipe:
    return msgspec.structs.replace(
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
    steps_done = int(read_weights(last)["global_step"]) if last.is_file() else 0
    if steps_done >= stage.steps:
        return folder / WEIGHTS
    if stage.distillation is not None and stage.distillation.discriminants:
        data = data.with_discriminants(stage.distillation.discriminants)
    module = make_stage(stage, data)
    kept: Mapping[str, Tensor] | None = None
    if stage.start_share > 0:
        if start is None or not start.endswith(".safetensors"):
            raise ConfigurationError(
                f"{stage.name}: start_share expects weights (.safetensors) to start from"
            )
        kept = read_weights(Path(start))
    if start is not None and not steps_done:
        log.info("%s: %s", stage.name, load_start(module, start))
        if stage.head_faces and not start.endswith(".ckpt"):  # a checkpoint brings heads
            plain = AugmentedFaces(data.faces, data.classes, NO_AUGMENTATION)
            chosen = choose_faces(data.split.training, data.classes, stage.head_faces, recipe.seed)
            log.info("%s: %s", stage.name, fit_heads(module, plain, chosen))
    if recipe.compiled:
        module.compile_features()
    validation = None
    if has_both_kinds_of_pairs(data.faces.labels[data.split.validation]):
        chosen = data.split.validation[: 64 if options.fast else VALIDATION_FACES]
        validation = DataLoader(ValidationFaces(data.faces, chosen), batch_size=32)
    averaged = AveragedWeights(stage.average)
    saving = ModelCheckpoint(
        folder,
        CHECKPOINT.removesuffix(".ckpt"),
        save_top_k=1,
        enable_version_counter=False,
        train_time_interval=timedelta(seconds=recipe.save_every_s),
        save_on_train_epoch_end=False,
    )
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if options.devices * options.nodes > 1 else "auto",
        use_distributed_sampler=False,
        max_steps=stage.steps,
        max_epochs=-1,
        gradient_clip_val=stage.clip,
        precision=recipe.precision,
        log_every_n_steps=10 if options.fast else 50,
        check_val_every_n_epoch=None,
        val_check_interval=max(1, stage.steps // 2) if options.fast else recipe.validate_every,
        num_sanity_val_steps=0,
        callbacks=[averaged, saving],
        logger=[CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")],
        enable_progress_bar=sys.stdout.isatty(),
        enable_model_summary=False,
    )
    stream = BatchStream(
        data.split.training, data.classes, stage.batch, recipe.seed, trainer.global_rank, trainer.world_size
    )
    stream.first = steps_done
    loader: DataLoader[Any] = DataLoader(
        AugmentedFaces(data.faces, data.classes, recipe.augmentation),
        batch_sampler=stream,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
    )
    trainer.fit(module, loader, validation, ckpt_path=str(last) if steps_done else None)
    trainer.save_checkpoint(last)
    if trainer.is_global_zero:
        averaged.save(folder / WEIGHTS, stage.start_share, kept)
        plot_curves(folder, CURVES, folder / "curves.png")
    trainer.strategy.barrier()
    return folder / WEIGHTS


def check_record(folder: Path, stage: StageRecipe, is_fast: bool, start: str | None) -> None:
    """Write what the stage in ``folder`` is made from, or compare with what its checkpoint was made from.

    Raises:
        ConfigurationError: If the checkpoint there belongs to another run.
    """
    file = None if start is None else Path(start)
    record = {"fast": is_fast, "start": file_sha256(file) if file is not None and file.is_file() else start}
    record |= {name: value for name, value in plain_values(stage).items() if name not in _MAY_CHANGE}
    if (folder / RECORD).is_file() and (folder / CHECKPOINT).is_file():
        stored = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        different = [name for name, value in record.items() if stored.get(name) != value]
        if different:
            raise ConfigurationError(
                f"{folder}: its checkpoint was made with another {', '.join(different)}; name another --out, "
                "or remove the folder to train this stage anew"
            )
    elif int(os.environ.get("LOCAL_RANK", "0")) == 0:
        write_json(folder / RECORD, record)


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
    return EmbedderStage(stage, data.n_classes, 0 if teacher is None else teacher.shape[1])

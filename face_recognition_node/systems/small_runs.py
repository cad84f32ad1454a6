"""What the small systems share: a Lightning run with logs, resuming, and a report on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.networks.weight_files import read_weights
from face_recognition_node.training.callbacks import ImageProgress
from face_recognition_node.training.embedder_training import RunOptions

LAST = "last.ckpt"


def fit_epochs(
    module: lightning.LightningModule,
    training: DataLoader[Any],
    validation: DataLoader[Any] | None,
    epochs: int,
    options: RunOptions,
    seed: int,
    is_kept: bool = True,
    most_steps: int = -1,
) -> None:
    """Train for a number of epochs, or go on from the last finished one.

    Args:
        module: What to train; ends with the weights of the last epoch.
        training: Its batches.
        validation: Batches that only measure.
        epochs: In all.
        options: Folder, threads, devices.
        seed: Of everything random.
        is_kept: Write logs and checkpoints and show a bar; False for runs of seconds, of which there are
            many.
        most_steps: End by steps, not by epochs, after so many; -1: by epochs.

    Raises:
        ConfigurationError: If several processes are asked for: these runs take minutes at most, and a batch
            has to hold what belongs together.
    """
    if options.devices * options.nodes > 1:
        raise ConfigurationError(
            f"expected one device and one node for this kind of recipe, got {options.devices} and "
            f"{options.nodes}; the embedder's recipes can use several"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    seed_run(seed)
    last = options.out / LAST
    steps = epochs * len(training) if most_steps < 0 else most_steps
    saving = ModelCheckpoint(
        options.out, LAST.removesuffix(".ckpt"), save_top_k=1, enable_version_counter=False
    )
    loggers = [CSVLogger(options.out, name="csv"), TensorBoardLogger(options.out, name="tensorboard")]
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        max_epochs=epochs if most_steps < 0 else -1,
        max_steps=most_steps,
        check_val_every_n_epoch=max(1, epochs // 50),
        log_every_n_steps=max(1, min(10, len(training))),
        callbacks=[saving, ImageProgress(1, steps, "training", " steps")] if is_kept else [],
        logger=loggers if is_kept else False,
        enable_checkpointing=is_kept,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    resumed = str(last) if is_kept and last.is_file() else None
    trainer.fit(module, training, validation, ckpt_path=resumed)
    if is_kept:  # an epoch that ended early leaves no checkpoint of its end
        whole = last.with_name("done.ckpt")
        trainer.save_checkpoint(whole)
        os.replace(whole, last)


def seed_run(seed: int) -> None:
    """Seed everything random; call it before the network is made, whose first weights are random too."""
    lightning.seed_everything(seed, verbose=False)


def finished_epochs(options: RunOptions) -> int:
    """Return how many epochs a run that was cut off had finished."""
    last = options.out / LAST
    return int(read_weights(last)["epoch"]) + 1 if last.is_file() else 0


def mean_or_nan(values: Sequence[float]) -> float:
    """Return the mean, nan of nothing."""
    return float(sum(values) / len(values)) if len(values) else float("nan")

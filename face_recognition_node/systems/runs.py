"""What the small systems share: a Lightning run with logs that goes on where it was cut off."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.training.recipe import RunOptions
from face_recognition_node.vision.faces import FloatArray

LAST = "last.ckpt"


def set_up(options: RunOptions) -> None:
    """Set the threads; ConfigurationError for several processes: a batch holds what belongs together."""
    if options.devices * options.nodes > 1:
        raise ConfigurationError(
            f"expected one device and one node for this kind of recipe, got {options.devices} and "
            f"{options.nodes}; the embedder's recipes can use several"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)


def fit(
    module: lightning.LightningModule,
    training: DataLoader[Any],
    validation: DataLoader[Any] | None,
    steps: int,
    options: RunOptions,
) -> None:
    """Train until ``steps`` are done, the last finished epoch of an earlier call included."""
    last = options.out / LAST
    per_epoch = len(training)
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        max_epochs=-1,
        max_steps=steps,
        check_val_every_n_epoch=max(1, steps // per_epoch // 50),
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, per_epoch),
        callbacks=[ModelCheckpoint(options.out, "last", save_top_k=1, enable_version_counter=False)],
        logger=[CSVLogger(options.out, name="csv"), TensorBoardLogger(options.out, name="tensorboard")],
        enable_progress_bar=sys.stdout.isatty(),
        enable_model_summary=False,
    )
    trainer.fit(module, training, validation, ckpt_path=str(last) if last.is_file() else None)
    trainer.save_checkpoint(last)  # an epoch that ended early leaves no checkpoint of its end


def answers(network: nn.Module, inputs: FloatArray) -> FloatArray:
    """Return what a network makes of (N, …) inputs, 64 at once; it is left in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        parts = [network(part) for part in torch.split(torch.from_numpy(inputs), 64)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def equal_error(owners: FloatArray, strangers: FloatArray) -> tuple[float, float]:
    """Return the score at which as many owners lie below as strangers do not, and how many."""
    limits = np.sort(np.concatenate([owners, strangers]))
    refused = np.array([(owners < limit).mean() for limit in limits])
    accepted = np.array([(strangers >= limit).mean() for limit in limits])
    at = int(np.abs(refused - accepted).argmin())
    return float(limits[at]), float((refused[at] + accepted[at]) / 2)

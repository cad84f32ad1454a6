"""What happens around the steps: averaged weights, validation curves, progress with images a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from tqdm import tqdm

from face_recognition_node.evaluation.degradation import reduce_face
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.verification import evaluate_all_pairs
from face_recognition_node.networks.weight_files import write_weights
from face_recognition_node.training.embedder_module import EmbedderStage, unit_embeddings
from face_recognition_node.training.face_data import FaceSet

WEIGHTS = "weights.safetensors"


class AveragedWeights(lightning.Callback):
    """Keeps an exponential moving average of the network's weights, saved beside every checkpoint.

    Early in a run the decay grows with the steps, so that the random start is soon forgotten.

    Args:
        decay: Share of the average kept at each step, in [0, 1).
        folder: Where ``weights.safetensors`` is written, whole or not at all.
    """

    def __init__(self, decay: float, folder: Path) -> None:
        self.decay, self.folder = decay, folder
        self.average: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start from the weights as they are, unless a checkpoint brought an average."""
        if not self.average:
            self.average = {
                name: value.detach().clone() for name, value in _network(pl_module).state_dict().items()
            }
        device = pl_module.device
        self.average = {name: value.to(device) for name, value in self.average.items()}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the average a little towards the weights."""
        step = trainer.global_step
        keep = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in _network(pl_module).state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the averaged weights as the file that export reads."""
        if trainer.is_global_zero:
            write_weights(self.average, self.folder / WEIGHTS)

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint keeps."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average out of a checkpoint."""
        self.average = dict(state_dict["average"])

    def averaged_network(self, module: EmbedderStage) -> nn.Module:
        """Return a copy of the network that carries the averaged weights."""
        network = type(module.network)().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.load_state_dict(self.average)
        averaged: nn.Module = network.to(module.device).eval()
        return averaged


def _network(module: lightning.LightningModule) -> nn.Module:
    if not isinstance(module, EmbedderStage):
        raise TypeError(f"expected an EmbedderStage, got {type(module).__name__}")
    return module.network


class ValidationCurve(lightning.Callback):
    """Every so many steps: how well the averaged weights tell the validation people apart, near and far.

    Args:
        faces: Where the crops come from.
        indices: Faces of the validation people.
        averaged: Whose weights are judged.
        every: Steps between two validations.
        far_px: Side that the far faces are reduced to.
    """

    def __init__(
        self, faces: FaceSet, indices: LabelArray, averaged: AveragedWeights, every: int, far_px: int = 24
    ) -> None:
        self.faces, self.indices, self.averaged, self.every, self.far_px = (
            faces,
            indices,
            averaged,
            every,
            far_px,
        )

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Validate on the first process when it is time; the others wait at their next gradient."""
        if trainer.is_global_zero and trainer.global_step % self.every == 0 and len(self.indices):
            figures = self.measure(self.averaged.averaged_network(_stage(pl_module)), pl_module.device)
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=trainer.global_step)

    def measure(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return true accept rates at false accept rates 1e-2 and 1e-3, for crops as they are and reduced."""
        crops = [self.faces.crop(int(index)) for index in self.indices]
        people = self.faces.labels[self.indices].astype(str).tolist()
        figures = {}
        for name, views in (
            ("112px", crops),
            (f"{self.far_px}px", [reduce_face(c, self.far_px) for c in crops]),
        ):
            images = torch.stack(
                [torch.from_numpy(view[:, :, ::-1].transpose(2, 0, 1).copy()) for view in views]
            )
            embeddings = unit_embeddings(network, images.to(device)).cpu().numpy()
            for point in evaluate_all_pairs(embeddings, people, rates=(1e-2, 1e-3)).accept:
                figures[f"validation/tar_at_far_{point.far:g}_{name}"] = point.tar
        return figures


def _stage(module: lightning.LightningModule) -> EmbedderStage:
    if not isinstance(module, EmbedderStage):
        raise TypeError(f"expected an EmbedderStage, got {type(module).__name__}")
    return module


class ImageProgress(lightning.Callback):
    """A progress bar in images: how many a second over all processes, and the time left.

    Args:
        images_per_step: Images of one step over all processes.
        steps: Steps of the whole run.
        name: What stands before the bar.
        unit: What is counted; small runs count steps.
    """

    def __init__(self, images_per_step: int, steps: int, name: str, unit: str = " images") -> None:
        self.images_per_step, self.steps, self.name, self.unit = images_per_step, steps, name, unit
        self.bar: Any = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar from where the run stands."""
        if trainer.is_global_zero:
            self.bar = tqdm(
                total=self.steps * self.images_per_step, initial=trainer.global_step * self.images_per_step,
                unit=self.unit, unit_scale=True, desc=self.name, dynamic_ncols=True,
            )  # fmt: skip

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance, and show the loss."""
        if self.bar is not None:
            loss = trainer.callback_metrics.get("train/loss")
            if loss is not None:
                self.bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
            self.bar.update(self.images_per_step)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

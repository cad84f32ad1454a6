"""One stage of the embedder's training as a Lightning module."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from face_recognition_node.evaluation.verification import evaluate_all_pairs
from face_recognition_node.networks.efficientnet import (
    B0_STAGES,
    EMBEDDING_SIZE,
    FEATURE_CHANNELS,
    EfficientNetEmbedder,
)
from face_recognition_node.training.losses import (
    FaceMemory,
    IdentityHead,
    build_metric_loss,
    build_miner,
    look_alike_loss,
    relation_loss,
)
from face_recognition_node.training.recipe import StageRecipe

# sides in pixels of the faces that curves are drawn for: as they are, and as far ones
VALIDATION_SIZES = (112, 24)


class EmbedderStage(lightning.LightningModule):
    """The network with whatever the stage's losses need beside it; without a teacher its size is 0."""

    def __init__(self, stage: StageRecipe, n_classes: int, teacher_size: int = 0) -> None:
        super().__init__()
        self.stage = stage
        self.network = EfficientNetEmbedder()
        self.identity: IdentityHead | None = None
        self.project: nn.Linear | None = None
        self.memory: FaceMemory | None = None
        if (identity := stage.identity) is not None:
            inputs = EMBEDDING_SIZE if identity.vectors == "embedding" else FEATURE_CHANNELS
            self.identity = IdentityHead(
                identity.kind, inputs, n_classes, identity.margin, identity.scale, identity.smoothing
            )
        if (metric := stage.metric) is not None:
            self.metric_loss = build_metric_loss(metric.kind, metric.margin)
            self.miner = build_miner(metric.miner, metric.kind, metric.margin)
        if stage.distillation is not None and stage.distillation.embedding > 0:
            self.project = nn.Linear(EMBEDDING_SIZE, teacher_size, bias=False)
        if stage.distillation is not None and stage.distillation.look_alike > 0:
            self.memory = FaceMemory(stage.distillation.memory, EMBEDDING_SIZE, teacher_size)
        if (
            stage.metric is None
            and stage.distillation is None
            and identity
            and identity.vectors == "features"
        ):
            # nothing reaches the embedding layer in this stage; the next one trains it
            self.network.embed.requires_grad_(False)
        for layer in self.network.early_layers(stage.frozen_stages):
            layer.requires_grad_(False)
        self.train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a keyword torch documents
        self._features: Callable[[Tensor], Tensor] = self.network.features
        self._validated: list[tuple[Tensor, Tensor]] = []

    def compile_features(self) -> None:
        """Compile what a training step asks of the trunk; judging and export use the plain network."""
        self._features = torch.compile(self.network.features)

    def train(self, mode: bool = True) -> EmbedderStage:
        """Switch to training or evaluation; the statistics of frozen layers stay as they are."""
        super().train(mode)
        for layer in self.network.early_layers(self.stage.frozen_stages):
            layer.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 64) unit vectors of (B, 3, 112, 112) RGB uint8 faces."""
        return functional.normalize(self.network(normalise_images(images)), dim=1)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Return the weighted sum of the stage's losses; each is logged."""
        maps = self._features(normalise_images(batch["image"]))
        with torch.autocast(self.device.type, enabled=False):  # bfloat16 is too coarse for distances
            maps = maps.float()
            losses = self._losses(batch, self.network.gdc(maps).flatten(1))
        total = torch.stack(list(losses.values())).sum()
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach())
        return total

    def _losses(self, batch: dict[str, Tensor], features: Tensor) -> dict[str, Tensor]:
        stage, labels = self.stage, batch["label"]
        known = labels >= 0
        losses: dict[str, Tensor] = {}
        unit = functional.normalize(self.network.embed(features), dim=1)
        if stage.identity is not None and self.identity is not None:
            vectors = unit if stage.identity.vectors == "embedding" else features
            losses["identity"] = stage.identity.weight * self.identity(vectors[known], labels[known])
        if stage.metric is not None:
            chosen = self.miner(unit[known], labels[known]) if self.miner is not None else None
            losses["metric"] = stage.metric.weight * self.metric_loss(unit[known], labels[known], chosen)
        if (distillation := stage.distillation) is not None:
            teacher = batch["teacher"]
            if self.project is not None:
                cosine = functional.cosine_similarity(self.project(unit), teacher)
                losses["distillation"] = distillation.embedding * (1 - cosine).mean()
            if distillation.relation > 0:
                losses["relation"] = distillation.relation * relation_loss(unit, teacher)
            if self.memory is not None:
                losses["look_alike"] = distillation.look_alike * look_alike_loss(
                    unit,
                    teacher,
                    self.memory.faces(unit.device),
                    distillation.look_alike_from,
                    distillation.teacher_look_alike_from,
                )
                # every process remembers the faces of all, so that one checkpoint holds for all
                seen = [
                    cast(Tensor, self.all_gather(part)).flatten(0, -2) for part in (unit.detach(), teacher)
                ]
                self.memory.add(seen[0], seen[1])
        return losses

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Embed (B, V, 3, 112, 112) views, near and far, of faces with (B,) identities."""
        views, people = batch
        with torch.autocast(self.device.type, enabled=False):  # judged as the robot will compute
            embeddings = self(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        self._validated.append((embeddings, people))

    def on_validation_epoch_end(self) -> None:
        """Log how well people are told apart by the views of each size."""
        embeddings, people = (torch.cat(parts).cpu().numpy() for parts in zip(*self._validated, strict=True))
        self._validated.clear()
        for number, size in enumerate(VALIDATION_SIZES):
            for point in evaluate_all_pairs(
                embeddings[:, number], people.astype(str).tolist(), rates=(1e-2, 1e-3)
            ).accept:
                self.log(f"validation/tar_at_far_{point.far:g}_{size}px", point.tar)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the faces remembered."""
        if self.memory is not None:
            checkpoint["face_memory"] = self.memory.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the faces remembered."""
        if self.memory is not None and "face_memory" in checkpoint:
            self.memory.load_state_dict(checkpoint["face_memory"])

    def configure_optimizers(self) -> Any:
        """AdamW; biases, norms and class centres do not decay; the rate follows the recipe's schedule."""
        centres = self.identity.centres() if self.identity is not None else None
        members: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
        for name, weight in self.named_parameters():
            if weight.requires_grad:
                members[_depth(name), weight.dim() > 1 and weight is not centres].append(weight)
        stage = self.stage
        groups = [
            {
                "params": weights,
                "lr": stage.learning_rate * stage.rate_decay**depth,
                "weight_decay": stage.weight_decay if is_decayed else 0.0,
            }
            for (depth, is_decayed), weights in members.items()
        ]
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(stage, step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _depth(name: str) -> int:
    """Return how many stages of the trunk lie between a parameter and the embedding."""
    part, _, rest = name.removeprefix("network.").partition(".")
    if part in ("conv_stem", "bn1"):
        return len(B0_STAGES) + 1
    return len(B0_STAGES) - int(rest.partition(".")[0]) if part == "blocks" else 0


def normalise_images(images: Tensor) -> Tensor:
    """Return (B, 3, S, S) float in [-1, 1], channels last, of RGB uint8."""
    return ((images.float() - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


def rate_factor(stage: StageRecipe, step: int) -> float:
    """Return the factor on the learning rate at ``step``: warm-up, then cosine, or constant and cooldown."""
    factor = min(1.0, (step + 1) / max(1, stage.warmup))
    if stage.schedule == "cosine":
        return factor * 0.5 * (1 + math.cos(math.pi * min(1.0, step / stage.steps)))
    if stage.cooldown:
        factor = min(factor, (stage.steps - step) / stage.cooldown)
    return max(0.0, factor)

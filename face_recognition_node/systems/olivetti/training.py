"""The Olivetti siamese network: distance → sigmoid → cross-entropy; then one picture against everybody."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from face_recognition_node.common.files import write_json
from face_recognition_node.networks.loading import write_checkpoint
from face_recognition_node.systems.olivetti.data import grey_faces, make_pairs, read_olivetti
from face_recognition_node.systems.olivetti.judgement import (
    OlivettiFaces,
    OlivettiReport,
    SamePerson,
    SiameseScorer,
    judge_olivetti,
)
from face_recognition_node.systems.runs import fit, set_up
from face_recognition_node.systems.siamese import SiameseEncoder
from face_recognition_node.training.recipe import RunOptions, Section, plain_values
from face_recognition_node.vision.faces import FloatArray


class OlivettiData(Section, frozen=True):
    """Where the pictures are.

    Attributes:
        path: Zip of the AT&T faces.
        newcomer: Pictures, gif or video of the 41st person, of whom one picture is enrolled and another
            shown.
    """

    path: Path
    newcomer: str | None = None


class OlivettiRecipe(Section, frozen=True):
    """The article's settings.

    Attributes:
        kind: ``olivetti_siamese``.
        data: Where the pictures are.
        epochs: Times the pairs are seen.
        batch: Pairs in a batch.
        learning_rate: Of Adam.
        dropout: After each block.
        held_out_people: People kept out of training; with 0, as in the article, validation is on new pairs of
            the people trained on.
        threshold: Score from which a pair counts as the same person.
        seed: Of the pairs and the weights.
    """

    kind: str
    data: OlivettiData
    epochs: int = 100
    batch: int = 64
    learning_rate: float = 1e-3
    dropout: float = 0.3
    held_out_people: int = 0
    threshold: float = 0.5
    seed: int = 0


class PairTraining(lightning.LightningModule):
    """Binary cross-entropy on the score of pairs."""

    def __init__(self, recipe: OlivettiRecipe, faces: Tensor) -> None:
        super().__init__()
        self.scorer = SiameseScorer(SiameseEncoder(dropout=recipe.dropout))
        self.rate = recipe.learning_rate
        self.register_buffer("faces", faces, persistent=False)  # goes to the device with the network

    def _step(self, batch: list[Tensor], name: str) -> Tensor:
        pairs, same = batch
        faces = self.get_buffer("faces")
        logits = self.scorer(faces[pairs[:, 0]], faces[pairs[:, 1]])
        loss = functional.binary_cross_entropy_with_logits(logits, same)
        accuracy = ((logits > 0) == (same > 0.5)).float().mean()
        self.log_dict({f"{name}/loss": loss, f"{name}/accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        """Return the loss of pairs (B, 2) and their truths (B,)."""
        return self._step(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        """Log loss and accuracy."""
        self._step(batch, "validation")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as in the article."""
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def train_olivetti(
    recipe: OlivettiRecipe,
    options: RunOptions,
    newcomer: FloatArray | None = None,
    robot: SamePerson | None = None,
) -> OlivettiReport:
    """Train, test, draw.

    Args:
        recipe: The settings.
        options: Where and how.
        newcomer: (M, 1, 64, 64) faces of the 41st person, the first one enrolled.
        robot: The robot's own judgement of pictures, for the same test.
    """
    set_up(options)
    pictures, labels = read_olivetti(recipe.data.path)
    held = labels >= labels.max() + 1 - recipe.held_out_people
    faces = OlivettiFaces(pictures, labels, held, grey_faces(pictures), newcomer)
    trained = np.flatnonzero(~held)
    pairs, same = make_pairs(labels[trained], recipe.seed)
    pairs = trained[pairs]
    checked = np.flatnonzero(held) if recipe.held_out_people else trained
    # pairs of the same people, if nobody is held out, but none of those that were trained on
    seen = () if recipe.held_out_people else pairs
    other_pairs, other_same = make_pairs(labels[checked], recipe.seed + 1, seen)
    lightning.seed_everything(recipe.seed, verbose=False)
    module = PairTraining(recipe, torch.from_numpy(faces.inputs))
    loaders = [
        DataLoader(TensorDataset(torch.from_numpy(p), torch.from_numpy(s)), recipe.batch, shuffle=shuffle)
        for p, s, shuffle in ((pairs, same, True), (checked[other_pairs], other_same, False))
    ]
    epochs = min(recipe.epochs, 2) if options.fast else recipe.epochs
    lightning.seed_everything(recipe.seed, verbose=False)
    fit(module, loaders[0], loaders[1], epochs * len(loaders[0]), options)
    scorer = module.scorer.eval()
    write_checkpoint(scorer.state_dict(), options.out / "siamese.pt")
    per_epoch = float(np.ceil(len(pairs) / recipe.batch))
    report = judge_olivetti(scorer, faces, recipe.threshold, recipe.seed + 2, options.out, per_epoch, robot)
    write_json(options.out / "report.json", {"recipe": plain_values(recipe), **asdict(report)})
    return report

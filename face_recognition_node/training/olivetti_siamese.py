"""The Olivetti siamese network: distance → sigmoid → cross-entropy; then one picture against everybody."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from face_recognition_node.core.faces import FloatArray
from face_recognition_node.evaluation import embedding_plots
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.networks.siamese import SiameseEncoder, SiameseScorer
from face_recognition_node.training.embedder_training import RunOptions
from face_recognition_node.training.olivetti_data import grey_faces, make_pairs, read_olivetti
from face_recognition_node.training.recipe import plain_values
from face_recognition_node.training.small_runs import fit_epochs, write_report


@dataclass(frozen=True, slots=True)
class OlivettiData:
    """Where the pictures are.

    Attributes:
        path: Zip of the AT&T faces.
        newcomer: Pictures, gif or video of the 41st person, of whom one picture is enrolled and another
            shown.
    """

    path: Path = Path("../shared/data/orl_faces.zip")
    newcomer: str | None = None


@dataclass(frozen=True, slots=True)
class OlivettiRecipe:
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
    data: OlivettiData = field(default_factory=OlivettiData)
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
        self.faces = faces

    def _step(self, batch: list[Tensor], name: str) -> Tensor:
        pairs, same = batch
        logits = self.scorer(self.faces[pairs[:, 0]], self.faces[pairs[:, 1]])
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


@dataclass(frozen=True, slots=True)
class OneShotResult:
    """One test picture against one picture of everybody, for many test pictures.

    Attributes:
        tests: Test pictures.
        people: People compared with.
        over_threshold: Mean number of people over the threshold, the right one included.
        right_over: Share of tests in which the right person is over it.
        right_first: Share of tests in which the right person scores highest.
    """

    tests: int
    people: int
    over_threshold: float
    right_over: float
    right_first: float

    def __str__(self) -> str:
        return (
            f"{self.tests} test pictures against {self.people} people: "
            f"{self.over_threshold:.1f} over the threshold, the right one among them "
            f"{100 * self.right_over:.1f} %, first {100 * self.right_first:.1f} %"
        )


@dataclass(frozen=True, slots=True)
class OlivettiReport:
    """What the run gave.

    Attributes:
        train_accuracy: Of the last epoch.
        validation_accuracy: On pairs not trained on.
        known: One-shot test with the 40 people's pictures.
        newcomer: With the 41st person as the test picture, or None.
        newcomer_scores: The shown picture's score with each of the 41, own one last.
        seconds: Time of training in this start.
    """

    train_accuracy: float
    validation_accuracy: float
    known: OneShotResult
    newcomer: OneShotResult | None
    newcomer_scores: tuple[float, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"pairs right: {100 * self.train_accuracy:.1f} % trained on, "
            f"{100 * self.validation_accuracy:.1f} % not",
            str(self.known),
        ]
        return "\n".join(
            lines if self.newcomer is None else [*lines, f"41st person, one picture: {self.newcomer}"]
        )


def one_shot(scores: NDArray[np.floating], truth: LabelArray, threshold: float) -> OneShotResult:
    """Judge (T, P) scores of test pictures with people, of which ``truth`` (T,) is the right one."""
    right = scores[np.arange(len(scores)), truth]
    over = scores >= threshold
    return OneShotResult(
        len(scores),
        scores.shape[1],
        float(over.sum(axis=1).mean()),
        float((right >= threshold).mean()),
        float((scores.argmax(axis=1) == truth).mean()),
    )


def draw_references(labels: LabelArray, seed: int) -> LabelArray:
    """Return (N, P) for each picture one random picture of every person, never itself."""
    random = np.random.default_rng(seed)
    people = np.unique(labels)
    drawn = np.empty((len(labels), len(people)), np.int64)
    for index in range(len(labels)):
        for place, person in enumerate(people):
            own = np.flatnonzero(labels == person)
            drawn[index, place] = random.choice(own[own != index])
    return drawn


def score_pairs(
    scorer: SiameseScorer, embeddings: Tensor, first: LabelArray, second: LabelArray
) -> FloatArray:
    """Return scores in [0, 1] of pairs of embedding numbers, any shape."""
    with torch.inference_mode():
        flat = scorer.logits(embeddings[first.ravel()], embeddings[second.ravel()])
        return np.asarray(torch.sigmoid(flat).numpy().reshape(first.shape), np.float32)


def train_olivetti(
    recipe: OlivettiRecipe, options: RunOptions, newcomer: FloatArray | None = None
) -> OlivettiReport:
    """Train, test, draw; ``newcomer`` are (M, 1, 64, 64) faces of the 41st person, the first one enrolled."""
    pictures, labels = read_olivetti(recipe.data.path)
    faces = grey_faces(pictures)
    held = labels >= labels.max() + 1 - recipe.held_out_people
    trained = np.flatnonzero(~held)
    pairs, same = make_pairs(labels[trained], recipe.seed)
    pairs = trained[pairs]
    checked = np.flatnonzero(held) if recipe.held_out_people else trained
    other_pairs, other_same = make_pairs(labels[checked], recipe.seed + 1)
    module = PairTraining(recipe, torch.from_numpy(faces))
    loaders = [
        DataLoader(TensorDataset(torch.from_numpy(p), torch.from_numpy(s)), recipe.batch, shuffle=shuffle)
        for p, s, shuffle in ((pairs, same, True), (checked[other_pairs], other_same, False))
    ]
    epochs = min(recipe.epochs, 2) if options.fast else recipe.epochs
    started = time.perf_counter()
    fit_epochs(module, loaders[0], loaders[1], epochs, options, recipe.seed)
    seconds = time.perf_counter() - started
    return _judge(recipe, options, module.scorer.eval(), pictures, labels, held, faces, newcomer, seconds)


def _judge(
    recipe: OlivettiRecipe,
    options: RunOptions,
    scorer: SiameseScorer,
    pictures: NDArray[np.uint8],
    labels: LabelArray,
    held: NDArray[np.bool_],
    faces: FloatArray,
    newcomer: FloatArray | None,
    seconds: float,
) -> OlivettiReport:
    torch.save(scorer.state_dict(), options.out / "siamese.pt")
    n = len(labels)
    everybody = faces if newcomer is None else np.concatenate([faces, newcomer])
    with torch.inference_mode():
        embeddings = torch.cat(
            [scorer.encoder(part) for part in torch.split(torch.from_numpy(everybody), 64)]
        )
    references = draw_references(labels, recipe.seed + 2)
    tests = np.flatnonzero(held) if held.any() else np.arange(n)
    scores = score_pairs(
        scorer, embeddings, np.repeat(tests[:, None], references.shape[1], axis=1), references[tests]
    )
    known = one_shot(scores, labels[tests], recipe.threshold)
    shown = int(tests[len(tests) // 2])
    place = int(np.flatnonzero(tests == shown)[0])
    for name, grid in (("grid_faces.png", [pictures[i] for i in references[shown]]), ("grid.png", None)):
        embedding_plots.plot_score_grid(
            scores[place],
            int(labels[shown]),
            recipe.threshold,
            options.out / name,
            f"picture of person {labels[shown] + 1} against one of each of {scores.shape[1]} people",
            grid,
        )
    result, of_newcomer = None, np.empty(0, np.float32)
    if newcomer is not None and len(newcomer) > 1:
        shows = np.arange(n + 1, n + len(newcomer))
        enrolled = np.concatenate([references[0], [n]])[None].repeat(len(shows), axis=0)
        all_scores = score_pairs(
            scorer, embeddings, shows[:, None].repeat(enrolled.shape[1], axis=1), enrolled
        )
        result = one_shot(all_scores, np.full(len(shows), enrolled.shape[1] - 1), recipe.threshold)
        of_newcomer = all_scores[len(shows) // 2]
        embedding_plots.plot_score_grid(
            of_newcomer,
            len(of_newcomer) - 1,
            recipe.threshold,
            options.out / "newcomer.png",
            "a picture of the 41st person, added with one picture and no retraining, against all 41",
        )
    metrics = embedding_plots.read_metrics(options.out)
    per_epoch = float(np.ceil(2 * (~held).sum() / recipe.batch))
    panels = {
        "loss": ("train/loss", "validation/loss"),
        "accuracy": ("train/accuracy", "validation/accuracy"),
    }
    embedding_plots.plot_curves(options.out, panels, options.out / "curves.png", per_epoch)
    report = OlivettiReport(
        metrics["train/accuracy"][1][-1],
        metrics["validation/accuracy"][1][-1],
        known,
        result,
        tuple(float(s) for s in of_newcomer),
        seconds,
    )
    write_report({"recipe": plain_values(recipe), **asdict(report)}, options.out / "report.json")
    return report

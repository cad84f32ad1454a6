"""The Olivetti siamese network: distance → sigmoid → cross-entropy; then one picture against everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from face_recognition_node.common.files import write_json
from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.networks.loading import write_checkpoint
from face_recognition_node.systems.olivetti.data import grey_faces, make_pairs, read_newcomer, read_olivetti
from face_recognition_node.systems.pictures import same_person_probabilities
from face_recognition_node.systems.runs import answers, fit, set_up
from face_recognition_node.systems.siamese import SiameseEncoder
from face_recognition_node.training.recipe import RunOptions, Section, plain_values
from face_recognition_node.vision.faces import FloatArray


class SiameseScorer(nn.Module):
    """One encoder for both pictures; the sigmoid of their Euclidean distance is the score."""

    def __init__(self, encoder: SiameseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        # score = sigmoid(scale * distance + bias): a scale below zero makes near pairs score high
        self.scale = nn.Parameter(torch.tensor(-1.0))
        self.bias = nn.Parameter(torch.tensor(1.0))

    def logits(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B,) log-odds of "same person" for two (B, 128) batches of embeddings."""
        return self.scale * functional.pairwise_distance(first, second) + self.bias

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B,) log-odds of "same person" for two (B, 1, 64, 64) batches of faces."""
        return self.logits(self.encoder(first), self.encoder(second))


@dataclass(frozen=True, slots=True)
class OneShotResult:
    """One test picture against one picture of everybody, for many test pictures."""

    tests: int
    people: int
    over_threshold: float  # mean number of people over the threshold, the right one included
    right_over: float  # share of tests in which the right person is over it
    right_first: float  # share of tests in which the right person scores highest

    def __str__(self) -> str:
        return (
            f"{self.tests} test pictures against {self.people} people: "
            f"{self.over_threshold:.1f} over the threshold, the right one among them "
            f"{100 * self.right_over:.1f} %, first {100 * self.right_first:.1f} %"
        )


@dataclass(frozen=True, slots=True)
class OlivettiReport:
    """What the run gave."""

    train_accuracy: float
    validation_accuracy: float  # on pairs not trained on
    known: OneShotResult  # one-shot test with the 40 people's pictures
    newcomer: OneShotResult | None  # with the 41st person as the test picture, or None
    robot: OneShotResult  # the test of known with the robot's embedder and calibrated rule
    newcomer_scores: tuple[float, ...]  # the shown picture's score with each of the 41, own one last

    def __str__(self) -> str:
        lines = [
            f"pairs right: {100 * self.train_accuracy:.1f} % trained on, "
            f"{100 * self.validation_accuracy:.1f} % not",
            str(self.known),
        ]
        if self.newcomer is not None:
            lines.append(f"41st person, one picture: {self.newcomer}")
        lines.append(f"the robot's embedder: {self.robot}")
        return "\n".join(lines)


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


def judge_olivetti(
    scorer: SiameseScorer,
    pictures: NDArray[np.uint8],
    labels: LabelArray,
    tests: LabelArray,
    newcomer: FloatArray | None,
    recipe: OlivettiRecipe,
    out: Path,
    steps_per_epoch: int,
) -> OlivettiReport:
    """Try the scorer on the ``tests`` among the (N, 112, 92) grey pictures; draw what came out.

    ``newcomer`` are (M, 1, 64, 64) inputs of the 41st person, the first one enrolled; or None.
    """
    n, threshold, inputs = len(labels), recipe.threshold, grey_faces(pictures)
    everybody = inputs if newcomer is None else np.concatenate([inputs, newcomer])
    embeddings = torch.from_numpy(answers(scorer.encoder, everybody))
    references = draw_references(labels, recipe.seed + 2)
    people = references.shape[1]
    scores = score_pairs(scorer, embeddings, tests[:, None].repeat(people, axis=1), references[tests])
    place = len(tests) // 2
    shown = int(tests[place])
    title = f"picture of person {labels[shown] + 1} against one of each of {people} people"
    grid = [pictures[index] for index in references[shown]]
    for name, tiles in (("grid_faces.png", grid), ("grid.png", None)):
        plot_score_grid(scores[place], int(labels[shown]), threshold, out / name, title, tiles)
    result, of_newcomer = None, np.empty(0, np.float32)
    if newcomer is not None:
        shows = np.arange(n + 1, n + len(newcomer))
        enrolled = np.append(references[0], n)[None].repeat(len(shows), axis=0)
        all_scores = score_pairs(scorer, embeddings, shows[:, None].repeat(people + 1, axis=1), enrolled)
        result = one_shot(all_scores, np.full(len(shows), people), threshold)
        of_newcomer = all_scores[len(shows) // 2]
        title = "a picture of the 41st person, added with one picture and no retraining, against all 41"
        plot_score_grid(of_newcomer, people, threshold, out / "newcomer.png", title)
    probability = same_person_probabilities(list(pictures), 1 / people)
    of_robot = one_shot(probability[tests[:, None], references[tests]], labels[tests], 0.5)
    panels = {name: (f"train/{name}", f"validation/{name}") for name in ("loss", "accuracy")}
    plots.plot_curves(out, panels, out / "curves.png", steps_per_epoch)
    metrics = plots.read_metrics(out)
    return OlivettiReport(
        metrics["train/accuracy"][1][-1],
        metrics["validation/accuracy"][1][-1],
        one_shot(scores, labels[tests], threshold),
        result,
        of_robot,
        tuple(float(score) for score in of_newcomer),
    )


def plot_score_grid(
    scores: NDArray[np.floating], truth: int, threshold: float, path: Path, title: str,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
) -> Path:  # fmt: skip
    """Draw one tile per person with the score, in [0, 1], of a test picture; the right person is framed.

    Scores that reach the threshold are bold. Without the grey pictures the tiles are coloured by score.
    """
    pyplot = plots.load_pyplot()
    columns = 10
    rows = -(-len(scores) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(columns, rows * 1.15), squeeze=False)
    for place, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        if place >= len(scores):
            axis.axis("off")
            continue
        if pictures is not None:
            axis.imshow(pictures[place], cmap="gray")
        else:
            axis.imshow([[scores[place]]], cmap="Greens", vmin=0, vmax=1)
            color = "white" if scores[place] > 0.6 else "#555555"
            axis.text(0, 0, str(place + 1), ha="center", va="center", fontsize=9, color=color)
        is_over = scores[place] >= threshold
        axis.set_title(f"{scores[place]:.2f}", fontsize=8, pad=2, fontweight="bold" if is_over else "normal")
        for spine in axis.spines.values():
            is_right = place == truth
            spine.set(color=plots.SAME_COLOUR if is_right else "#bbbbbb", linewidth=3 if is_right else 0.5)
    figure.suptitle(title, fontsize=10)
    return plots.save_figure(figure, path)


class OlivettiData(Section, frozen=True):
    """Where the pictures are."""

    path: Path  # zip of the AT&T faces
    # pictures, gif or video of the 41st person, of whom one picture is enrolled and another shown
    newcomer: str | None = None


class OlivettiRecipe(Section, frozen=True):
    """The article's settings."""

    kind: str
    data: OlivettiData
    epochs: int = 100
    batch: int = 64  # pairs in a batch
    learning_rate: float = 1e-3
    dropout: float = 0.3  # after each block
    # people kept out of training; with 0, as in the article, validation is on new pairs of the people trained
    # on
    held_out_people: int = 0
    threshold: float = 0.5  # score from which a pair counts as the same person
    seed: int = 0  # of the pairs and the weights


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


def train_olivetti(recipe: OlivettiRecipe, options: RunOptions) -> OlivettiReport:
    """Train, test, draw."""
    newcomer = None if recipe.data.newcomer is None else read_newcomer(recipe.data.newcomer)
    set_up(options)
    pictures, labels = read_olivetti(recipe.data.path)
    held = labels >= labels.max() + 1 - recipe.held_out_people
    trained = np.flatnonzero(~held)
    pairs, same = make_pairs(labels[trained], recipe.seed)
    pairs = trained[pairs]
    checked = np.flatnonzero(held) if recipe.held_out_people else trained
    # pairs of the same people, if nobody is held out, but none of those that were trained on
    seen = () if recipe.held_out_people else pairs
    other_pairs, other_same = make_pairs(labels[checked], recipe.seed + 1, seen)
    lightning.seed_everything(recipe.seed, verbose=False)
    module = PairTraining(recipe, torch.from_numpy(grey_faces(pictures)))
    loaders = [
        DataLoader(TensorDataset(torch.from_numpy(p), torch.from_numpy(s)), recipe.batch, shuffle=shuffle)
        for p, s, shuffle in ((pairs, same, True), (checked[other_pairs], other_same, False))
    ]
    epochs = min(recipe.epochs, 2) if options.fast else recipe.epochs
    lightning.seed_everything(recipe.seed, verbose=False)
    fit(module, loaders[0], loaders[1], epochs * len(loaders[0]), options)
    scorer = module.scorer.eval()
    write_checkpoint(scorer.state_dict(), options.out / "siamese.pt")
    tests = checked if recipe.held_out_people else np.arange(len(labels))
    report = judge_olivetti(scorer, pictures, labels, tests, newcomer, recipe, options.out, len(loaders[0]))
    write_json(options.out / "report.json", {"recipe": plain_values(recipe), **asdict(report)})
    return report

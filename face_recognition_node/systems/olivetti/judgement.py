"""The siamese article's test: one picture against one picture of everybody, also of a 41st person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.systems.siamese import SiameseEncoder
from face_recognition_node.vision.faces import FloatArray, ImageArray

SamePerson = Callable[[Sequence[ImageArray], float], FloatArray]
"""(N pictures, prior) → (N, N) probability that two pictures show one person."""


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


@dataclass(frozen=True, slots=True, eq=False)
class OlivettiFaces:
    """The pictures in all forms that the test needs.

    Attributes:
        pictures: (N, 112, 92) grey.
        labels: (N,) people.
        held: (N,) whether the person was kept out of training.
        inputs: (N, 1, 64, 64) what the network sees.
        newcomer: (M, 1, 64, 64) the 41st person, the first one enrolled; or None.
    """

    pictures: NDArray[np.uint8]
    labels: LabelArray
    held: NDArray[np.bool_]
    inputs: FloatArray
    newcomer: FloatArray | None = None


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
        robot: The test of ``known`` with the robot's embedder and calibrated rule, or None.
        newcomer_scores: The shown picture's score with each of the 41, own one last.
    """

    train_accuracy: float
    validation_accuracy: float
    known: OneShotResult
    newcomer: OneShotResult | None
    robot: OneShotResult | None
    newcomer_scores: tuple[float, ...]

    def __str__(self) -> str:
        lines = [
            f"pairs right: {100 * self.train_accuracy:.1f} % trained on, "
            f"{100 * self.validation_accuracy:.1f} % not",
            str(self.known),
        ]
        if self.newcomer is not None:
            lines.append(f"41st person, one picture: {self.newcomer}")
        if self.robot is not None:
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
    faces: OlivettiFaces,
    threshold: float,
    seed: int,
    out: Path,
    steps_per_epoch: float,
    robot: SamePerson | None,
) -> OlivettiReport:
    """Test every picture (of the people held out, if there are any), draw curves and grids into ``out``."""
    n, labels = len(faces.labels), faces.labels
    everybody = faces.inputs if faces.newcomer is None else np.concatenate([faces.inputs, faces.newcomer])
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(everybody), 64)
        embeddings = torch.cat([scorer.encoder(part) for part in parts])
    references = draw_references(labels, seed)
    tests = np.flatnonzero(faces.held) if faces.held.any() else np.arange(n)
    people = references.shape[1]
    scores = score_pairs(scorer, embeddings, tests[:, None].repeat(people, axis=1), references[tests])
    place = len(tests) // 2
    shown = int(tests[place])
    title = f"picture of person {labels[shown] + 1} against one of each of {people} people"
    grid = [faces.pictures[index] for index in references[shown]]
    for name, pictures in (("grid_faces.png", grid), ("grid.png", None)):
        plots.plot_score_grid(scores[place], int(labels[shown]), threshold, out / name, title, pictures)
    result, of_newcomer = None, np.empty(0, np.float32)
    if faces.newcomer is not None and len(faces.newcomer) > 1:
        shows = np.arange(n + 1, n + len(faces.newcomer))
        enrolled = np.append(references[0], n)[None].repeat(len(shows), axis=0)
        all_scores = score_pairs(scorer, embeddings, shows[:, None].repeat(people + 1, axis=1), enrolled)
        result = one_shot(all_scores, np.full(len(shows), people), threshold)
        of_newcomer = all_scores[len(shows) // 2]
        title = "a picture of the 41st person, added with one picture and no retraining, against all 41"
        plots.plot_score_grid(of_newcomer, people, threshold, out / "newcomer.png", title)
    of_robot = None
    if robot is not None:
        probability = robot(list(faces.pictures), 1 / people)
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

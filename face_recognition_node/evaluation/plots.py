"""Pictures of embeddings, rates and runs, and the one HTML page that holds a report's text and pictures.

matplotlib and scikit-learn are imported when a picture is made, so that figures can be computed without them.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import FaceRecognitionError, InputError
from face_recognition_node.common.files import write_text
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.identification import IdentificationResult
from face_recognition_node.evaluation.page import page, picture
from face_recognition_node.evaluation.verification import RocCurve
from face_recognition_node.vision.faces import FloatArray

SAME_COLOUR, DIFFERENT_COLOUR = "#1b7837", "#b2182b"


def load_pyplot() -> Any:
    """Return matplotlib's pyplot, drawing to files only."""
    try:
        import matplotlib
    except ImportError as error:
        raise FaceRecognitionError(
            "pictures need matplotlib; pip install -r requirements/train.txt"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, close it, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    load_pyplot().close(figure)
    return path


def project(embeddings: FloatArray, method: str, seed: int = 0) -> FloatArray:
    """Return (N, 2) of (N, D) embeddings by ``pca`` or ``tsne`` (van der Maaten & Hinton 2008)."""
    if len(embeddings) < 4:
        raise InputError(f"a projection needs at least 4 embeddings, got {len(embeddings)}")
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise FaceRecognitionError(
            "projections need scikit-learn; pip install -r requirements/train.txt"
        ) from error
    if method == "pca":
        made = PCA(2, random_state=seed).fit_transform(embeddings)
    elif method == "tsne":
        perplexity = min(15.0, (len(embeddings) - 1) / 3)
        made = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeddings)
    else:
        raise InputError(f"projection: expected 'pca' or 'tsne', got {method!r}")
    return np.asarray(made, np.float32)


def plot_projections(embeddings: FloatArray, labels: LabelArray, path: Path, title: str) -> Path:
    """Draw t-SNE and PCA side by side, one colour a person."""
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5))
    people = np.unique(labels)
    # neighbours in number are often alike; mixed, neighbours in the picture differ in colour
    shades = np.random.default_rng(0).permutation(np.linspace(0.02, 0.98, len(people)))
    colours = pyplot.get_cmap("turbo")(shades)
    for axis, method, name in zip(axes, ("tsne", "pca"), ("t-SNE", "PCA"), strict=True):
        points = project(embeddings, method)
        for person, colour in zip(people, colours, strict=True):
            axis.scatter(*points[labels == person].T, s=22, color=colour, edgecolors="white", linewidths=0.4)
        axis.set(title=name, xticks=[], yticks=[])
    figure.suptitle(f"{title}: {len(labels)} faces of {len(people)} people, one colour each")
    return save_figure(figure, path)


def plot_most_pictured(
    embeddings: FloatArray, labels: LabelArray, path: Path, title: str, people: int = 40, faces: int = 25
) -> Path:
    """Draw the projections of the ``people`` with the most faces, at most ``faces`` of each."""
    values, counts = np.unique(labels, return_counts=True)
    shown = values[np.argsort(-counts, kind="stable")][:people]
    kept = np.concatenate([np.flatnonzero(labels == person)[:faces] for person in shown])
    return plot_projections(embeddings[kept], labels[kept], path, title)


def plot_histogram(
    same: NDArray[np.floating],
    different: NDArray[np.floating],
    path: Path,
    what: str,
    threshold: float | None = None,
) -> Path:
    """Draw the two distributions of a distance or similarity, with the threshold if there is one."""
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(7, 3.6))
    values = np.concatenate([same, different])
    bins = np.linspace(float(values.min()), float(values.max()), 50) if len(values) else 10
    for pairs, colour, name in (
        (same, SAME_COLOUR, "same person"),
        (different, DIFFERENT_COLOUR, "different"),
    ):
        axis.hist(pairs, bins, density=True, alpha=0.65, color=colour, label=f"{name} ({len(pairs)} pairs)")
    if threshold is not None:
        axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
    axis.set(xlabel=what, ylabel="density")
    axis.legend(frameon=False)
    return save_figure(figure, path)


def read_metrics(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return name → (steps, values) of all CSV logs under ``folder``; later starts of a run win."""
    found: dict[str, dict[float, float]] = {}
    tables = sorted(folder.rglob("metrics.csv"), key=lambda path: path.stat().st_mtime)
    for table in tables:
        with open(table, newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for name, text in row.items():
                    if text and name not in ("step", "epoch") and row.get("step"):
                        found.setdefault(name, {})[float(row["step"])] = float(text)
    return {
        name: (sorted(values), [values[step] for step in sorted(values)]) for name, values in found.items()
    }


def plot_curves(
    folder: Path, panels: Mapping[str, Sequence[str]], path: Path, per_epoch: float = 1.0
) -> Path:
    """Draw logged values over steps (or epochs of ``per_epoch`` steps), one panel a group of names."""
    pyplot = load_pyplot()
    metrics = read_metrics(folder)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), squeeze=False)
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            if name in metrics:
                steps, values = metrics[name]
                axis.plot(np.asarray(steps) / per_epoch, values, label=name)
        axis.set(title=title, xlabel="step" if per_epoch == 1 else "epoch")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8)


def plot_roc_and_det(curve: RocCurve, path: Path) -> Path:
    """Draw TAR over FAR on a logarithmic axis, and the DET curve of Martin et al. (1997) beside it.

    A DET curve shows the two error rates on normal-deviate axes: where the similarities of both kinds of
    pairs are normally distributed it is a straight line.
    """
    pyplot = load_pyplot()
    figure, (roc, det) = pyplot.subplots(1, 2, figsize=(11, 4.4))
    seen = curve.false_accept_rate > 0
    roc.step(curve.false_accept_rate[seen], curve.true_accept_rate[seen], where="post")
    roc.set(xscale="log", xlabel="false accept rate", ylabel="true accept rate", ylim=(0, 1.02), title="ROC")
    rejected = 1 - curve.true_accept_rate
    inside = (curve.false_accept_rate > 0) & (curve.false_accept_rate < 1) & (rejected > 0) & (rejected < 1)
    deviates = np.vectorize(NormalDist().inv_cdf, otypes=[np.float32])
    det.plot(deviates(curve.false_accept_rate[inside]), deviates(rejected[inside]))
    ticks = deviates(DET_TICKS)
    names = [f"{100 * rate:g} %" for rate in DET_TICKS]
    det.set_xticks(ticks, names)
    det.set_yticks(ticks, names)
    low, high = float(ticks[0]), float(ticks[-1])
    det.plot([low, high], [low, high], color="#bbbbbb", linestyle=":", label="equal error rates")
    det.set(xlim=(low, high), ylim=(low, high), title="DET")
    det.set(xlabel="false accept rate", ylabel="false reject rate")
    det.legend(frameon=False)
    for axis in (roc, det):
        axis.grid(alpha=0.3)
    return save_figure(figure, path)


def plot_identification(results: Mapping[str, IdentificationResult], path: Path) -> Path:
    """Draw DIR over FPIR, one line a gallery, with the intervals as bands."""
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(7, 4.4))
    for name, result in results.items():
        rates = [point.fpir for point in result.points]
        line = axis.plot(rates, [point.dir for point in result.points], marker="o", label=name)[0]
        low, high = [p.low for p in result.points], [p.high for p in result.points]
        axis.fill_between(rates, low, high, color=line.get_color(), alpha=0.15)
    axis.set(xscale="log", xlabel="FPIR", ylabel="DIR, rank 1", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, title="people x faces enrolled")
    return save_figure(figure, path)


def write_page(path: Path, title: str, head: str, text: str, draw: Callable[[Path], Sequence[Path]]) -> None:
    """Write one HTML file, whole or not at all, with a text and the PNG files that ``draw`` makes."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = [picture(file.read_bytes(), file.stem) for file in draw(Path(folder))]
    parts = [f"<h2>{escape(head)}</h2>", f"<pre>{escape(text)}</pre>", "<h2>Pictures</h2>", *pictures]
    write_text(path, page(title, parts))

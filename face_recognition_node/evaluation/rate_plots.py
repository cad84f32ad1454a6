"""Pictures of error rates: ROC and DET of a verification, DIR of an identification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from face_recognition_node.evaluation.embedding_plots import load_pyplot, save_figure
from face_recognition_node.evaluation.identification import IdentificationResult
from face_recognition_node.evaluation.verification import RocCurve
from face_recognition_node.vision.faces import FloatArray

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
    det.plot(normal_deviates(curve.false_accept_rate[inside]), normal_deviates(rejected[inside]))
    ticks = normal_deviates(np.array(DET_TICKS))
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


def normal_deviates(rates: FloatArray | np.ndarray[Any, np.dtype[np.float64]]) -> FloatArray:
    """Return the standard normal's quantiles of (N,) rates in (0, 1)."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rate)) for rate in rates], np.float32)


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


def plot_conditions(results: Mapping[str, IdentificationResult], path: Path) -> Path:
    """Draw DIR and its intervals by condition: size of the face, blur, yaw."""
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 3.8))
    rates = [point.fpir for point in next(iter(results.values())).points]
    for number, rate in enumerate(rates):
        points = [one.points[number] for one in results.values()]
        values = np.array([point.dir for point in points])
        spread = np.abs(np.array([[point.low, point.high] for point in points]).T - values)
        axis.errorbar(
            range(len(points)), values, spread, marker="o", capsize=3, label=f"FPIR {100 * rate:g} %"
        )
    axis.set_xticks(range(len(results)), list(results), rotation=30, ha="right")
    axis.set(ylabel="DIR, rank 1", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return save_figure(figure, path)

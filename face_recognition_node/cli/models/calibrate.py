"""``face-recognition calibrate FACES``: learn from labelled faces what a similarity is worth."""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from face_recognition_node.cli.options import (
    add_json_option,
    add_model_options,
    file_to_write,
    given_path,
    models_config,
    report,
)
from face_recognition_node.common.progress import progress_bar

if TYPE_CHECKING:
    from face_recognition_node.config import Config
    from face_recognition_node.evaluation.calibration import LabelledFaces
    from face_recognition_node.evaluation.calibration_report import CalibrationReport
    from face_recognition_node.evaluation.track_rates import TrackRate
    from face_recognition_node.identity.calibration import Calibration

# memory of the noise in a face's embedding where no video is given to measure it on, seconds
DEFAULT_CORRELATION_S = 0.3
GALLERY_SIZES = (5, 20, 100)
_FIT_GALLERY = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add = parser.add_argument
    parser.description = (
        "Fits the tables behind every probability on one half of the people and reports on the other half. "
        "The people must be unknown to the embedder: they may not have been in its training."
    )
    add("faces", type=given_path, help="zip or folder: NAME/FILE.webp, aligned 112x112")
    add(
        "--videos", type=given_path, nargs="*", default=[], metavar="VIDEO",
        help="videos of people from a fixed camera, to measure the correlation time of embeddings",
    )  # fmt: skip
    add("--plot", type=file_to_write, metavar="FILE.png", help="write the reliability plot")
    add("--dry-run", action="store_true", help="report only; do not change the embedder's model card")
    add("--seed", type=int, default=0, help="random seed")
    add_json_option(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fit, judge, report, and write the calibration into the model card."""
    from face_recognition_node.backends import load_detector, load_embedder
    from face_recognition_node.config import Config
    from face_recognition_node.evaluation.calibration_report import draw_reliability, judge_calibration
    from face_recognition_node.evaluation.track_rates import play_tracks

    config = Config(models=models_config(arguments))
    embedder = load_embedder(config.models)
    faces, is_fitting = _embed(arguments.faces, load_detector(config.models, config.detector), embedder)
    calibration = _fit(faces.take(np.flatnonzero(is_fitting)), embedder.card.sha256, arguments.seed)
    if arguments.videos:
        calibration = _measure_memory(calibration, arguments.videos, config)
    judged_on = faces.take(np.flatnonzero(~is_fitting))
    judgement = judge_calibration(calibration, judged_on, arguments.seed)
    rates = [
        play_tracks(calibration, judged_on, size, seed=arguments.seed).rate_at(0.01, calibration)
        for size in _possible_sizes(judged_on)
    ]
    figures = _figures(arguments.faces, calibration, judgement, rates)
    if arguments.plot is not None:
        draw_reliability(judgement.bins, arguments.plot)
    noise = (
        f"comparisons per track {calibration.comparisons_per_track:g}, memory {calibration.correlation_s:g} s"
    )
    text = f"{judgement}\n{noise}"
    text = "\n".join([text, *(str(rate) for rate in rates)])
    if not arguments.dry_run:
        numbers, tables = calibration.to_tables()
        embedder.card.write_calibration({**numbers, "report": _for_the_card(figures)}, tables)
        text += f"\nwritten into {embedder.card.path}"
    report(text, figures, arguments.json)
    return 0


def _embed(
    path: Path, detector: Any, embedder: Any
) -> tuple[LabelledFaces, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return all faces in all qualities, and whether each belongs to the half that is fitted on."""
    from face_recognition_node.evaluation.calibration_faces import (
        embed_photographs,
        is_fitting_half,
        list_photographs,
        person_of,
    )

    names, read = list_photographs(path)
    with progress_bar(total=len(names), unit="photo", title="embedding", shown=True) as bar:
        faces = embed_photographs(names, read, detector, embedder, bar.update)
    half = np.array([is_fitting_half(person_of(name)) for name in names])
    return faces, half[faces.photographs]


def _fit(faces: LabelledFaces, sha256: str, seed: int) -> Calibration:
    """Fit the tables, then measure with them how many comparisons a track is worth."""
    from face_recognition_node.evaluation.calibration import fit_calibration
    from face_recognition_node.evaluation.track_rates import measure_comparisons_per_track, play_tracks

    calibration = fit_calibration(
        faces,
        embedder_sha256=sha256,
        comparisons_per_track=1.0,
        correlation_s=DEFAULT_CORRELATION_S,
        seed=seed,
    )
    size = min(_FIT_GALLERY, max(_possible_sizes(faces)))
    scores = play_tracks(calibration, faces, size, n_galleries=8, seed=seed + 1)
    return replace(calibration, comparisons_per_track=measure_comparisons_per_track(scores))


def _possible_sizes(faces: LabelledFaces) -> list[int]:
    """Return the gallery sizes for which there are enough people with four photographs."""
    from face_recognition_node.common.errors import InputError
    from face_recognition_node.evaluation.track_rates import count_candidates

    available = count_candidates(faces)
    sizes = [size for size in GALLERY_SIZES if size <= available]
    if not sizes:
        raise InputError(
            f"expected at least {GALLERY_SIZES[0]} people with four photographs in each half, got {available}"
        )
    return sizes


def _measure_memory(calibration: Calibration, videos: list[Path], config: Config) -> Calibration:
    """Return the calibration with the memory of the noise as it is in these videos."""
    from face_recognition_node.evaluation.calibration import measure_correlation_time

    tracks = [track for video in videos for track in _follow(video, calibration, config)]
    return replace(calibration, correlation_s=measure_correlation_time(tracks))


def _follow(video: Path, calibration: Calibration, config: Config) -> list[Any]:
    """Return stamps and embeddings of each track of a video that is longer than a second."""
    from face_recognition_node.backends import load_detector, load_embedder
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.media.sources import open_source
    from face_recognition_node.recognizer import Recognizer

    embedder = load_embedder(config.models)
    seen: dict[int, list[tuple[float, Any]]] = defaultdict(list)
    with Gallery.open(None, embedder.fingerprint, dimension=embedder.dimension) as gallery:
        detector = load_detector(config.models, config.detector)
        recognizer = Recognizer(detector, embedder, gallery, calibration, config)
        for frame in open_source(str(video)):
            for face in recognizer.process(frame, embed_all=True).faces:
                if face.view.detection.score >= config.strangers.minimum_detection_score:
                    seen[face.track_id].append((frame.stamp, face.view.embedding))
    long = [views for views in seen.values() if views[-1][0] - views[0][0] > 1.0]
    return [(np.array([s for s, _ in views]), np.stack([e for _, e in views])) for views in long]


def _figures(
    source: Path, calibration: Calibration, judgement: CalibrationReport, rates: list[TrackRate]
) -> dict[str, Any]:
    """Return what stands in the card for people to read."""
    return {
        "fitted_on": f"one half of the people of {source.name}; judged on the other",
        "comparisons_per_track": calibration.comparisons_per_track,
        "correlation_s": calibration.correlation_s,
        **asdict(judgement),
        "tracks": [asdict(rate) for rate in rates],
    }


def _for_the_card(figures: Any) -> Any:
    """Return the figures for people: four digits, without the points of the plot."""
    if isinstance(figures, dict):
        return {name: _for_the_card(value) for name, value in figures.items() if name != "bins"}
    if isinstance(figures, (list, tuple)):
        return [_for_the_card(value) for value in figures]
    return float(f"{figures:.4g}") if isinstance(figures, float) else figures

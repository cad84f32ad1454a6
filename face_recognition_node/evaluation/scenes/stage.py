"""Where scenarios are played: the cast, the models, and pictures of what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face_recognition_node.assembly import Models
from face_recognition_node.config import Config
from face_recognition_node.evaluation.bootstrap import estimate
from face_recognition_node.evaluation.replay.replay import Bench, replay
from face_recognition_node.evaluation.replay.replay_report import ReplayReport
from face_recognition_node.evaluation.replay.scenario import Episode, Scenario
from face_recognition_node.evaluation.replay.track_metrics import StrangerOutcome, TrueTrack
from face_recognition_node.evaluation.scenes.cast import Cast
from face_recognition_node.evaluation.scenes.scene import Scene
from face_recognition_node.vision.faces import ImageArray, RecognitionResult

_GREEN, _RED = (80, 200, 60), (60, 60, 230)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A frame of a scene with the truth and the claims in it."""

    caption: str
    image_bgr: ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What a scenario came to: the figures as text and for JSON, whether what must hold did, frames."""

    text: str
    passed: bool
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class StagedScenario:
    """One of the scenarios."""

    number: str
    title: str
    must: str  # what must hold
    play: Callable[[Stage], Measured] | None = None  # plays and judges it, or None
    needs: tuple[str, ...] = ("heads", "clips")  # kinds of people it is composed of; one of them is enough
    reason: str = ""  # why it is not run; a scenario without `play` and reason asks the running node


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """A line of the table: a scenario with what was measured, or why it was not run."""

    scenario: StagedScenario
    measured: Measured | None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Pass, fail or not run."""
        if self.measured is None:
            return "not run"
        return "pass" if self.measured.passed else "FAIL"

    @property
    def text(self) -> str:
        """What was measured, or why nothing was."""
        return self.measured.text if self.measured else self.reason

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        measured = self.measured
        return {
            "scenario": self.scenario.number,
            "title": self.scenario.title,
            "must": self.scenario.must,
            "verdict": self.verdict,
            "measured": measured.text if measured else None,
            "figures": measured.figures if measured else {},
            "reason": self.reason,
        }


class Stage:
    """Plays scenes through the real pipeline; if ``is_short``, to show that everything runs, not how well."""

    def __init__(
        self, cast: Cast, models: Models, config: Config, *, is_short: bool = False,
        on_frame: Callable[[str], None] = lambda place: None,
    ) -> None:  # fmt: skip
        self.cast, self.config, self.is_short = cast, config, is_short
        self._models, self._on_frame = models, on_frame
        self._results: dict[str, list[RecognitionResult]] = {}

    def some(self, full: int, short: int) -> int:
        """Return how many to take of something."""
        return short if self.is_short else full

    def play(self, name: str, episodes: Sequence[Episode], *, rotate: int = 0) -> ReplayReport:
        """Play episodes, each on a gallery of its own; reports lie on the clock of their episode."""
        self._results.clear()

        def fresh_bench(settings: Mapping[str, Any]) -> Bench:
            return Bench.open(self.config, models=self._models, rotate=rotate, learns=True)

        return replay(Scenario(name, "", tuple(episodes)), Path(), fresh_bench, self._keep)

    def picture(self, scene: Scene, seconds: float) -> Picture:
        """Return a frame of a scene of the last play: truth in green, pictures in red, claims beneath."""
        frame, truth = scene.render(round(seconds * scene.rate_hz) / scene.rate_hz)
        image = frame.image_bgr.copy()
        for true in truth:
            x1, y1, x2, y2 = (round(value) for value in true.box_xyxy)
            color = _GREEN if true.who else _RED
            cv2.rectangle(image, (x1, y1), (x2, y2), color, 1)
            _write(image, true.who or "(picture)", (x1, y1 - 4), color)
        results = self._results.get(scene.name, [])
        index = round(seconds * scene.rate_hz)
        if index < len(results):
            for face in results[index].faces:
                x1, _, _, y2 = (round(float(value)) for value in face.view.detection.box_xyxy)
                label = face.identity.name or face.identity.state.value
                _write(image, f"{label} {face.identity.probability:.2f}", (x1, y2 + 12), (255, 255, 255))
        return Picture(f"{scene.name}, {seconds:g} s", image)

    def _keep(self, place: str, result: RecognitionResult) -> None:
        self._results.setdefault(place, []).append(result)
        self._on_frame(place)


def seconds_to_name(track: TrueTrack) -> float | None:
    """Return the time from the first frame in plain view to the first right name, or None."""
    seen = track.right and track.visible
    return max(track.right[0].stamp - track.visible[0], 0.0) if seen else None


def longest_wrong_s(track: TrueTrack) -> float:
    """Return the longest time without a break under wrong names, seconds."""
    longest = run = 0.0
    for claim in track.claims:
        run = run + claim.duration if claim.is_wrong else 0.0
        longest = max(longest, run)
    return longest


def count_wrong(report: ReplayReport) -> int:
    """Return how many true tracks were ever under a wrong name."""
    return sum(bool(track.wrong) for track in report.tracks)


def counted(hits: Sequence[bool], of: Sequence[TrueTrack | StrangerOutcome]) -> str:
    """Return ``46 of 48 [0.88, 1.00]``: how many, and their share's 95 % interval over people."""
    share = estimate([float(hit) for hit in hits], [one.who for one in of])
    interval = "" if np.isnan(share.low) else f" [{share.low:.2f}, {share.high:.2f}]"
    return f"{sum(hits)} of {len(hits)}{interval}"


def failed_enrollments(report: ReplayReport) -> str:
    """Return a sentence about enrollments that stored nobody, empty if there was none."""
    failed = report.failed_enrollments
    return "" if not failed else f"; {len(failed)} not enrolled: {failed[0].name}: {failed[0].message}"


def _write(image: np.ndarray, text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1, cv2.LINE_AA)

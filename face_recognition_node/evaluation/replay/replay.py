"""Play a scenario through the real recognizer and judge what it claimed.

Recordings are played frame by frame with the stamps of their containers, as fast as the machine can; nothing
in the pipeline looks at the wall clock, so the figures do not depend on the machine's speed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.assembly import Models, Pipeline
from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.config import Config
from face_recognition_node.enrollment.goal import EnrollmentGoal, MostCentral, Region
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.evaluation.replay.replay_report import (
    EnrollmentOutcome,
    EpisodeReport,
    ReplayReport,
)
from face_recognition_node.evaluation.replay.scenario import (
    EVERYWHERE,
    Enrollment,
    Episode,
    Play,
    Scenario,
    Source,
    VisibleFace,
)
from face_recognition_node.evaluation.replay.sequences import open_sequence
from face_recognition_node.evaluation.replay.track_metrics import FrameClaim, TrueTrack
from face_recognition_node.gallery.gallery import NewTemplate
from face_recognition_node.vision.faces import FaceView, Frame, IdentifiedFace, RecognitionResult
from face_recognition_node.vision.geometry import iou_matrix

LOGGER = logging.getLogger(__name__)

_SAME_FACE = 0.2  # overlap (intersection over union) from which on a found face is a true one
_IN_PLAIN_VIEW = 0.75  # share of a face that has to be uncovered for it to count as visible


class Bench(Pipeline):
    """The pipeline of one episode, with a gallery in memory; it learns as the node does."""

    __slots__ = ()

    def begin(self, goal: EnrollmentGoal) -> EnrollmentSession:
        """Start an enrollment."""
        return EnrollmentSession(
            goal, self.gallery, self.models.calibration, self.recognizer.config.enrollment
        )

    def add_pictures(self, name: str, pictures: Iterable[Frame]) -> tuple[str, int]:
        """Add a person, a template for each picture with a face; return id and count, else SourceError."""
        found = [self.process_picture(picture).faces for picture in pictures]
        largest = [max(faces, key=lambda face: face.view.detection.size_px) for faces in found if faces]
        if not largest:
            raise SourceError(f"{name}: no face found in any of the pictures to enroll from")
        templates = [NewTemplate.of(face.view) for face in largest]
        return self.gallery.add_person(name, templates).person_id, len(templates)


def make_bench(models: Models, config: Config) -> Bench:
    """Return a bench with an empty gallery."""
    return Bench.open(config, models=models, learns=True)


def replay(
    scenario: Scenario,
    root: Path,
    fresh_bench: Callable[[Mapping[str, Any]], Bench],
    on_frame: Callable[[str, RecognitionResult], None] = lambda place, result: None,
) -> ReplayReport:
    """Play every episode, each on a bench of its own, and return what came out."""
    reports = [
        _Run(episode, root, fresh_bench(scenario.settings), scenario.pause, on_frame).play()
        for episode in scenario.episodes
    ]
    return ReplayReport(scenario.name, scenario.description, dict(scenario.settings), tuple(reports))


@dataclass
class _Run:
    """One episode on one bench."""

    episode: Episode
    root: Path
    bench: Bench
    pause: float
    on_frame: Callable[[str, RecognitionResult], None]
    clock: float = 0.0
    enrolled: dict[str, str] = field(default_factory=dict)
    enrollments: list[EnrollmentOutcome] = field(default_factory=list)

    def play(self) -> EpisodeReport:
        for wanted in self.episode.enroll:
            if wanted.pictures:
                self._add_pictures(wanted)
            else:
                self._run_session(wanted)
        tracks = tuple(track for play in self.episode.play for track in self._play_recording(play))
        return EpisodeReport(self.episode.name, tuple(self.enrollments), tracks)

    def _frames(
        self, source: Source, rate: float | None = None, skip: Collection[int] = ()
    ) -> Iterator[Frame]:
        """Yield the frames of a recording, moved to the episode's own time line."""
        problems: list[str] = []
        if isinstance(source, str):
            sequence = open_sequence(self.root, source, rate=rate, skip=skip)
            frames, problems = iter(sequence), sequence.problems
        else:
            frames = source.frames()
        start = self.clock
        for frame in frames:
            self.clock = start + frame.stamp
            yield replace(frame, stamp=self.clock)
        for problem in problems:
            LOGGER.warning("%s", problem)
        self.clock += self.pause

    def _add_pictures(self, wanted: Enrollment) -> None:
        pictures = open_sequence(self.root, str(wanted.source), take=wanted.pictures)
        person_id, count = self.bench.add_pictures(wanted.name, pictures)
        self.enrolled[wanted.name] = person_id
        self.enrollments.append(
            EnrollmentOutcome(wanted.name, str(wanted.source), True, "pictures added", count, {}, 0.0)
        )

    def _run_session(self, wanted: Enrollment) -> None:
        """Enroll from a recording of its own."""
        start = self.clock
        live = _LiveEnrollment(wanted, self.bench, start)
        for frame in self._frames(wanted.source):
            result = self.bench.process(frame, embed_all=True)
            self.on_frame(f"enroll {wanted.name}", result)
            truth: Sequence[VisibleFace] = ()
            if not isinstance(wanted.source, str):
                truth = wanted.source.truth(result.stamp - start)
            if live.observe(result, _assign_boxes(result, truth)):
                break
        self._finish(live)
        self.clock += self.pause

    def _finish(self, live: _LiveEnrollment) -> None:
        outcome, person_id = live.end()
        self.enrollments.append(outcome)
        if person_id is not None:
            self.enrolled[live.wanted.name] = person_id

    def _play_recording(self, play: Play) -> list[TrueTrack]:
        """Play one recording with the enrollments that happen in it, and sort the claims by true person."""
        start = self.clock
        waiting = sorted(play.enroll, key=lambda wanted: wanted.at)
        running: list[_LiveEnrollment] = []
        claims: dict[str, list[FrameClaim]] = {rule.who: [] for rule in play.faces}
        stamps: list[float] = []
        visible: dict[str, list[float]] = {}
        for frame in self._frames(play.source, play.rate, play.skip):
            while waiting and frame.stamp - start >= waiting[0].at:
                running.append(_LiveEnrollment(waiting.pop(0), self.bench, frame.stamp))
            result = self.bench.process(frame, embed_all=bool(running))
            self.on_frame(str(play.source), result)
            stamps.append(result.stamp)
            paired = assign_truth(result, play, result.stamp - start)
            for who, face in paired:
                claims.setdefault(who, []).append(self._claim(who, face, result.stamp))
            if not isinstance(play.source, str):
                for true in play.source.truth(result.stamp - start):
                    if true.visible >= _IN_PLAIN_VIEW:
                        visible.setdefault(true.who, []).append(result.stamp)
            for live in [live for live in running if live.observe(result, paired)]:
                running.remove(live)
                self._finish(live)
        if waiting:
            length = stamps[-1] - start if stamps else 0.0
            late = ", ".join(f"{wanted.name} at {wanted.at:g} s" for wanted in waiting)
            raise ConfigurationError(
                f"{play.source}: expected enrollments within its {length:.1f} s, got {late}"
            )
        for live in running:
            self._finish(live)
        step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        durations = np.diff(stamps, append=stamps[-1] + step).tolist() if stamps else []
        follow = dict(zip(stamps, durations, strict=True))
        return [
            TrueTrack(
                str(play.source),
                who,
                tuple(replace(claim, duration=follow[claim.stamp]) for claim in claims.get(who, ())),
                tuple(visible.get(who, ())),
            )
            for who in {**claims, **visible}
            if who or claims.get(who)
        ]

    def _claim(self, who: str, face: IdentifiedFace, stamp: float) -> FrameClaim:
        one, expected = face.identity, self.enrolled.get(who)
        return FrameClaim(stamp, 0.0, one.state, one.person_id, one.name, expected, face.flatness)


class _LiveEnrollment:
    """An enrollment while frames stream."""

    def __init__(self, wanted: Enrollment, bench: Bench, now: float) -> None:
        self.wanted = wanted
        self._begun = self._last = now
        self._shown: dict[tuple[float, float, float], str] = {}
        everywhere = wanted.x == EVERYWHERE and wanted.y == EVERYWHERE
        region = Region((wanted.x[0], wanted.y[0], wanted.x[1], wanted.y[1]))
        self._session = bench.begin(
            EnrollmentGoal(wanted.name, None, MostCentral() if everywhere else region)
        )

    def observe(self, result: RecognitionResult, truth: Iterable[tuple[str, IdentifiedFace]]) -> bool:
        """Show the session one frame's answer; True when it has ended."""
        self._last = result.stamp
        self._shown.update({_place(face.view): who for who, face in truth})
        self._session.observe(result)
        return bool(self._session.finished)

    def end(self) -> tuple[EnrollmentOutcome, str | None]:
        """Return the outcome and the person_id, if one was stored; an unfinished session ends now."""
        if not self._session.finished:
            self._session.finish()
        result = self._session.result()
        views_of = Counter(self._shown.get(_place(view), "") for view in self._session.views)
        outcome = EnrollmentOutcome(
            self.wanted.name,
            str(self.wanted.source or "while playing"),
            result.success,
            result.message,
            result.views_kept,
            {reason.value: count for reason, count in result.rejections.items()},
            self._last - self._begun,
            dict(views_of),
        )
        return outcome, result.person_id if result.success else None


def assign_truth(result: RecognitionResult, play: Play, seconds: float) -> list[tuple[str, IdentifiedFace]]:
    """Pair each face with its true person, ``""`` where it is none; of several the largest is the person."""
    if not isinstance(play.source, str):
        return _assign_boxes(result, play.source.truth(seconds))
    width, height = result.image_size
    paired: list[tuple[str, IdentifiedFace]] = []
    taken: set[str] = set()
    for face in sorted(result.faces, key=lambda item: -item.view.detection.size_px):
        x, y = (float(value) for value in face.view.detection.center_xy)
        who = next((rule.who for rule in play.faces if rule.fits(x / width, y / height, seconds)), "")
        paired.append(("" if who in taken else who, face))
        taken.add(who)
    return paired


def _assign_boxes(
    result: RecognitionResult, truth: Sequence[VisibleFace]
) -> list[tuple[str, IdentifiedFace]]:
    """Pair faces with true ones by overlap, the best pair first."""
    if not result.faces or not truth:
        return [("", face) for face in result.faces]
    boxes = np.stack([face.view.detection.box_xyxy for face in result.faces])
    overlaps = iou_matrix(boxes, np.array([true.box_xyxy for true in truth], np.float32)).copy()
    overlaps *= np.array([true.visible for true in truth]) ** 0.5  # of two at one place the one in front
    who = [""] * len(result.faces)
    while overlaps.max() >= _SAME_FACE:
        found, true = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        who[int(found)] = truth[int(true)].who
        overlaps[found, :] = overlaps[:, true] = 0.0
    return list(zip(who, result.faces, strict=True))


def _place(view: FaceView) -> tuple[float, float, float]:
    return (view.stamp, float(view.detection.box_xyxy[0]), float(view.detection.box_xyxy[1]))

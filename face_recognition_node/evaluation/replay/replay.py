"""Play a scenario through the real recogniser and judge what it claimed.

Recordings are played frame by frame with the stamps of their containers, as fast as the machine can; nothing
in the pipeline looks at the wall clock, so the figures do not depend on the machine's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.assembly import Models, Pipeline
from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.config import Config
from face_recognition_node.enrollment.goal import EnrollmentGoal, MostCentral, Region
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.evaluation.replay.replay_report import (
    EnrolmentOutcome,
    EpisodeReport,
    ReplayReport,
)
from face_recognition_node.evaluation.replay.scenario import (
    EVERYWHERE,
    Enrolment,
    Episode,
    FaceRule,
    Play,
    Scenario,
)
from face_recognition_node.evaluation.replay.sequences import open_sequence
from face_recognition_node.evaluation.replay.track_metrics import Claim, TrueTrack, follow_strangers, judge
from face_recognition_node.gallery.gallery import NewTemplate
from face_recognition_node.vision.faces import Frame, IdentifiedFace, RecognitionResult


class Bench(Pipeline):
    """The pipeline of one episode, with a gallery in memory; it learns as the node does."""

    __slots__ = ()

    def begin(self, goal: EnrollmentGoal) -> EnrollmentSession:
        """Start an enrolment."""
        return EnrollmentSession(
            goal, self.gallery, self.models.calibration, self.recognizer.config.enrollment
        )

    def add_pictures(self, name: str, pictures: Iterable[Frame]) -> tuple[str, int]:
        """Add a person from still pictures, one template each; return the person_id and how many had a face.

        Raises:
            SourceError: If no picture shows a face.
        """
        views = []
        for picture in pictures:
            result = self.process_picture(picture)
            if result.faces:
                views.append(
                    max((face.view for face in result.faces), key=lambda view: view.detection.size_px)
                )
        if not views:
            raise SourceError(f"{name}: no face found in any of the pictures to enrol from")
        templates = [
            NewTemplate(view.embedding, view.quality.overall, view.pose, precision=view.precision)
            for view in views
            if view.embedding is not None
        ]
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
    """Play every episode and return what came out.

    Args:
        scenario: What to play.
        root: The folder that its sources lie in.
        fresh_bench: Returns a bench for the scenario's settings; called once an episode.
        on_frame: Called after each frame with the recording's name, for progress.
    """
    reports = [
        _Run(episode, root, fresh_bench(scenario.settings), scenario.pause, on_frame).play()
        for episode in scenario.episodes
    ]
    return ReplayReport(scenario.name, scenario.description, dict(scenario.settings), tuple(reports))


class _Run:
    """One episode on one bench."""

    def __init__(
        self,
        episode: Episode,
        root: Path,
        bench: Bench,
        pause: float,
        on_frame: Callable[[str, RecognitionResult], None],
    ) -> None:
        self._episode = episode
        self._root = root
        self._bench = bench
        self._pause = pause
        self._on_frame = on_frame
        self._clock = 0.0
        self._enrolled: dict[str, str] = {}
        self._enrolments: list[EnrolmentOutcome] = []

    def play(self) -> EpisodeReport:
        for wanted in self._episode.enroll:
            if wanted.pictures:
                self._add_pictures(wanted)
            else:
                frames = self._frames(Play(wanted.source, ()))
                self._run_session(wanted, frames)
        tracks = [track for play in self._episode.play for track in self._play_recording(play)]
        outcomes = tuple(judge(track) for track in tracks)
        return EpisodeReport(
            self._episode.name,
            tuple(self._enrolments),
            outcomes,
            tuple(follow_strangers(outcomes)),
            tuple(tracks),
        )

    def _frames(self, play: Play) -> Iterable[Frame]:
        """Yield the frames of a recording, moved to the episode's own time line."""
        source = open_sequence(self._root, play.source, rate=play.rate, skip=play.skip)
        start = self._clock
        for frame in source:
            self._clock = start + frame.stamp
            yield Frame(frame.image_bgr, self._clock, frame.frame_id, frame.depth_m)
        self._clock += self._pause

    def _add_pictures(self, wanted: Enrolment) -> None:
        pictures = open_sequence(self._root, wanted.source, take=wanted.pictures)
        person_id, count = self._bench.add_pictures(wanted.name, pictures)
        self._enrolled[wanted.name] = person_id
        self._enrolments.append(
            EnrolmentOutcome(wanted.name, wanted.source, True, "pictures added", count, {}, 0.0)
        )

    def _run_session(self, wanted: Enrolment, frames: Iterable[Frame]) -> None:
        """Enrol from a recording of its own."""
        live = _LiveEnrolment(wanted, self._bench, self._clock)
        for frame in frames:
            result = self._bench.process(frame, embed_all=True)
            self._on_frame(f"enrol {wanted.name}", result)
            if live.observe(result):
                break
        self._finish(live)
        self._clock += self._pause

    def _finish(self, live: _LiveEnrolment) -> None:
        outcome, person_id = live.end()
        self._enrolments.append(outcome)
        if person_id is not None:
            self._enrolled[live.wanted.name] = person_id

    def _play_recording(self, play: Play) -> list[TrueTrack]:
        """Play one recording with the enrolments that happen in it, and sort the claims by true person."""
        start = self._clock
        waiting = sorted(play.enroll, key=lambda wanted: wanted.at)
        running: list[_LiveEnrolment] = []
        claims: dict[str, list[Claim]] = {rule.who: [] for rule in play.faces}
        stamps: list[float] = []
        for frame in self._frames(play):
            while waiting and frame.stamp - start >= waiting[0].at:
                running.append(_LiveEnrolment(waiting.pop(0), self._bench, frame.stamp))
            result = self._bench.process(frame, embed_all=bool(running))
            self._on_frame(play.source, result)
            stamps.append(result.stamp)
            for who, face in assign_truth(result, play.faces, result.stamp - start):
                claims.setdefault(who, []).append(self._claim(who, face, result.stamp))
            for live in [live for live in running if live.observe(result)]:
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
        follow = (
            dict(zip(stamps, np.diff([*stamps, stamps[-1] + step]).tolist(), strict=True)) if stamps else {}
        )
        return [
            TrueTrack(
                play.source, who, tuple(replace(claim, duration=follow[claim.stamp]) for claim in found)
            )
            for who, found in claims.items()
            if found or who
        ]

    def _claim(self, who: str, face: IdentifiedFace, stamp: float) -> Claim:
        identity = face.identity
        return Claim(stamp, 0.0, identity.state, identity.person_id, identity.name, self._enrolled.get(who))


class _LiveEnrolment:
    """An enrolment while frames stream."""

    def __init__(self, wanted: Enrolment, bench: Bench, now: float) -> None:
        self.wanted = wanted
        self._bench = bench
        self._begun = now
        self._last = now
        everywhere = wanted.x == EVERYWHERE and wanted.y == EVERYWHERE
        region = (wanted.x[0], wanted.y[0], wanted.x[1], wanted.y[1])
        self._session = bench.begin(
            EnrollmentGoal(wanted.name, None, MostCentral() if everywhere else Region(region))
        )

    def observe(self, result: RecognitionResult) -> bool:
        """Show the session one frame's answer; True when it has ended."""
        self._last = result.stamp
        self._session.observe(result)
        return bool(self._session.finished)

    def end(self) -> tuple[EnrolmentOutcome, str | None]:
        """Return the outcome and the person_id, if one was stored; an unfinished session ends now."""
        if not self._session.finished:
            self._session.finish()
        result = self._session.result()
        outcome = EnrolmentOutcome(
            self.wanted.name,
            self.wanted.source or "while playing",
            result.success,
            result.message,
            result.views_kept,
            {reason.value: count for reason, count in result.rejections.items()},
            self._last - self._begun,
        )
        return outcome, result.person_id if result.success else None


def assign_truth(
    result: RecognitionResult, rules: Iterable[FaceRule], seconds: float
) -> list[tuple[str, IdentifiedFace]]:
    """Pair each face with its true person, ``""`` where it is none.

    Where several faces fit one person, the largest is the person; the others are nobody.
    """
    width, height = result.image_size
    rules = list(rules)
    paired: list[tuple[str, IdentifiedFace]] = []
    taken: set[str] = set()
    for face in sorted(result.faces, key=lambda item: -item.view.detection.size_px):
        x, y = (float(value) for value in face.view.detection.center_xy)
        who = next((rule.who for rule in rules if rule.fits(x / width, y / height, seconds)), "")
        paired.append(("" if who in taken else who, face))
        taken.add(who)
    return paired

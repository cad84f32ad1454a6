"""The operator of a camera and a gallery on this machine, without ROS."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.assembly import Pipeline
from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.common.newest import NewestItemWorker
from face_recognition_node.common.parameters import with_values
from face_recognition_node.enrollment.coverage import DIRECTIONS
from face_recognition_node.enrollment.session import EnrollmentGoal, EnrollmentSession, Outcome, Track
from face_recognition_node.gallery.values import Person, Session
from face_recognition_node.identity.adaptation_review import pairs_that_may_be_one, templates_of_two
from face_recognition_node.identity.operating_point import operating_point
from face_recognition_node.media.sources import FrameSource
from face_recognition_node.vision.faces import Frame, IdentifiedFace, IdentityState
from face_recognition_node.web.operator import (
    TARGET,
    Card,
    EnrollmentState,
    Face,
    Operator,
    Overview,
    Pair,
    Picture,
    Problem,
    Status,
    Step,
    StoredView,
)

LOGGER = logging.getLogger(__name__)

_WINDOW_S = 3.0  # over which rates and latencies are told
_SILENCE_S = 2.0
_TRY_AGAIN_S = 2.0
_TIDY_S = 20.0


class LocalOperator(Operator):
    """Recognizes a source on a thread of its own and edits the gallery; a recording is repeated.

    Use it as a context manager. The pipeline, opened with ``is_live=True``, stays the caller's.
    """

    def __init__(self, pipeline: Pipeline, source: FrameSource) -> None:
        super().__init__()
        self._pipeline, self._source = pipeline, source
        self._gallery, self._calibration = pipeline.gallery, pipeline.models.calibration
        self._worker = NewestItemWorker(self._recognize, self._failed, "recognition")
        self._camera = threading.Thread(target=self._read, name="camera", daemon=True)
        self._end = threading.Event()
        self._received: deque[float] = deque(maxlen=1000)
        self._answers: deque[tuple[float, float]] = deque(maxlen=1000)
        self._trouble = ""
        self._began = self._tidied = time.monotonic()
        self._session: EnrollmentSession | None = None
        self._goal: EnrollmentGoal | None = None
        self._n_sessions = 0
        self._seen: set[str] = set()
        self._pairs: tuple[int, tuple[Pair, ...]] = (-1, ())

    def __enter__(self) -> LocalOperator:
        """Begin to recognize."""
        self._worker.start()
        self._camera.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a running enrollment stores nothing."""
        self._end.set()
        self._camera.join(timeout=5.0)
        self._worker.stop()
        if self._session is not None:
            self._session.cancel()

    # --- pictures -----------------------------------------------------------------------------------

    def _read(self) -> None:
        """Hand over frames as fast as they were taken; the newest replaces one not yet looked at."""
        while not self._end.is_set():
            try:
                self._play()
                self._trouble = "" if not self._source.is_live else f"{self._source.name} has ended"
            except (FaceRecognitionError, OSError) as error:
                LOGGER.warning("%s", error)
                self._trouble = str(error)
            if self._trouble:
                self._end.wait(_TRY_AGAIN_S)

    def _play(self) -> None:
        first: float | None = None
        began = time.time()
        for frame in self._source:
            if not self._source.is_live:  # stamps of a recording begin anew: now is when it is shown
                first = frame.stamp if first is None else first
                due = began + frame.stamp - first
                self._end.wait(max(0.0, due - time.time()))
                frame = replace(frame, stamp=due)
            if self._end.is_set():
                return
            self._trouble = ""
            self._received.append(time.monotonic())
            self._worker.offer((frame, time.monotonic()))
        if not self._source.is_live:
            self._end.wait(1 / self._source.rate_hz)

    def _recognize(self, item: tuple[Frame, float]) -> None:
        frame, arrived = item
        with self._lock:
            session = self._session
        is_enrolling = session is not None and not session.finished
        result = self._pipeline.process(frame, embed_all=is_enrolling)
        faces = tuple(_face(face) for face in result.faces)
        now = time.monotonic()
        with self._lock:
            if session is not None and is_enrolling:
                session.observe(result)
            self._answers.append((now, now - arrived))
            self._seen.update(one.person_id for one in faces if one.person_id and one.state != "undecided")
        self._show(Picture(frame.image_bgr, faces))
        if now - self._tidied > _TIDY_S:
            self._tidied = now
            self._tidy()

    def _failed(self, error: Exception) -> None:
        LOGGER.warning("a picture could not be answered", exc_info=error)
        self._trouble = str(error)

    def _tidy(self) -> None:
        """Store when people were last seen and forget those whose time is over, away from the frames."""
        with self._lock:
            seen, self._seen = self._seen, set()

        def work() -> None:
            self._gallery.mark_seen(seen)
            self._gallery.expire()

        self._pipeline.writer.submit(work)

    # --- what the page sees ---------------------------------------------------------------------------

    def status(self) -> Status:
        """See :class:`Operator`."""
        now = time.monotonic()
        with self._lock:
            while self._received and self._received[0] < now - _WINDOW_S:
                self._received.popleft()
            while self._answers and self._answers[0][0] < now - _WINDOW_S:
                self._answers.popleft()
            received, answers = len(self._received), list(self._answers)
        length = max(min(_WINDOW_S, now - self._began), 0.1)
        latencies = 1000 * np.array([latency for _, latency in answers])
        median, late = np.percentile(latencies, [50, 95]).tolist() if answers else (None, None)
        report = self._pipeline.models.embedder.backend
        return Status(
            source=self._source.name,
            received_hz=received / length,
            rate_hz=len(answers) / length,
            latency_ms=median,
            latency_p95_ms=late,
            dropped=self._worker.counts.dropped,
            backend=f"{report.name} on {report.device}, {report.precision}",
            backend_reason=report.reason,
            version=self._version_of(self._gallery.snapshot().version),
            problems=self._problems(received / length, len(answers) / length, now),
            enrollment=self._enrollment(),
        )

    def _problems(self, received_hz: float, answered_hz: float, now: float) -> tuple[Problem, ...]:
        found = []
        if self._trouble:
            found.append(
                Problem(self._trouble, "Check the camera and its cable; it is tried again.", is_error=True)
            )
        elif received_hz == 0 and now - self._began > _SILENCE_S:
            found.append(Problem(f"No picture from {self._source.name}", "Is the camera connected?", True))
        elif received_hz > 0 and answered_hz < 0.5 * received_hz:
            found.append(
                Problem(
                    f"Only {answered_hz:.0f} of {received_hz:.0f} pictures a second are looked at",
                    "Close other programs, lower detector.working_width, or lower the camera's rate.",
                )
            )
        if self._gallery.trouble:
            found.append(
                Problem(self._gallery.trouble, "Check the disk and the rights of the gallery's folder.", True)
            )
        return tuple(found)

    def _enrollment(self) -> EnrollmentState | None:
        session, goal = self._session, self._goal
        if session is None or goal is None:
            return None
        if not self._received:  # the camera stands still, the time of the enrollment does not
            with self._lock:
                session.tick(time.time())
        feedback = session.feedback()
        outcome, message, known = "", "", feedback.known
        if session.finished:
            result = session.result()
            outcome, message = result.outcome.value, result.message
            known = result.known or (result.nearest if result.outcome is Outcome.ALREADY_KNOWN else None)
        return EnrollmentState(
            number=self._n_sessions,
            is_running=not session.finished,
            track_id=feedback.track_id,
            name=goal.name or self._label(goal.person_id or ""),
            views_kept=feedback.views_kept,
            wanted_views=feedback.wanted_views,
            rejections={reason.value: count for reason, count in feedback.rejections.items()},
            coverage=tuple(name for name in DIRECTIONS if getattr(feedback.coverage, name)),
            hint=feedback.hint,
            known_id="" if known is None else known.person_id,
            known_name="" if known is None else known.name,
            known_probability=0.0 if known is None else known.probability,
            outcome=outcome,
            message=message,
        )

    def _overview(self) -> Overview:
        snapshot = self._gallery.snapshot()
        if self._pairs[0] != snapshot.version:
            found = pairs_that_may_be_one(self._calibration, snapshot)
            self._pairs = (snapshot.version, tuple(Pair(*pair) for pair in found))
        return Overview(
            version=self._version_of(snapshot.version),
            people=self._people(),
            pairs=self._pairs[1],
            history=tuple(
                Step(one.sentence, one.made, one.is_done, one.deadline) for one in self._gallery.history()
            ),
            sessions=tuple(snapshot.sessions.values()),
            session=snapshot.session,
            gallery=str(self._gallery.path or "in memory only"),
            operating_point=operating_point(
                self._calibration, self._pipeline.recognizer.config.identity, snapshot
            ),
        )

    def _people(self) -> tuple[Card, ...]:
        return tuple(map(self._card, self._gallery.snapshot().persons.values()))

    def _card(self, person: Person) -> Card:
        p, keeps = person, self._gallery.config.keep_crops
        return Card(
            p.person_id, p.name, p.is_stranger, p.n_templates, p.n_adapted, p.session, p.created,
            p.last_seen, p.expires, min(p.template_ids, default=None) if keeps else None,
        )  # fmt: skip

    def _views(self) -> tuple[StoredView, ...]:
        snapshot = self._gallery.snapshot()
        return tuple(
            StoredView(
                t.template_id, person_id, t.provenance.value, t.quality, t.pose.yaw, t.pose.pitch, t.created,
                t.is_set_aside,
            )
            for person_id in snapshot.persons
            for t in snapshot.templates_of(person_id)
        )  # fmt: skip

    def crop(self, template_id: int) -> bytes | None:
        """See :class:`Operator`."""
        crop_bgr = self._gallery.crop(template_id) if self._gallery.config.keep_crops else None
        return None if crop_bgr is None else cv2.imencode(".jpg", crop_bgr)[1].tobytes()

    # --- what the page asks for -----------------------------------------------------------------------

    def _begin(self, track_id: int, name: str, person_id: str, is_somebody_else: bool) -> None:
        self._goal = EnrollmentGoal(
            name, person_id or None, Track(track_id), is_somebody_else=is_somebody_else
        )
        config, writer = self._pipeline.recognizer.config.enrollment, self._pipeline.writer
        self._session = EnrollmentSession(self._goal, self._gallery, self._calibration, config, writer)
        self._n_sessions += 1

    def _cancel(self) -> None:
        if self._session is not None:
            self._session.cancel()

    def _rename(self, person_id: str, name: str) -> Card:
        return self._card(self._gallery.rename(person_id, name))

    def _merge(self, keep_id: str, other_ids: Sequence[str]) -> Card:
        return self._card(self._gallery.merge(keep_id, other_ids))

    def _split(self, template_ids: Sequence[int], name: str) -> Card:
        return self._card(self._gallery.split(template_ids, name))

    def _forget(self, person_ids: Sequence[str], is_final: bool) -> str:
        self._gallery.forget(person_ids, is_final)
        return self._gallery.unfinished

    def _step(self, is_redo: bool) -> Sequence[str]:
        return self._gallery.redo() if is_redo else self._gallery.undo()

    def _set_session(self, session: Session) -> None:
        self._gallery.set_session(session.name, session.kind, session.time_to_live_s)

    def _export(self, path: Path, overwrite: bool) -> tuple[int, int, str]:
        report = self._gallery.export_to(path, overwrite=overwrite)
        return report.n_persons, report.n_templates, str(report.path)

    def _import(self, path: Path) -> tuple[int, int]:
        report = self._gallery.import_from(path)
        return len(report.person_ids), report.n_templates

    def _check(self) -> tuple[Sequence[str], Sequence[int], int, int]:
        report = self._gallery.verify()
        of_two = templates_of_two(self._gallery.snapshot(), self._calibration)
        doubtful = sorted({*report.suspicious_template_ids, *of_two})
        return report.problems, doubtful, report.n_persons, report.n_templates

    def _set_target(self, rate: float) -> None:
        self._pipeline.update_config(with_values(self._pipeline.recognizer.config, {TARGET: rate}))


def _face(face: IdentifiedFace) -> Face:
    """Return what the page shows of a face."""
    identity = face.identity
    x1, y1, x2, y2 = face.view.detection.box_xyxy.tolist()
    stranger_id = face.own_stranger_id if identity.state is not IdentityState.KNOWN else None
    return Face(
        face.track_id,
        (round(x1, 1), round(y1, 1), round(x2, 1), round(y2, 1)),
        identity.state.value,
        identity.person_id or stranger_id or "",
        identity.name,
        round(identity.probability, 3),
        round(face.view.quality.overall, 2),
        face.flatness,
        "" if identity.runner_up is None else identity.runner_up.name,
        0.0 if identity.runner_up is None else round(identity.runner_up.probability, 3),
        face.flatness_source,
    )

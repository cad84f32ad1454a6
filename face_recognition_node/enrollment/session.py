"""Get to know a person from the running video: follow one face, keep good and different views, store them.

The state machine behind the action and the command line. It sees one :class:`RecognitionResult` after another
and never looks at a clock: time is that of the frames' stamps.

    selecting --(one face stands out)--> collecting --(enough views, or time is up)--> stored
        |                                    |
        +-- no_face, ambiguous_face,         +-- person_left, person_changed, too_few_views,
            no_such_track                        inconsistent, already_known, not_stored
    any --> canceled

Nothing is stored before the end, and everything at once then, on the background writer: the session has
ended when the gallery's commit is durable, and not before.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import TYPE_CHECKING

from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.errors import EnrollmentError, PersonNotFoundError
from face_recognition_node.config import EnrollmentConfig
from face_recognition_node.enrollment.candidates import find_candidates
from face_recognition_node.enrollment.commit import Stored, mismatch, outliers, store
from face_recognition_node.enrollment.goal import (
    EnrollmentFeedback,
    EnrollmentGoal,
    EnrollmentResult,
    MostCentral,
    Outcome,
    Region,
    Rejection,
    Track,
)
from face_recognition_node.enrollment.hints import (
    COME_BACK,
    ONE_AT_A_TIME,
    STEP_IN_FRONT,
    HintChooser,
    cut_off_hint,
)
from face_recognition_node.enrollment.kept_views import KeptViews
from face_recognition_node.enrollment.same_person import SamePerson
from face_recognition_node.enrollment.target_selection import TargetSelector
from face_recognition_node.enrollment.view_checks import check_view
from face_recognition_node.vision.faces import (
    CLOCK_JUMP_S,
    Candidate,
    FaceView,
    IdentifiedFace,
    RecognitionResult,
)

if TYPE_CHECKING:
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.identity.calibration import Calibration

LOGGER = logging.getLogger(__name__)

__all__ = [
    "EnrollmentConfig", "EnrollmentFeedback", "EnrollmentGoal", "EnrollmentResult",
    "EnrollmentSession", "MostCentral", "Outcome", "Region", "Rejection", "Track",
]  # fmt: skip

_MOST_UNJUDGED = 60  # frames kept while the face is being chosen, so that none of its views is lost
# views after which those that do not look like the person they should be added to are refused
_ENOUGH_FOR_MISMATCH = 3


class EnrollmentSession:
    """One enrollment.

    Feed it with :meth:`observe`, and with :meth:`tick` while no frames come; when :attr:`finished`, ask
    :meth:`result`. The faces should carry embeddings (``Recognizer.process(frame, embed_all=True)``). The
    commit runs on the writer, without one on the caller's thread (a recording, a test).
    """

    def __init__(
        self,
        goal: EnrollmentGoal,
        gallery: Gallery,
        calibration: Calibration,
        config: EnrollmentConfig | None = None,
        writer: BackgroundWriter | None = None,
    ) -> None:
        self._goal, self._gallery, self._calibration = goal, gallery, calibration
        self._writer = writer or BackgroundWriter(is_immediate=True)
        self._commit: Future[Stored] | None = None
        self._config = config or EnrollmentConfig()
        wanted = goal.wanted_views or self._config.wanted_views
        self._minimum = goal.minimum_views or min(self._config.minimum_views, wanted)
        self._timeout_s = goal.timeout_s or self._config.timeout_s
        self._selector = TargetSelector(goal.selection, self._config)
        self._kept = KeptViews(max(wanted, self._minimum), self._config, self._minimum)
        self._hints = HintChooser()
        self._rejections: Counter[Rejection] = Counter()
        self._track_id: int | None = None
        self._own_stranger_id: str | None = None
        self._is_broken = False
        self._unjudged: deque[RecognitionResult] = deque(maxlen=_MOST_UNJUDGED)
        self._same_person = SamePerson(calibration)
        self._first_stamp: float | None = None
        self._now = self._last_image = 0.0
        self._known: Candidate | None = None
        self._accepted = False
        self._reason: Rejection | None = None
        self._hint = STEP_IN_FRONT
        self._result: EnrollmentResult | None = None
        if goal.person_id is not None:
            try:
                gallery.snapshot().person(goal.person_id)
            except PersonNotFoundError as error:
                self._fail(Outcome.NO_SUCH_PERSON, str(error))

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way; after a success the person is durably stored."""
        return self._result is not None

    @property
    def is_storing(self) -> bool:
        """Whether the views are being stored; more frames change nothing then."""
        return self._commit is not None and not self.finished

    @property
    def views(self) -> tuple[FaceView, ...]:
        """The views kept so far."""
        return self._kept.views

    def result(self) -> EnrollmentResult:
        """Return how it ended; EnrollmentError (reason ``"running"``) if it has not."""
        if self._result is None:
            raise EnrollmentError("running", "the enrollment has not ended yet; look at `finished`")
        return self._result

    def cancel(self) -> None:
        """End it without storing anything; without effect if it has ended already or is being stored."""
        if self._commit is None or self._commit.cancel():
            self._fail(Outcome.CANCELED, "canceled")

    def tick(self, now: float) -> None:
        """Let time pass without a frame; ``now`` is on the clock of the stamps."""
        if self.finished or self.is_storing:
            return
        if self._first_stamp is None:
            self._first_stamp = self._now = self._last_image = now
        self._now = max(self._now, now)
        if self._now - self._last_image >= self._config.no_face_s:
            self._conclude(Outcome.NO_IMAGES)
        else:
            self._look_at_the_time()

    def finish(self) -> None:
        """End it because no more frames will come: store what there is, if that is enough."""
        if self.finished or self.is_storing:
            return
        if self._track_id is None:
            decided = self._selector.conclude()
            if isinstance(decided, Outcome):
                self._fail(decided, self._selector.explain(decided))
                return
            self._begin(decided)
        if not (self.finished or self.is_storing):
            self._conclude(Outcome.TOO_FEW_VIEWS)

    def observe(self, result: RecognitionResult) -> EnrollmentFeedback:
        """Take in the faces of one frame and say where the enrollment stands."""
        if self.finished or self.is_storing:
            return self.feedback()
        if self._first_stamp is not None and self._is_late(result.stamp):
            return self.feedback()
        self._first_stamp = result.stamp if self._first_stamp is None else self._first_stamp
        self._now = self._last_image = result.stamp
        self._accepted, self._reason = False, None
        if self._track_id is None:
            self._select(result)
        else:
            self._follow(result)
        if not (self.finished or self.is_storing):
            self._look_at_the_time()
        return self.feedback()

    def _is_late(self, stamp: float) -> bool:
        """Say whether a frame is older than the last one; end the enrollment if time was set back."""
        back = self._last_image - stamp
        if back > CLOCK_JUMP_S:
            self._fail(
                Outcome.NO_IMAGES,
                f"the time of the images was set back by {back:.1f} s (a recording began again, or "
                "a clock was set); start again",
            )
        return back > 0

    def feedback(self) -> EnrollmentFeedback:
        """Return where the enrollment stands."""
        elapsed = 0.0 if self._first_stamp is None else self._now - self._first_stamp
        return EnrollmentFeedback(
            self._track_id, len(self._kept), self._kept.wanted, MappingProxyType(dict(self._rejections)),
            self._kept.coverage, "" if self.finished or self.is_storing else self._hint, self._warning(),
            self._accepted, self._reason, elapsed,
        )  # fmt: skip

    def _select(self, result: RecognitionResult) -> None:
        self._unjudged.append(result)
        chosen = self._selector.observe(result)
        self._hint = ONE_AT_A_TIME if self._selector.is_ambiguous else STEP_IN_FRONT
        if isinstance(chosen, Outcome):
            self._fail(chosen, self._selector.explain(chosen))
        elif chosen is not None:
            self._begin(chosen)

    def _begin(self, track_id: int) -> None:
        """Follow a track, beginning with the frames in which it was chosen."""
        self._track_id = track_id
        while self._unjudged and not (self.finished or self.is_storing):
            result = self._unjudged.popleft()
            self._now = result.stamp
            self._follow(result)

    def _follow(self, result: RecognitionResult) -> None:
        """Judge the view of the chosen face, if it is to be seen."""
        good = {
            face.track_id
            for face in result.faces
            if check_view(face, (), result.image_size, self._config) is None
        }
        face = next((one for one in result.faces if one.track_id == self._track_id), None)
        if face is None:
            others = [one for one in result.faces if one.track_id in good]
            face = self._same_person.find(others, self._kept.views)
        if face is None:
            self._hint = COME_BACK
            return
        is_another_track = face.track_id != self._track_id
        is_another_stranger = self._own_stranger_id not in (None, face.own_stranger_id)
        self._is_broken = self._is_broken or is_another_track or is_another_stranger
        self._track_id, self._own_stranger_id = face.track_id, face.own_stranger_id
        others = [one for one in result.faces if one is not face]
        self._reason = self._judge(face, others, result.image_size)
        self._accepted = self._reason is None
        if self._reason is not None:
            self._rejections[self._reason] += 1
        self._same_person.saw(face, [one for one in others if one.track_id in good])
        is_own_fault = self._reason not in (None, Rejection.TOO_SIMILAR, Rejection.NO_EMBEDDING)
        step_back_in = cut_off_hint(face.view.detection, result.image_size, result.rotate)
        self._hints.note(self._now, self._reason if is_own_fault else None, step_back_in)
        self._hint = self._hints.choose(self._now, self._kept.coverage, ("front", "left", "right"))
        if self._accepted:
            self._after_new_view()

    def _judge(
        self, face: IdentifiedFace, others: Sequence[IdentifiedFace], image_size: tuple[int, int]
    ) -> Rejection | None:
        """Return why a view is not kept, or keep it and return None."""
        reason = check_view(face, others, image_size, self._config)
        if reason is not None:
            return reason
        if not self._same_person.fits(face.view, self._kept.views):
            return Rejection.DIFFERENT_PERSON
        return None if self._kept.offer(face.view) else Rejection.TOO_SIMILAR

    def _after_new_view(self) -> None:
        """Look whom the views resemble, refuse those of somebody else early, end when there are enough."""
        snapshot = self._gallery.snapshot()
        candidates = find_candidates(self._calibration, self._kept.views, snapshot, self._own_ids())
        self._known = _first_enrolled(candidates, snapshot)
        if self._goal.person_id is not None and len(self._kept) >= min(_ENOUGH_FOR_MISMATCH, self._minimum):
            try:
                reason = mismatch(self._kept.views, self._goal.person_id, snapshot, self._calibration)
            except PersonNotFoundError as error:  # forgotten while the person stood here
                self._fail(Outcome.NO_SUCH_PERSON, str(error))
                return
            if reason:
                self._fail(Outcome.INCONSISTENT, reason)
                return
        if self._kept.is_complete:
            self._conclude(Outcome.TOO_FEW_VIEWS)

    def _own_ids(self) -> tuple[str, ...]:
        """Return the id of the person to whom views are added, if there is one."""
        snapshot = self._gallery.snapshot()
        person_id = self._goal.person_id
        return () if person_id is None else (snapshot.aliases.get(person_id, person_id),)

    def _look_at_the_time(self) -> None:
        """End what has taken too long."""
        start = self._now if self._first_stamp is None else self._first_stamp
        last_seen = self._same_person.last_seen
        if self._same_person.has_changed(self._now, self._config.person_changed_s):
            self._fail(Outcome.PERSON_CHANGED, "somebody else took the place of the person; start again")
        elif last_seen is not None and self._now - last_seen >= self._config.person_left_s:
            self._conclude(Outcome.PERSON_LEFT)
        elif self._now - start >= self._timeout_s:
            self.finish()

    def _conclude(self, otherwise: Outcome) -> None:
        """Store the views if there are enough that fit together, else fail."""
        if len(self._kept) < self._minimum:
            self._fail(otherwise, self._too_few(otherwise))
            return
        odd = outliers(self._kept.views, self._calibration)
        self._kept.drop(odd)
        self._rejections[Rejection.DIFFERENT_PERSON] += len(odd)
        if len(self._kept) < self._minimum:
            self._fail(Outcome.INCONSISTENT, f"{len(odd)} of the views do not fit the others as one person")
            return
        views, own = self._kept.views, self._own_stranger()
        before = find_candidates(self._calibration, views, self._gallery.snapshot(), self._own_ids())
        self._commit = self._writer.submit(
            lambda: store(views, self._goal, self._gallery, self._calibration, own)
        )
        self._commit.add_done_callback(lambda commit: self._end(commit, before))

    def _own_stranger(self) -> str | None:
        """Return the stranger that the track has been without a break, or None."""
        own = None if self._is_broken else self._own_stranger_id
        return None if own is None else self._gallery.snapshot().aliases.get(own, own)

    def _end(self, commit: Future[Stored], before: Sequence[Candidate]) -> None:
        """Report what became of the commit, on the writer's thread; ``before`` are the candidates then."""
        if commit.cancelled():
            return
        error = commit.exception()
        snapshot = self._gallery.snapshot()
        if error is not None:
            self._known = _first_enrolled(before, snapshot)
            if not isinstance(error, EnrollmentError):
                LOGGER.error("the views could not be stored", exc_info=error)
            reason = error.reason if isinstance(error, EnrollmentError) else Outcome.NOT_STORED.value
            self._fail(Outcome(reason), str(error))
            return
        stored = commit.result()
        person = stored.person
        others = [
            one for one in before if one.person_id != person.person_id and one.person_id in snapshot.persons
        ]
        nearest = max(others, key=lambda one: one.similarity or -1.0, default=None)
        self._known = _first_enrolled(others, snapshot)
        warning = self._warning()
        notes = [*stored.notes, *([f"looks like {warning}"] if warning else [])]
        # not the name first: a program that shows the sentence may begin it with a capital
        sentence = f"stored {person.label} with {len(self._kept)} new views ({self._kept.coverage})"
        self._result = EnrollmentResult(
            Outcome.STORED, "; ".join([sentence, *notes]), person.person_id, person.name, len(self._kept),
            self._counts(), self._kept.coverage, self._kept.self_consistency(), nearest, warning,
            stored.gallery_version,
        )  # fmt: skip

    def _fail(self, outcome: Outcome, message: str) -> None:
        """End without having stored anything."""
        if self._result is None:
            message = f"{message}; nothing was stored"
            self._result = EnrollmentResult(
                outcome, message, name=self._goal.name, rejections=self._counts(),
                coverage=self._kept.coverage, self_consistency=self._kept.self_consistency(),
                nearest=self._known, known=self._warning(),
            )  # fmt: skip

    def _too_few(self, outcome: Outcome) -> str:
        """Return why there were too few views, naming the most frequent reason."""
        lead = {
            Outcome.PERSON_LEFT: "the person left before enough good views were seen",
            Outcome.NO_IMAGES: "no more images came",
        }.get(outcome, "not enough good views were seen")
        text = f"{lead}: {len(self._kept)} of at least {self._minimum}"
        for reason, count in self._rejections.most_common(1):
            text += f"; most others were {reason.value.replace('_', ' ')} ({count})"
        return text

    def _counts(self) -> MappingProxyType[Rejection, int]:
        return MappingProxyType({reason: count for reason, count in self._rejections.items() if count})

    def _warning(self) -> Candidate | None:
        known = self._known
        return known if known is not None and known.probability >= self._config.warn_probability else None


def _first_enrolled(candidates: Sequence[Candidate], snapshot: Snapshot) -> Candidate | None:
    """Return the most probable one who is no stranger, or None."""
    persons = snapshot.persons
    enrolled = (
        one for one in candidates if one.person_id in persons and not persons[one.person_id].is_stranger
    )
    return next(enrolled, None)

"""Let a person's templates follow a new look, without ever letting somebody else's face creep in.

The RGB-D Face ID article adds "support vectors" as the owner's look changes. What makes that dangerous is to
learn from doubtful views, or from views that match only what was learned before. Therefore:

* Only views of a track that is certain **from enrolled templates** count; adapted ones vouch for nothing.
* The view itself must match an enrolled template far above the doubtful band, and nobody else.
* It must show a new look: unlike each template of the person.
* It is first put on probation. It is stored when the same track has afterwards shown views as like the
  enrolled ones as the track ever was; it is dropped if the track ends, contradicts itself, or drifts away. A
  face that slowly turns into another one never comes back, and so leaves nothing behind.
* A person has at most k adapted templates; a further one takes the place of the most redundant (greedy
  k-centre, Gonzalez 1985) or is not kept.

Adapted templates that no longer fit the enrolled ones, or come too near somebody else's, are set aside (kept,
but not searched) and reported. ``Gallery.rollback_adaptation`` takes everything back in one call.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.errors import GalleryConflictError, GalleryError
from face_recognition_node.config import AdaptationConfig
from face_recognition_node.gallery.values import NewTemplate, Person, Provenance, SessionKind, Template
from face_recognition_node.identity.adaptation_review import review
from face_recognition_node.identity.comparison import compare_with_templates
from face_recognition_node.vision.faces import (
    FaceView,
    IdentifiedFace,
    IdentityState,
    RecognitionResult,
    embedding_of,
)

if TYPE_CHECKING:
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.identity.calibration import Calibration
    from face_recognition_node.tracking.tracker import Track

LOGGER = logging.getLogger(__name__)
CONFLICT_LOG_RATIO = 1.0  # a view more like somebody else than this, natural log, is not learned
MARGIN_LOG_RATIO = 4.0  # by how much it must be more like the person than like anybody else
# a view is back at the track's usual similarity if its cosine is at most this much lower
RETURN_TOLERANCE = 0.04
_FORGET_TRACK_S = 2.0


@dataclass(frozen=True, slots=True)
class AdaptationReport:
    """Something that was done or refused."""

    person_id: str  # whose template
    action: str  # "added", "replaced", "refused" or "set_aside"
    reason: str  # in words
    similarity: float  # cosine to the nearest enrolled template

    def __str__(self) -> str:
        return f"adaptation of {self.person_id}: {self.action} ({self.reason}, {self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class _Fit:
    """How a view fits its person and others."""

    similarity: float  # cosine to the nearest enrolled template
    log_ratio: float  # what that is worth, natural log
    any_similarity: float  # cosine to the nearest template of any provenance
    other_log_ratio: float  # what the similarity to the nearest other person is worth


@dataclass(slots=True)
class _Probation:
    """What is remembered of one track."""

    person_id: str  # whom it is claimed to be
    n_certain: int = 0  # certain views so far
    first_certain: float = 0.0  # stamp of the first of them
    last_certain: float = 0.0  # stamp of the last of them
    last_stamp: float = -math.inf  # stamp of the latest view
    usual: float = -1.0  # highest running median of the similarity to the enrolled views
    view: FaceView | None = None  # a view that may be stored, or None
    view_similarity: float = 0.0  # its cosine to the person's nearest template
    returns: int = 0  # views at the usual similarity since
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=5))

    def note(self, view: FaceView, fit: _Fit, certain_log_ratio: float) -> None:
        """Count a view."""
        self.last_stamp = view.stamp
        self._recent.append(fit.similarity)
        if len(self._recent) == self._recent.maxlen:
            self.usual = max(self.usual, float(np.median(self._recent)))
        if fit.log_ratio >= certain_log_ratio:
            self.first_certain = view.stamp if self.n_certain == 0 else self.first_certain
            self.last_certain = view.stamp
            self.n_certain += 1

    def is_certain(self, views: int, span_s: float) -> bool:
        """Whether enough certain views over enough time were seen."""
        return self.n_certain >= views and self.last_certain - self.first_certain >= span_s

    def put_on_probation(self, view: FaceView, fit: _Fit) -> None:
        """Keep a view to be stored later; of several, the one that shows the newest look."""
        if self.view is None or fit.any_similarity < self.view_similarity:
            self.view, self.view_similarity, self.returns = view, fit.any_similarity, 0


class Adapter:
    """Watches recognized faces and adds templates that cover a new look, at once without a writer."""

    def __init__(
        self,
        gallery: Gallery,
        calibration: Calibration,
        config: AdaptationConfig | None = None,
        writer: BackgroundWriter | None = None,
    ) -> None:
        self.config = config or AdaptationConfig()
        self.reports: deque[AdaptationReport] = deque(maxlen=200)  # newest last
        self._gallery, self._calibration = gallery, calibration
        self._writer = writer or BackgroundWriter(is_immediate=True)
        self._tracks: dict[int, _Probation] = {}
        self._last_added: dict[str, float] = {}
        self._reviewed = -1

    def observe(self, result: RecognitionResult, tracks: Sequence[Track] = ()) -> None:
        """Take in one frame's result; the tracks say nothing that adaptation needs."""
        snapshot = self._gallery.snapshot()
        if not self._is_on(snapshot):
            self._tracks.clear()
            return
        if snapshot.version != self._reviewed:
            self._reviewed = snapshot.version
            self._do(self._review)
        for face in result.faces:
            self._consider(face, snapshot)
        for track_id, track in list(self._tracks.items()):
            if not 0.0 <= result.stamp - track.last_stamp <= _FORGET_TRACK_S:
                del self._tracks[track_id]

    def _is_on(self, snapshot: Snapshot) -> bool:
        if not self.config.enabled:
            return False
        return self.config.in_events or snapshot.sessions[snapshot.session].kind is SessionKind.PERMANENT

    def _consider(self, face: IdentifiedFace, snapshot: Snapshot) -> None:
        """Bring one track's probation up to date with one view."""
        view, identity = face.view, face.identity
        person = snapshot.persons.get(identity.person_id or "")
        if (
            person is None
            or identity.state is not IdentityState.KNOWN
            or not self._may_learn(person, snapshot)
        ):
            self._tracks.pop(face.track_id, None)
            return
        is_usable = view.quality.overall >= self.config.minimum_quality and face.flatness != "flat"
        fit = self._fit(view, person.person_id, snapshot) if is_usable else None
        if fit is None:
            return
        track = self._tracks.get(face.track_id)
        if track is None or track.person_id != person.person_id or fit.log_ratio < 0.0:
            track = self._tracks[face.track_id] = _Probation(person.person_id)
        track.note(view, fit, self.config.certain_log_ratio)
        self._confirm(track, fit, view.stamp)
        if self._is_candidate(track, fit, identity.probability):
            track.put_on_probation(view, fit)

    def _may_learn(self, person: Person, snapshot: Snapshot) -> bool:
        is_permanent = snapshot.sessions[person.session].kind is SessionKind.PERMANENT
        return not person.is_stranger and (self.config.in_events or is_permanent)

    def _fit(self, view: FaceView, person_id: str, snapshot: Snapshot) -> _Fit | None:
        """Return how a view fits the person's enrolled templates, all of them, and others."""
        templates = [t for t in snapshot.templates_of(person_id) if not t.is_set_aside]
        enrolled = [t for t in templates if t.provenance is Provenance.ENROLLED]
        if not enrolled or view.embedding is None:
            return None
        quality = view.quality.overall
        cosines = np.stack([t.embedding for t in enrolled]) @ view.embedding
        nearest = int(np.argmax(cosines))
        any_cosine = float((np.stack([t.embedding for t in templates]) @ view.embedding).max())
        matches = [m for m in snapshot.search(view.embedding[None], 4)[0] if m.person_id != person_id]
        others = snapshot.templates(m.template_id for m in matches)
        compared = [enrolled[nearest], *others]
        ratio, *other = compare_with_templates(self._calibration, view.embedding, quality, compared).tolist()
        return _Fit(float(cosines[nearest]), ratio, any_cosine, max(other, default=-math.inf))

    def _is_candidate(self, track: _Probation, fit: _Fit, probability: float) -> bool:
        config = self.config
        if not track.is_certain(config.certain_views, config.certain_span_s):
            return False
        if probability < config.minimum_probability or fit.any_similarity >= config.new_look_similarity:
            return False
        if fit.log_ratio < config.minimum_log_ratio:
            return False
        margin = fit.log_ratio - fit.other_log_ratio
        if fit.other_log_ratio > CONFLICT_LOG_RATIO or margin < MARGIN_LOG_RATIO:
            self._report(track.person_id, "refused", "also like somebody else", fit.similarity)
            return False
        return True

    def _confirm(self, track: _Probation, fit: _Fit, stamp: float) -> None:
        """Store a view on probation once the track has been as like the enrolled views as it ever was."""
        is_back = fit.similarity >= track.usual - RETURN_TOLERANCE
        if is_back and fit.log_ratio >= self.config.certain_log_ratio:
            track.returns += 1
        if track.view is None or track.returns < self.config.confirming_views:
            return
        view, track.view = track.view, None
        last = self._last_added.get(track.person_id, -math.inf)
        if stamp - last >= self.config.interval_s or stamp < last:
            self._last_added[track.person_id] = stamp
            person_id = track.person_id
            self._do(lambda: self._add(person_id, view))

    def _add(self, person_id: str, view: FaceView) -> None:
        """Store a view as an adapted template, in place of the most redundant one if there are enough."""
        snapshot = self._gallery.snapshot()
        fit = self._fit(view, person_id, snapshot) if person_id in snapshot.persons else None
        if fit is None or fit.any_similarity >= self.config.new_look_similarity:
            return  # forgotten meanwhile, or no longer new
        templates = snapshot.templates_of(person_id)
        adapted = [t for t in templates if t.provenance is Provenance.ADAPTED]
        outgoing: list[int] = []
        if len(adapted) >= self.config.maximum_templates:
            fixed = [t for t in templates if t.provenance is not Provenance.ADAPTED]
            redundant = most_redundant(adapted, fixed, view)
            if redundant is None:
                self._report(person_id, "refused", "covered by the present templates", fit.similarity)
                return
            outgoing = [redundant.template_id]
        self._gallery.learn(person_id, [NewTemplate.of(view, Provenance.ADAPTED)], outgoing)
        self._report(person_id, "replaced" if outgoing else "added", "new look", fit.similarity)

    def _review(self) -> None:
        for issue in review(self._gallery.snapshot(), self._calibration):
            self._gallery.set_aside([issue.template_id], is_recorded=False)
            self._report(issue.person_id, "set_aside", issue.reason, issue.similarity)

    def _do(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except GalleryConflictError as error:  # its text has names, which no log should hold
                LOGGER.warning("adaptation could not be stored (%s)", type(error).__name__)
            except GalleryError as error:
                LOGGER.warning("adaptation could not be stored: %s", error)

        self._writer.submit(guarded)

    def _report(self, person_id: str, action: str, reason: str, similarity: float) -> None:
        report = AdaptationReport(person_id, action, reason, similarity)
        self.reports.append(report)
        LOGGER.log(logging.DEBUG if action == "refused" else logging.INFO, "%s", report)


def most_redundant(adapted: list[Template], others: list[Template], view: FaceView) -> Template | None:
    """Return the adapted template to give up for a view, or None if the view itself is the most redundant.

    Redundancy is the cosine to the nearest of all the rest, the view included.
    """
    rows = np.stack([embedding_of(view), *(t.embedding for t in adapted), *(t.embedding for t in others)])
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -1.0)
    redundancy = cosines[: len(adapted) + 1].max(axis=1)
    worst = int(np.argmax(redundancy))
    if worst == 0 or redundancy[worst] <= redundancy[0]:
        return None
    return adapted[worst - 1]

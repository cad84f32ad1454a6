"""The same unknown as before: give lasting ids to people nobody has enrolled.

A track that clearly belongs to nobody in the gallery, and has shown several good and consistent views over
some time, is written into the gallery as a provisional person. From then on the ordinary comparison finds
it again; as long as that very track goes on, views from other sides are added, so that a guest who is met
face on is found again in profile. A stranger's id that the track received is taken back when it turns out to
show an enrolled person. Naming, merging and expiry are the gallery's.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.common.errors import GalleryChangedError, GalleryError
from face_recognition_node.config import MOST_STRANGERS, StrangersConfig
from face_recognition_node.identity.adaptation_review import second_person
from face_recognition_node.identity.comparison import log_likelihood_ratios, pool
from face_recognition_node.identity.stranger_record import StrangerRecord
from face_recognition_node.vision.faces import FaceView, Identity, IdentityState, RecognitionResult

if TYPE_CHECKING:
    from face_recognition_node.common.background import BackgroundWriter
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.gallery.values import NewTemplate, Person
    from face_recognition_node.identity.calibration import Calibration
    from face_recognition_node.identity.identity import Claim
    from face_recognition_node.tracking.tracker import Track

LOGGER = logging.getLogger(__name__)

_UNLIKE = math.log(0.01)
# a face that is undecided, but no more like anybody known than one stranger in a hundred is, will hardly get
# a name: it waits this long only, in place of `patience_s`
_UNLIKE_PATIENCE_S = 0.5
# log-likelihood ratio of being one person below which two parts of an entry are made two entries
_TWO_PEOPLE = math.log(1 / 9)
# a face that is less probably somebody new than this may be one of the strangers: it waits
_NEW_PROBABILITY = 0.5


class StrangerBook:
    """Creates strangers and keeps their views; unless the writer commits at once, an id shows a bit later."""

    def __init__(
        self, gallery: Gallery, config: StrangersConfig, writer: BackgroundWriter, calibration: Calibration
    ) -> None:
        self.config = config
        self._gallery = gallery
        self.created_ids: deque[str] = deque(maxlen=MOST_STRANGERS)  # in the gallery or no more
        self._writer = writer
        self._calibration = calibration
        self._judged = gallery.snapshot()
        self.n_separated = 0  # how often one turned out to be two
        self._split: set[str] = set()

    def observe(self, result: RecognitionResult, tracks: Sequence[Track]) -> None:
        """Note the views that count, create the strangers that are due and take back wrong ids."""
        for face, track in zip(result.faces, tracks, strict=True):
            if track.frames_unchecked == 0:  # this very view is evidence of who it is
                self._note(track, face.view)
        for face, track in zip(result.faces, tracks, strict=True):
            self._update(track, face.identity)
        self._judged = self._gallery.snapshot()

    def _note(self, track: Track, view: FaceView) -> None:
        if view.embedding is None or track.contradiction < 0.0 or track.is_flat:
            return
        if view.quality.overall < self.config.minimum_quality:
            return
        if view.detection.score < self.config.minimum_detection_score:
            return
        self._record(track).note(view, self.config.maximum_views)

    def _update(self, track: Track, identity: Identity) -> None:
        record = self._record(track)
        record.follow(track.last_stamp)
        self._collect(record)
        snapshot = self._gallery.snapshot()
        persons = snapshot.persons
        if record.stranger_id is not None:  # who got a name has another id
            record.stranger_id = snapshot.aliases.get(record.stranger_id, record.stranger_id)
        if identity.state is IdentityState.KNOWN:
            self._take_back(record, identity)
        if identity.person_id is not None and record.stranger_id is None and record.pending is None:
            # Views that got an id do not get a new one after it is lost: the person would be stored twice,
            # and two equal entries cannot be told apart.
            track.stranger = StrangerRecord(passed_as=identity.person_id)
        elif record.stranger_id is not None and record.stranger_id not in persons:
            # forgotten by somebody: the person still in view needs new views for an id
            track.stranger = StrangerRecord()
        elif self.config.enabled and identity.person_id is None and self._is_due(track, record, identity):
            self._create(record, track.claim)
        elif self.config.enabled and record.stranger_id == identity.person_id and track.contradiction == 0.0:
            self._add_other_side(record)
        record.latest = None
        track.own_stranger_id = self.own_id(track)

    def own_id(self, track: Track) -> str | None:
        """Return the id of the stranger created from this very track; None after a break."""
        record = self._record(track)
        return None if record.is_broken else record.stranger_id

    def _record(self, track: Track) -> StrangerRecord:
        if track.stranger is None:
            track.stranger = StrangerRecord()
        record: StrangerRecord = track.stranger
        return record

    def _is_due(self, track: Track, record: StrangerRecord, identity: Identity) -> bool:
        if record.stranger_id is not None or record.pending is not None:
            return False
        if track.contradiction < 0.0 or track.is_flat:
            return False
        if record.n_good < self.config.minimum_views or record.span_s < self.config.minimum_span_s:
            return False
        # Since the first good view, whatever came after: a head that turns away for good still gets its id.
        waited = track.last_stamp - record.first_stamp
        claim: Claim | None = track.claim
        if claim is None or waited >= self.config.patience_s:
            return waited >= self.config.patience_s
        is_unlike = all(h.log_false_match > _UNLIKE for h in claim.matches)
        is_nobody = identity.state is IdentityState.STRANGER or (is_unlike and waited >= _UNLIKE_PATIENCE_S)
        return is_nobody and claim.new_probability >= _NEW_PROBABILITY

    def _create(self, record: StrangerRecord, claim: Claim | None) -> None:
        templates = [record.store(view) for view in record.views]
        judged = self._judged
        outgoing = _longest_unseen(self._gallery.snapshot(), self.config.maximum_strangers - 1)

        def commit() -> Person:
            if outgoing:
                self._gallery.forget_strangers(outgoing)
            person = self._gallery.add_person(
                "", templates, is_stranger=True, check=partial(self._require_new, templates, judged)
            )
            self.created_ids.append(person.person_id)
            if claim is not None and record.passed_as in claim.others:  # seen beside whom it was taken for
                self._report_two(str(record.passed_as), person.person_id)
            return person

        self._commit(record, commit)

    def _require_new(self, templates: Sequence[NewTemplate], judged: Snapshot, now: Snapshot) -> None:
        """Refuse if another camera's node has just stored whom the templates show.

        ``judged`` is the gallery by which they were found to show nobody in it, or an earlier one.
        """
        vector, quality = pool(np.stack([t.embedding for t in templates]), [t.quality for t in templates])
        for person_id in now.persons.keys() - judged.persons.keys() - set(self.created_ids):
            stored = now.templates_of(person_id)
            other, other_quality = pool(np.stack([t.embedding for t in stored]), [t.quality for t in stored])
            ratios = log_likelihood_ratios(
                self._calibration, vector[None], quality, other[None], other_quality
            )
            if ratios[0, 0] > 0.0:
                raise GalleryChangedError(f"{person_id}, stored meanwhile, may be the same person")

    def _add_other_side(self, record: StrangerRecord) -> None:
        """Store this frame's view if it shows the stranger as no stored view does."""
        stranger_id, view = record.stranger_id, record.other_side(self.config.maximum_views)
        if stranger_id is None or view is None:
            return
        template = record.store(view)

        def commit() -> Person:
            person = self._gallery.add_templates(stranger_id, [template])
            record.is_broken |= self._split_in_two(person)
            return person

        self._commit(record, commit)

    def _split_in_two(self, person: Person) -> bool:
        """Split an entry that has come to show two people; once only, for who puts it together knows better.

        It is a step of the gallery's history, which can be undone.
        """
        if person.aliases or person.person_id in self._split:
            return False
        templates = self._gallery.snapshot().templates_of(person.person_id)
        second = second_person(templates, self._calibration, _TWO_PEOPLE)
        if not second:
            return False
        self._split.add(person.person_id)
        self._report_two(person.person_id, self._gallery.split(second).person_id)
        return True

    def _report_two(self, known_id: str, new_id: str) -> None:
        self.n_separated += 1
        LOGGER.info("%s was two people; the other is now %s", known_id, new_id)

    def _commit(self, record: StrangerRecord, commit: Callable[[], Person]) -> None:
        """Write to the gallery, and note the person when it is done."""
        record.pending = self._writer.submit(commit)
        self._collect(record)

    def _collect(self, record: StrangerRecord) -> None:
        """Take in a commit that has ended."""
        if record.pending is None or not record.pending.done():
            return
        pending, record.pending = record.pending, None
        try:
            record.stranger_id = pending.result().person_id
        except GalleryChangedError:
            record.take_back()  # the next views are compared with what is stored
        except GalleryError as error:
            LOGGER.warning("a stranger's views could not be stored: %s", error)
            record.take_back()

    def _take_back(self, record: StrangerRecord, identity: Identity) -> None:
        """Forget the stranger this track became, now that it bears a name of an enrolled person."""
        stranger_id, record.stranger_id = record.stranger_id, None
        if stranger_id is None or stranger_id == identity.person_id:
            return

        def commit() -> None:
            try:
                self._gallery.forget_strangers([stranger_id])
            except GalleryError as error:
                LOGGER.warning("stranger %s could not be forgotten: %s", stranger_id, error)

        self._writer.submit(commit)


def _longest_unseen(snapshot: Snapshot, limit: int) -> list[str]:
    """Return the strangers beyond ``limit``, longest unseen first."""
    strangers = [person for person in snapshot.persons.values() if person.is_stranger]
    strangers.sort(key=lambda person: person.last_seen if person.last_seen is not None else person.created)
    return [person.person_id for person in strangers[: max(len(strangers) - limit, 0)]]

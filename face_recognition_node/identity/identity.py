"""Whose face a track is: from evidence to a claim that an operator can trust.

Candidates for a track: each person of the gallery, and somebody new. With the log-likelihood ratios ``l_i``
of :mod:`person_models` and the prior ``P(new) = nu``, the rest shared evenly by the N people of the
gallery,

    P(i | track) = (1 - nu) / N e^{l_i} / (nu + (1 - nu) / N sum_j e^{l_j}).

A name is claimed when two things hold.

1. *Rarely false.* ``P(somebody else is as alike) <= alpha / (N (1 + ln L) min(n, L))``: alpha is the
   operator's ``target_false_accept_rate``, the chance that a stranger's whole track is ever named. N
   comparisons are made (Bonferroni's union bound over the enrolled people), and again as the pooled evidence
   changes: n independent views are n comparisons, but a whole track is worth no more than L, a number that
   was measured and stands in the model card. The first view spends a share of alpha, later ones the rest
   (:meth:`Calibration.log_name_limit`). A stranger's id is found again by the same rule, with the strangers
   known for N and ``strangers.false_match_rate`` for alpha. How alike different people are here is learned
   from the gallery (:mod:`cohort`). The bound through likelihood ratios alone,
   ``P(sup LR >= N / alpha) <= alpha / N`` (Ville 1939), needs no L but gives away most of the rate; the
   measured tail is as safe and names more.
2. *Clearly this one.* The posterior reaches ``minimum_probability``, which also keeps the runner-up at bay.

*Stranger* is a claim, too: nobody enrolled reaches the complement of ``minimum_probability``, and each of
them is ruled out at these odds alone. Until then it is *undecided*, at most for ``strangers.patience_s``.

A claim stands until the evidence falls well below the line (hysteresis). It is kept alive only by views that
speak for the person by themselves: what was seen long ago must not name a face that has changed since,
however slowly. A track that has had one name never takes another: it is split. Within a frame the
claims are one assignment, so that nobody is in two places.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from face_recognition_node.identity.person_models import Match, PersonModels
from face_recognition_node.tracking.assignment import cheapest_columns
from face_recognition_node.vision.faces import Candidate, FloatArray, Identity, IdentityState
from face_recognition_node.vision.geometry import covered_share

if TYPE_CHECKING:
    from face_recognition_node.config import IdentityConfig
    from face_recognition_node.gallery.snapshot import Snapshot
    from face_recognition_node.identity.calibration import Calibration
    from face_recognition_node.tracking.tracker import Track


@dataclass(slots=True)
class Claim:
    """What is remembered of a track between frames."""

    person_id: str | None = None  # whom the track is claimed to be now, or None
    former_id: str | None = None  # the enrolled person it was ever claimed to be, or None
    answered: tuple[int, int] = (-1, -1)  # versions of evidence and gallery that the matches belong to
    matches: tuple[Match, ...] = ()  # the persons it may be, highest ratio first
    # when a view last spoke for a person by itself, seconds, by person_id of whom was claimed
    supported: dict[str, float] = field(default_factory=dict)
    is_stranger: bool = False  # whether that person was a stranger when the claim was made
    new_probability: float = 0.0  # posterior that it is somebody who is not in the gallery
    # how strongly another face in the same frame was held to be a stranger, by the stranger's id: the
    # log-likelihood ratio, infinite where the stranger was created from that very face
    others: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Option:
    """A match that clears the line for a track, and the log posterior it does so with."""

    match: Match
    log_posterior: float


class IdentityResolver:
    """Gives each visible track an identity."""

    def __init__(
        self, calibration: Calibration, config: IdentityConfig, stranger_false_match_rate: float
    ) -> None:
        self.calibration, self.config = calibration, config
        self.stranger_false_match_rate = stranger_false_match_rate
        self._models = PersonModels(calibration)

    def resolve(
        self, tracks: Sequence[Track], snapshot: Snapshot, stamp: float, renew: Callable[[Track], Track]
    ) -> tuple[list[Track], list[Identity]]:
        """Return the visible tracks at this stamp, seconds, and their identities.

        ``renew`` splits a track that has to change its name (:meth:`Tracker.renew`), which it replaces.
        """
        self._models.follow(snapshot)
        visible = list(tracks)
        self._ask(visible, snapshot)
        n_strangers = sum(person.is_stranger for person in snapshot.persons.values())
        n_enrolled = len(snapshot.persons) - n_strangers
        matches = [_possible(track) for track in visible]
        posteriors = [self._posterior(found, len(snapshot.persons)) for found in matches]
        options = [
            self._options(track, found, posterior, (n_enrolled, n_strangers), snapshot, stamp)
            for track, found, posterior in zip(visible, matches, posteriors, strict=True)
        ]
        chosen = _assign(options, [track.claim.person_id for track in visible])
        identities = []
        for k, (posterior, option) in enumerate(zip(posteriors, chosen, strict=True)):
            visible[k].claim.new_probability = math.exp(posterior[None])
            visible[k] = self._take(visible[k], option, renew, snapshot)
            identities.append(self._describe(visible[k], matches[k], option, posterior, snapshot, stamp))
        self._tell_apart(visible, chosen)
        return visible, identities

    def _tell_apart(self, tracks: Sequence[Track], chosen: Sequence[_Option | None]) -> None:
        """Remember that faces of one frame are different people, for as long as tracks and strangers live.

        A track seen beside a stranger is not that stranger when the other face has gone, unless it fits
        better than the other did. An entry created from one of the tracks and the person
        claimed for the other are different.
        """
        seen = [
            (track, option)
            for track, option in zip(tracks, chosen, strict=True)
            if track.frames_unchecked == 0 and track.contradiction == 0.0 and not track.is_flat
        ]
        for (first, one), (second, other) in itertools.permutations(seen, 2):
            if one is None or not one.match.is_stranger:
                continue
            if covered_share(first.detection, second.detection) > 0.0:  # perhaps one face, found twice
                continue
            person_id = one.match.person_id
            is_own = first.own_stranger_id == person_id
            strength = math.inf if is_own else one.match.log_ratio
            held = second.claim.others
            held[person_id] = max(held.get(person_id, -math.inf), strength)
            if is_own and other is not None:
                self._models.tell_apart(person_id, other.match.person_id)

    def log_limit(self, n_enrolled: int, n_views: float = math.inf) -> float:
        """Return the largest log false match rate of a claim, with so many people enrolled."""
        return self.calibration.log_name_limit(self.config.target_false_accept_rate, n_enrolled, n_views)

    def _ask(self, tracks: Sequence[Track], snapshot: Snapshot) -> None:
        """Bring matches up to date where the evidence or the gallery has changed."""
        asking: list[Track] = []
        queries: list[FloatArray] = []
        for track in tracks:
            if track.claim is None:
                track.claim = Claim()
            if track.claim.answered != (track.evidence.version, snapshot.version):
                track.claim.answered = (track.evidence.version, snapshot.version)
                track.claim.matches = ()
                pooled = track.evidence.embedding
                if pooled is not None:
                    asking.append(track)
                    queries.append(pooled)
        if asking:
            qualities = [track.evidence.quality for track in asking]
            for track, found in zip(
                asking, self._models.rank(np.stack(queries), qualities, snapshot), strict=True
            ):
                track.claim.matches = self._without_doubles(found, snapshot)

    def _without_doubles(self, matches: tuple[Match, ...], snapshot: Snapshot) -> tuple[Match, ...]:
        """Leave out strangers who are an enrolled person, met before that person was enrolled.

        Only where the enrolled person may be named: a stranger who merely resembles somebody keeps the id.
        """
        n_enrolled = sum(not person.is_stranger for person in snapshot.persons.values())
        limit = self.log_limit(n_enrolled)
        enrolled = [h for h in matches if not h.is_stranger and h.log_false_match <= limit]
        return tuple(
            h
            for h in matches
            if not h.is_stranger
            or not any(self._models.are_one(h.person_id, e.person_id, snapshot) for e in enrolled)
        )

    def _posterior(self, matches: Sequence[Match], n_persons: int) -> dict[str | None, float]:
        """Return the natural log of each match's posterior by person_id, and of "new" under None."""
        new = math.log(self.config.new_person_prior)
        each = math.log1p(-self.config.new_person_prior) - math.log(max(n_persons, 1))
        logs: dict[str | None, float] = {h.person_id: each + h.log_ratio for h in matches}
        logs[None] = new
        highest = max(logs.values())
        total = highest + math.log(sum(math.exp(value - highest) for value in logs.values()))
        return {person_id: value - total for person_id, value in logs.items()}

    def _options(
        self, track: Track, matches: Sequence[Match], posterior: dict[str | None, float],
        counts: tuple[int, int], snapshot: Snapshot, stamp: float,
    ) -> dict[str, _Option]:  # fmt: skip
        """Return the persons that the track may be claimed to be, of so many (enrolled, strangers)."""
        claim: Claim = track.claim
        last = track.evidence.last_stamp
        if claim.person_id is not None:
            claim.person_id = snapshot.aliases.get(claim.person_id, claim.person_id)
        for former_id in claim.others.keys() & snapshot.aliases.keys():
            claim.others[snapshot.aliases[former_id]] = claim.others.pop(former_id)
        if last is None or stamp - last > self.config.claim_timeout_s or track.contradiction < 0.0:
            return {}
        if track.is_flat or track.is_ghost:  # a portrait may well be Anna's, but she is not there
            return {}
        options = {}
        timeout_s = self.config.claim_timeout_s
        n_views = track.evidence.effective_views
        name_limit = self.log_limit(counts[0], n_views)
        id_limit = self.calibration.log_name_limit(self.stranger_false_match_rate, counts[1], n_views)
        enrolled = [h for h in matches if not h.is_stranger and h.log_false_match <= name_limit]
        for match in matches:
            limit = id_limit if match.is_stranger else name_limit
            needed = math.log(self.config.minimum_probability)
            has_got_a_name = claim.is_stranger and not match.is_stranger
            if match.person_id == claim.person_id and not has_got_a_name:
                limit, needed = limit + math.log(self.config.release_factor), math.log(0.5)
            if match.log_false_match > limit:
                continue
            # One face under two names must not count against itself: the track keeps the name it has had.
            twins = [] if match.is_stranger else self._twins(match.person_id, enrolled, snapshot)
            if any(twin.person_id == claim.former_id for twin in twins):
                continue
            log_posterior = math.log(
                min(sum(math.exp(posterior[h.person_id]) for h in (match, *twins)), 1.0) or 1e-300
            )
            if (
                log_posterior >= needed
                and stamp - self._supported(track, match.person_id, snapshot) <= timeout_s
            ):
                options[match.person_id] = _Option(match, log_posterior)
        return options

    def _twins(self, person_id: str, enrolled: Sequence[Match], snapshot: Snapshot) -> list[Match]:
        """Return the other enrolled entries that show the same face as this person's."""
        return [
            h
            for h in enrolled
            if h.person_id != person_id and self._models.are_one(person_id, h.person_id, snapshot)
        ]

    def _supported(self, track: Track, person_id: str, snapshot: Snapshot) -> float:
        """Return when a view of the track last spoke for a person by itself, seconds.

        The evidence that first makes the claim counts as support.
        """
        claim: Claim = track.claim
        evidence = track.evidence
        last, latest = evidence.last_stamp, evidence.latest
        if last is None or latest is None:
            return -math.inf
        supported = claim.supported.setdefault(person_id, last)
        if (
            supported < last
            and self._models.log_ratio(latest, evidence.latest_quality, person_id, snapshot) >= 0.0
        ):
            supported = claim.supported[person_id] = last
        return supported

    def _take(
        self, track: Track, option: _Option | None, renew: Callable[[Track], Track], snapshot: Snapshot
    ) -> Track:
        """Write the decision into the track's claim, splitting a track that bore another name."""
        claim: Claim = track.claim
        claim.person_id = None if option is None else option.match.person_id
        claim.is_stranger = option is not None and option.match.is_stranger
        if option is None or option.match.is_stranger:
            return track
        former = claim.former_id
        if former is not None and snapshot.aliases.get(former, former) != claim.person_id:
            track = renew(track)
            track.claim = Claim(
                claim.person_id, None, claim.answered, claim.matches, claim.supported, others=claim.others
            )
        track.claim.former_id = claim.person_id
        return track

    def _describe(
        self, track: Track, matches: Sequence[Match], option: _Option | None,
        posterior: dict[str | None, float], snapshot: Snapshot, stamp: float,
    ) -> Identity:  # fmt: skip
        claim: Claim = track.claim
        ranked = sorted(matches, key=lambda h: -posterior[h.person_id])
        claimed = claim.person_id
        others = (
            h
            for h in ranked
            if claimed is None
            or (h.person_id != claimed and not self._models.are_one(claimed, h.person_id, snapshot))
        )
        runner_up = None
        if (second := next(others, None)) is not None:
            person = snapshot.persons[second.person_id]
            runner_up = Candidate(person.person_id, person.label, math.exp(posterior[person.person_id]))
        age = None if track.evidence.last_stamp is None else max(stamp - track.evidence.last_stamp, 0.0)
        if option is not None:
            person = snapshot.persons[option.match.person_id]
            return Identity(
                IdentityState.STRANGER if person.is_stranger else IdentityState.KNOWN,
                person.person_id, person.label, math.exp(option.log_posterior), runner_up,
                option.match.distance, age,
            )  # fmt: skip
        nobody_enrolled = math.exp(posterior[None]) + sum(
            math.exp(posterior[h.person_id]) for h in matches if h.is_stranger
        )
        is_face = track.contradiction == 0.0 and not track.is_flat and not track.is_ghost
        seen_enough = track.evidence.effective_views >= 1.5 and is_face
        # Each enrolled person is ruled out alone: among many, what speaks for one is lost in their prior.
        ruled_out = math.log((1.0 - self.config.minimum_probability) / self.config.minimum_probability)
        stranger = (
            seen_enough
            and nobody_enrolled >= self.config.minimum_probability
            and all(h.log_ratio <= ruled_out for h in matches if not h.is_stranger)
        )
        return Identity(
            IdentityState.STRANGER if stranger else IdentityState.UNDECIDED,
            probability=min(nobody_enrolled, 1.0) if stranger else 0.0,
            runner_up=runner_up,
            distance=ranked[0].distance if ranked else None,
            evidence_age=age,
        )


def _possible(track: Track) -> list[Match]:
    """Return the persons that a track may be: no stranger seen in one frame with it who fits better there."""
    claim: Claim = track.claim
    return [
        h
        for h in claim.matches
        if h.person_id == track.own_stranger_id or h.log_ratio > claim.others.get(h.person_id, -math.inf)
    ]


def _assign(options: Sequence[dict[str, _Option]], incumbents: Sequence[str | None]) -> list[_Option | None]:
    """Give each person to at most one track, so that the sum of the log posterior odds is largest.

    A track may also stay without a name. Who had the name in the last frame keeps it against an equal.
    """
    people = sorted({person_id for offered in options for person_id in offered})
    if not people:
        return [None] * len(options)
    column = {person_id: k for k, person_id in enumerate(people)}
    gain = np.zeros((len(options), len(people) + len(options)))
    gain[:, : len(people)] = -1e6
    for row, (offered, incumbent) in enumerate(zip(options, incumbents, strict=True)):
        for person_id, option in offered.items():
            h = option.match
            bonus = 2.0 if person_id == incumbent else 0.0
            gain[row, column[person_id]] = 20.0 + bonus + option.log_posterior + h.log_ratio
    chosen: list[_Option | None] = [None] * len(options)
    for row, k in enumerate(cheapest_columns(-gain).tolist()):
        if k < len(people):
            chosen[row] = options[row].get(people[k])
    return chosen

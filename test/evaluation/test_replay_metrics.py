"""Judging claims: right, wrong, late, swapped, fragmented; intervals; requirements; the page."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.common.errors import ConfigurationError, InputError
from face_recognition_node.evaluation.bootstrap import estimate, median
from face_recognition_node.evaluation.replay.replay_page import render_page
from face_recognition_node.evaluation.replay.replay_report import (
    EnrollmentOutcome,
    EpisodeReport,
    ReplayReport,
)
from face_recognition_node.evaluation.replay.requirements import AT_LEAST, AT_MOST, unmet
from face_recognition_node.evaluation.replay.track_metrics import FrameClaim, TrueTrack, follow_strangers
from face_recognition_node.vision.faces import IdentityState

KNOWN, STRANGER, UNDECIDED = IdentityState.KNOWN, IdentityState.STRANGER, IdentityState.UNDECIDED


def track(
    *claims: tuple[IdentityState, str | None], who: str = "Anna", expected: str | None = "p-a"
) -> TrueTrack:
    """Return a track of one claim every half second."""
    made = [
        FrameClaim(0.5 * i, 0.5, state, person, person or "", expected)
        for i, (state, person) in enumerate(claims)
    ]
    return TrueTrack("clip", who, tuple(made))


def report_of(*tracks: TrueTrack) -> ReplayReport:
    return ReplayReport("test", "a test", {}, (EpisodeReport("episode", (), tracks),))


def test_a_track_named_late_and_then_rightly() -> None:
    outcome = track((UNDECIDED, None), (UNDECIDED, None), (KNOWN, "p-a"), (KNOWN, "p-a"))
    assert outcome.is_identified
    assert outcome.to_dict()["is_named_at_end"]
    assert outcome.seconds_to_name == 1.0
    assert outcome.named_share == 0.5
    assert (outcome.wrong_seconds, outcome.swaps, outcome.is_false_positive) == (0, 0, False)


def test_one_wrong_frame_spoils_the_track() -> None:
    outcome = track((KNOWN, "p-a"), (KNOWN, "p-b"), (UNDECIDED, None), (KNOWN, "p-a"))
    assert not outcome.is_identified
    assert (len(outcome.right), len(outcome.wrong)) == (2, 1)
    assert outcome.wrong_seconds == 0.5
    assert outcome.wrong_names == ["p-b"]
    assert outcome.swaps == 2


def test_a_name_for_nobody_enrolled_is_a_false_positive() -> None:
    outcome = track((STRANGER, "stranger-1"), (KNOWN, "p-a"), who="Bob", expected=None)
    assert outcome.is_false_positive
    assert not outcome.is_enrolled
    assert math.isnan(outcome.named_share)
    assert outcome.stranger_ids == {"stranger-1": 1}


def test_time_counts_from_the_enrollment_when_it_happens_in_the_track() -> None:
    before = [FrameClaim(t, 0.5, UNDECIDED) for t in (0.0, 0.5)]
    after = [FrameClaim(t, 0.5, KNOWN if t > 1 else UNDECIDED, "p-a", "Anna", "p-a") for t in (1.0, 1.5, 2.0)]
    outcome = TrueTrack("clip", "Anna", tuple(before + after))
    assert outcome.seconds_to_name == 0.5
    assert (len(outcome.claims), len(outcome.enrolled), len(outcome.right)) == (5, 3, 2)


def test_somebody_enrolled_is_no_stranger() -> None:
    """Before the enrollment it is the truth, after it a mistake, be a name said later or not."""
    before = [FrameClaim(0.0, 0.5, STRANGER, "stranger-1")]
    states = [(0.5, UNDECIDED), (1.0, STRANGER), (1.5, STRANGER), (2.0, KNOWN)]
    after = [FrameClaim(t, 0.5, state, "p-a" if state is KNOWN else None, "", "p-a") for t, state in states]
    report = report_of(TrueTrack("clip", "Anna", tuple(before + after)))
    assert report.stranger_frames == 2
    assert unmet(report, {"stranger_frames": 0}) == ["stranger_frames is 2.000, expected at most 0"]


def test_an_empty_track_is_judged_too() -> None:
    outcome = track()
    figures = outcome.to_dict()
    names = ("frames", "is_identified", "is_named_at_end", "seconds_to_name", "named_share")
    assert [figures[name] for name in names] == [0, False, False, None, None]


@given(
    st.lists(st.tuples(st.sampled_from(list(IdentityState)), st.sampled_from([None, "p-a", "p-b", "p-c"])))
)
def test_counts_agree_with_a_slow_count(claims: list[tuple[IdentityState, str | None]]) -> None:
    outcome = track(*claims)
    right = wrong = swaps = 0
    last: str | None = None
    has_named = False
    for state, person in claims:
        if state is KNOWN:
            right += person == "p-a"
            wrong += person != "p-a"
            swaps += has_named and person != last
            last, has_named = person, True
    assert (len(outcome.right), len(outcome.wrong), outcome.swaps) == (right, wrong, swaps)
    assert outcome.wrong_seconds == pytest.approx(0.5 * wrong)


def test_strangers_are_followed_over_recordings() -> None:
    first = track((UNDECIDED, None), (STRANGER, "s-1"), (STRANGER, "s-1"), who="Bob", expected=None)
    again = track((STRANGER, "s-1"), (STRANGER, "s-2"), who="Bob", expected=None)
    other = track((STRANGER, "s-2"), who="Eve", expected=None)
    bob, eve = follow_strangers([first, again, other])
    assert (bob.who, bob.frames, bob.fragments) == ("Bob", 5, 2)
    assert bob.main_id_share == pytest.approx(3 / 5)
    assert bob.shared_ids == eve.shared_ids == ("s-2",)
    assert (bob.id_consistency, eve.id_consistency) == (0.75, 1.0)
    assert report_of(first, again, other).shared_ids == 1
    assert follow_strangers([]) == []


def test_rates_of_a_report() -> None:
    good = track((KNOWN, "p-a"))
    bad = track((KNOWN, "p-b"), who="Carl", expected="p-c")
    stranger = track((STRANGER, "s-1"), who="Bob", expected=None)
    print_on_shirt = track((KNOWN, "p-a"), who="", expected=None)
    report = report_of(good, bad, stranger, print_on_shirt)
    assert report.identification_rate.value == 0.5
    assert report.false_positive_rate.value == 0.0
    assert report.wrong_seconds == 1.0
    assert report.named_share == {"Anna": 1.0, "Carl": 0.0}
    assert [len(one.wrong) for one in report.tracks if not one.who] == [1]
    assert report.to_dict()["identification_rate"]["count"] == 2
    assert "(no person)" in str(report)


def test_an_enrolled_person_who_was_never_found_counts_as_not_identified() -> None:
    unseen = TrueTrack("clip", "Anna", ())
    enrollment = EnrollmentOutcome("Anna", "clip", True, "done", 3, {}, 1.0)
    report = ReplayReport("test", "", {}, (EpisodeReport("e", (enrollment,), (unseen,)),))
    assert (report.identification_rate.value, report.identification_rate.count) == (0.0, 1)
    assert unmet(report, {"named_share": {"Anna": 0.5}})


def test_requirements_are_held_against_the_figures() -> None:
    report = report_of(
        track((KNOWN, "p-a")), track((STRANGER, "s-1"), (UNDECIDED, None), who="Bob", expected=None)
    )
    assert unmet(report, {"identification_rate": 1, "wrong_seconds": 0, "named_share": {"Anna": 1}}) == []
    missed = unmet(report, {"stranger_share": 0.9, "named_share": {"Carl": 0.1}, "seconds_to_name": -1})
    assert len(missed) == 3
    assert "stranger_share is 0.500" in missed[0]
    with pytest.raises(ConfigurationError, match="no such figure"):
        unmet(report, {"speed": 1})


@pytest.mark.parametrize("figure", sorted([*AT_LEAST, *AT_MOST]))
def test_what_was_not_measured_is_missed(figure: str) -> None:
    """A replay in which no face was found makes no mistake, and meets no requirement by that."""
    easy = 1e-9 if figure in AT_LEAST else 1e9
    unseen = TrueTrack("clip", "Bob", ())
    for report in (report_of(), report_of(unseen)):
        (missed,) = unmet(report, {figure: easy})
        assert missed.split(",")[0] in (f"{figure} is nan", f"{figure} is 0.000")


def test_a_stranger_without_an_id_is_no_consistent_one() -> None:
    with_id = track((STRANGER, "s-1"), who="Bob", expected=None)
    without = track((UNDECIDED, None), who="Eve", expected=None)
    unseen = track(who="Dan", expected=None)
    assert unmet(report_of(with_id), {"id_consistency": 0.9, "stranger_share": 0.9}) == []
    for other in (without, unseen):
        missed = unmet(report_of(with_id, other), {"id_consistency": 0.9, "stranger_share": 0.9})
        assert [sentence.split(",")[0] for sentence in missed] == [
            "id_consistency is 0.000",
            "stranger_share is 0.000",
        ]
    assert unmet(report_of(without), {"shared_ids": 0}), "nobody had an id that could be shared"


def test_the_page_shows_every_track_and_escapes_names() -> None:
    report = report_of(track((KNOWN, "p-a"), (KNOWN, "<b>")), track(who="Nobody seen"))
    page = render_page(report, ["it was <late>"])
    assert page.count("<svg") == 1
    assert "never found" in page
    assert "&lt;b&gt;" in page
    assert "it was &lt;late&gt;" in page
    assert "<b>" not in page


def test_intervals_hold_the_value_and_say_the_same_twice(rng: np.random.Generator) -> None:
    values = (rng.random(60) < 0.8).astype(float)
    first, again = estimate(values), estimate(values)
    assert first == again
    assert first.low <= first.value <= first.high
    # A normal approximation of the same interval, as an independent check.
    half = 1.96 * math.sqrt(first.value * (1 - first.value) / 60)
    assert first.low == pytest.approx(first.value - half, abs=0.03)
    assert first.high == pytest.approx(first.value + half, abs=0.03)


def test_equal_values_get_the_exact_interval() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    reference = scipy_stats.binomtest(20, 20).proportion_ci(0.95, method="exact")
    assert estimate([1.0] * 20).low == pytest.approx(reference.low)
    assert estimate([0.0] * 20).high == pytest.approx(1 - reference.low)
    assert estimate([0.3] * 5).low == 0.3
    # Five tracks of each of twenty people are no more than twenty independent trials.
    people = [index % 20 for index in range(100)]
    assert estimate([1.0] * 100, people).low == pytest.approx(reference.low)


def test_one_person_alone_gives_no_interval() -> None:
    alone = estimate([1.0, 0.0, 1.0, 0.0], ["Anna"] * 4)
    assert alone.value == 0.5
    assert math.isnan(alone.low)
    assert "no interval" in str(alone)
    assert alone.to_dict() == {"value": 0.5, "low": None, "high": None, "count": 4}
    for equal in (estimate([0.3]), estimate([0.3] * 4, ["Anna"] * 4), estimate([0.3] * 2, "AA", median)):
        assert (equal.value, math.isnan(equal.low)) == (0.3, True), "an interval without width is none"
    assert estimate([1.0] * 4, ["Anna"] * 4).low == pytest.approx(0.025), "a share of one has the exact one"


def test_clusters_widen_the_interval() -> None:
    values = [1.0] * 50 + [0.0] * 10
    alone = estimate(values)
    together = estimate(values, clusters=[index // 10 for index in range(60)])
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    with pytest.raises(InputError, match="clusters"):
        estimate(values, clusters=["one"])


def test_nothing_measured_is_said() -> None:
    nothing = estimate([])
    assert str(nothing) == "none measured"
    assert nothing.to_dict()["value"] is None

"""The parts of an enrollment: coverage, hints, view checks, selection of the face, kept views."""

from __future__ import annotations

import numpy as np
import pytest
from face_world import IMAGE_SIZE, FaceWorld, face, frame, made_up_calibration, stamps
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.common.errors import ConfigurationError, InputError
from face_recognition_node.config import EnrollmentConfig
from face_recognition_node.enrollment.coverage import DIRECTIONS, PoseCoverage, directions
from face_recognition_node.enrollment.goal import (
    EnrollmentGoal,
    MostCentral,
    Outcome,
    Region,
    Rejection,
    Track,
)
from face_recognition_node.enrollment.hints import FOR_MISSING_POSE, HintChooser, cut_off_hint
from face_recognition_node.enrollment.kept_views import KeptViews
from face_recognition_node.enrollment.target_selection import TargetSelector
from face_recognition_node.enrollment.view_checks import check_view, outside_share
from face_recognition_node.identity.comparison import compare_views
from face_recognition_node.vision.faces import Detection, HeadPose
from face_recognition_node.vision.geometry import covered_share, overlap
from face_recognition_node.vision.rotation import rotate_box

CONFIG = EnrollmentConfig()


# Directions and what is said about them.


def test_directions_are_those_of_the_image() -> None:
    assert directions(HeadPose(0, 0, 0)) == ("front",)
    assert directions(HeadPose(30, 0, 0)) == ("right",)  # HeadPose: yaw > 0 looks to the image's right
    assert directions(HeadPose(-30, 0, 0)) == ("left",)
    assert directions(HeadPose(-30, 20, 0)) == ("left", "up")
    assert directions(HeadPose(0, -20, 0)) == ("front", "down")


def test_a_person_turns_to_the_other_side_than_the_image_shows() -> None:
    """In an image that is not mirrored, the person's own left is on the right."""
    assert "to your left" in FOR_MISSING_POSE["right"]
    assert "to your right" in FOR_MISSING_POSE["left"]
    coverage = PoseCoverage(front=True, left=True)
    assert HintChooser().choose(0.0, coverage, DIRECTIONS) == "Please turn your head a little to your left."


@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-60, 60)), max_size=12))
@pytest.mark.slow
def test_coverage_is_what_a_slow_loop_finds(angles: list[tuple[float, float]]) -> None:
    poses = [HeadPose(yaw, pitch, 0.0) for yaw, pitch in angles]
    coverage = PoseCoverage.of(poses)
    for direction in DIRECTIONS:
        assert getattr(coverage, direction) == any(direction in directions(pose) for pose in poses)
    assert set(coverage.missing()) == {d for d in DIRECTIONS if not getattr(coverage, d)}
    assert not any(coverage.adds(pose) for pose in poses)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-40, 100, 60, 220), "to your left"),  # cut at the image's left edge, which is the person's right
        ((600, 100, 700, 220), "to your right"),
        ((300, -50, 380, 60), "back"),
        ((300, 440, 380, 540), "back"),
    ],
)
def test_a_face_cut_by_the_border_is_led_back(box: tuple[float, ...], expected: str) -> None:
    view = FaceWorld().view(0.0)
    detection = Detection(box, 1.0, view.detection.landmarks_xy)  # type: ignore[arg-type]
    assert expected in cut_off_hint(detection, IMAGE_SIZE)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_a_cut_face_is_led_back_whichever_way_the_camera_hangs(rotate: int) -> None:
    """The face is cut by the left edge of the upright picture."""
    upright = np.array([-30.0, 100.0, 70.0, 220.0], np.float32)
    raw_size = IMAGE_SIZE if rotate in (0, 180) else IMAGE_SIZE[::-1]
    box = rotate_box(upright, (360 - rotate) % 360, IMAGE_SIZE)
    detection = Detection(box, 1.0, FaceWorld().view(0.0).detection.landmarks_xy)
    assert cut_off_hint(detection, raw_size, rotate) == "Please step a little to your left."


def test_a_hint_stays_until_it_was_said_or_done() -> None:
    hints = HintChooser()
    nothing = PoseCoverage()
    assert "straight" in hints.choose(0.0, nothing, DIRECTIONS)
    for stamp in (0.1, 0.2, 0.3):
        hints.note(stamp, Rejection.TOO_SMALL)
    assert "straight" in hints.choose(0.3, nothing, DIRECTIONS), "the robot is still speaking"
    hints.note(1.6, Rejection.TOO_SMALL)
    assert "closer" in hints.choose(1.6, nothing, DIRECTIONS)
    done = HintChooser()
    assert "straight" in done.choose(0.0, nothing, DIRECTIONS)
    assert "straight" not in done.choose(0.2, PoseCoverage(front=True), DIRECTIONS), "it has been done"


def test_a_single_bad_view_among_good_ones_is_not_talked_about() -> None:
    hints = HintChooser()
    for stamp in (0.0, 0.1, 0.2):
        hints.note(stamp, None)
    hints.note(0.3, Rejection.BLURRED)
    assert "still" not in hints.choose(0.3, PoseCoverage(), DIRECTIONS)


def test_every_fault_of_a_person_has_something_to_say() -> None:
    for reason in set(Rejection) - {Rejection.TOO_SIMILAR, Rejection.NO_EMBEDDING, Rejection.CUT_OFF}:
        hints = HintChooser()
        hints.note(0.0, reason)
        assert hints.choose(0.0, PoseCoverage(), ()), reason


# Single views.

BAD_VIEWS = {
    Rejection.LOW_SCORE: {"score": 0.5},
    Rejection.CUT_OFF: {"center": (10.0, 240.0)},
    Rejection.TOO_SMALL: {"size": 20.0},
    Rejection.TOO_DARK: {"exposure": 0.2, "crop_value": 5},
    Rejection.TOO_BRIGHT: {"exposure": 0.2, "crop_value": 254},
    Rejection.BLURRED: {"sharpness": 0.2},
    Rejection.TURNED_TOO_FAR: {"yaw": -80.0},
    Rejection.POOR_LANDMARKS: {"landmarks": 0.1},
    Rejection.NO_EMBEDDING: {"has_embedding": False},
}


@pytest.mark.parametrize("reason", BAD_VIEWS, ids=lambda reason: reason.value)
def test_each_fault_is_named(reason: Rejection) -> None:
    view = FaceWorld().view(0.0, **BAD_VIEWS[reason])  # type: ignore[arg-type]
    assert check_view(face(view), (), IMAGE_SIZE, CONFIG) is reason


def test_a_good_view_has_no_fault_and_up_or_down_counts_as_turned() -> None:
    world = FaceWorld()
    assert check_view(face(world.view(0.0)), (), IMAGE_SIZE, CONFIG) is None
    assert check_view(face(world.view(0.0, pitch=60)), (), IMAGE_SIZE, CONFIG) is Rejection.TURNED_TOO_FAR


def test_a_face_behind_another_is_occluded() -> None:
    world = FaceWorld()
    behind, ahead = face(world.view(0.0), 1), face(world.view(0.0, 1, center=(350.0, 240.0)), 2)
    assert check_view(behind, (ahead,), IMAGE_SIZE, CONFIG) is Rejection.POOR_LANDMARKS
    beside = face(world.view(0.0, 1, center=(450.0, 240.0)), 2)
    assert check_view(behind, (beside,), IMAGE_SIZE, CONFIG) is None


@given(x=st.floats(-100, 700), y=st.floats(-100, 600), dx=st.floats(-80, 80), size=st.floats(10, 200))
@pytest.mark.slow
def test_shares_agree_with_a_raster(x: float, y: float, dx: float, size: float) -> None:
    world = FaceWorld()
    one = world.view(0.0, center=(x, y), size=size).detection
    two = world.view(0.0, center=(x + dx, y), size=90).detection
    assert overlap(one, one) == pytest.approx(1.0)
    assert overlap(one, two) == pytest.approx(overlap(two, one))
    assert 0.0 <= covered_share(one, two) <= 1.0 + 1e-6
    steps = [(k + 0.5) / 60 for k in range(60)]
    x1, y1 = one.box_xyxy[:2].tolist()
    inside = sum(0 <= x1 + u * size <= 640 and 0 <= y1 + v * size <= 480 for u in steps for v in steps)
    assert outside_share(one, IMAGE_SIZE) == pytest.approx(1 - inside / 3600, abs=0.04)


# Which face.


def choose(selection: object, *faces_by_frame: list) -> int | Outcome | None:  # type: ignore[type-arg]
    selector = TargetSelector(selection, CONFIG)  # type: ignore[arg-type]
    chosen: int | Outcome | None = None
    for stamp, faces in zip(stamps(len(faces_by_frame) / 10), faces_by_frame, strict=True):
        chosen = selector.observe(frame(stamp, faces))
        if chosen is not None:
            return chosen
    return chosen


def test_near_and_central_wins_over_far_and_over_aside() -> None:
    world = FaceWorld()
    near, far = world.view(0.0, center=(250, 240), size=110), world.view(0.0, center=(320, 240), size=60)
    assert choose(MostCentral(), *[[face(far, 1), face(near, 2)]] * 10) == 2
    aside = world.view(0.0, center=(600, 240), size=95)
    central = world.view(0.0, center=(320, 240), size=90)
    assert choose(MostCentral(), *[[face(aside, 1), face(central, 2)]] * 10) == 2


def test_the_face_that_looks_at_the_robot_wins() -> None:
    world = FaceWorld()
    away = world.view(0.0, center=(270, 240), frontality=0.2)
    towards = world.view(0.0, center=(370, 240))
    assert choose(MostCentral(), *[[face(away, 1), face(towards, 2)]] * 10) == 2


def test_two_equal_faces_are_ambiguous_within_two_seconds() -> None:
    world = FaceWorld()
    pair = [face(world.view(0.0, center=(220, 240)), 1), face(world.view(0.0, 1, center=(420, 240)), 2)]
    assert choose(MostCentral(), *[pair] * 20) is Outcome.AMBIGUOUS_FACE


def test_something_taken_for_a_face_now_and_then_is_not_chosen() -> None:
    world = FaceWorld()
    person, print_on_shirt = face(world.view(0.0), 1), face(world.view(0.0, 1, size=160), 2)
    assert choose(MostCentral(), [person, print_on_shirt], *[[person]] * 9) == 1
    weak = face(world.view(0.0, 1, size=160, score=0.6), 2)
    assert choose(MostCentral(), *[[person, weak]] * 10) == 1


def test_a_region_leaves_out_the_rest() -> None:
    world = FaceWorld()
    left, right = face(world.view(0.0, center=(150, 240), size=60), 1), face(world.view(0.0, 1), 2)
    assert choose(Region((0.0, 0.0, 0.45, 1.0)), *[[left, right]] * 10) == 1
    selector = TargetSelector(Region((0.0, 0.0, 0.1, 0.1)), CONFIG)
    for stamp in stamps(2.3):
        outcome = selector.observe(frame(stamp, [left, right]))
    assert outcome is Outcome.NO_FACE
    assert "2 elsewhere" in selector.explain(outcome)


def test_a_track_is_taken_at_once_or_reported_missing() -> None:
    world = FaceWorld()
    assert choose(Track(7), [face(world.view(0.0), 7)]) == 7
    assert choose(Track(7), *[[face(world.view(0.0), 6)]] * 25) is Outcome.NO_SUCH_TRACK


def test_nobody_at_all() -> None:
    assert choose(MostCentral(), *[[]] * 25) is Outcome.NO_FACE
    assert TargetSelector(MostCentral(), CONFIG).conclude() is Outcome.NO_FACE


# Views that are kept.


def test_the_same_look_is_kept_once_and_a_better_one_takes_its_place() -> None:
    world = FaceWorld(scatter=0.0)
    kept = KeptViews(5, CONFIG)
    assert kept.offer(world.view(0.0, overall=0.7))
    assert not kept.offer(world.view(0.1, overall=0.7))
    assert not kept.offer(world.view(0.2, overall=0.95))
    assert [view.quality.overall for view in kept] == [0.95]


def test_places_wait_for_missing_poses_only_for_a_while() -> None:
    world = FaceWorld(scatter=1.0)  # every view looks different
    kept = KeptViews(6, CONFIG)
    accepted = [kept.offer(world.view(stamp)) for stamp in stamps(1.0)]
    assert sum(accepted) == 3
    assert kept.offer(world.view(1.0, yaw=30))
    assert kept.offer(world.view(1.1, yaw=-30))
    for stamp in stamps(2.0, start=1.2):
        kept.offer(world.view(stamp))
    assert kept.is_complete


def test_self_consistency_is_the_mean_of_all_pairs() -> None:
    world = FaceWorld(scatter=0.5)
    kept = KeptViews(8, CONFIG)
    assert kept.self_consistency() is None
    kept.offer(world.view(0.0))
    assert kept.self_consistency() is None
    for stamp, yaw in ((0.5, 30), (1.0, -30), (4.0, 0)):
        kept.offer(world.view(stamp, yaw=yaw))
    vectors = [view.embedding for view in kept]
    pairs = [float(a @ b) for i, a in enumerate(vectors) for b in vectors[:i]]  # type: ignore[operator]
    assert kept.self_consistency() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_a_view_without_an_embedding_cannot_be_compared() -> None:
    world = FaceWorld()
    with pytest.raises(InputError, match="embed_all"):
        compare_views(made_up_calibration(), [world.view(0.0, has_embedding=False)], [world.view(0.0)])


# Goals and parameters.


def test_goals_out_of_bounds_are_refused() -> None:
    for goal in (
        {"name": "x" * 201}, {"name": "a\nb"}, {"name": "A", "wanted_views": -1},
        {"name": "A", "timeout_s": float("nan")}, {"name": "A", "minimum_views": 1000},
    ):  # fmt: skip
        with pytest.raises(InputError, match="expected"):
            EnrollmentGoal(**goal)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="region"):
        Region((0.5, 0.0, 0.4, 1.0))
    with pytest.raises(ConfigurationError, match="at least"):
        EnrollmentConfig(wanted_views=0)
    with pytest.raises(
        ConfigurationError, match=r"minimum_views: expected at most wanted_views \(4\), got 9"
    ):
        EnrollmentConfig(wanted_views=4, minimum_views=9)


def test_the_fewest_views_do_not_wait_for_other_poses() -> None:
    world = FaceWorld(scatter=0.6)
    waits, goes_on = KeptViews(3, CONFIG), KeptViews(3, CONFIG, minimum=3)
    for n in range(15):
        view = world.view(0.1 * n)
        waits.offer(view)
        goes_on.offer(view)
    assert len(waits) < len(goes_on) == 3

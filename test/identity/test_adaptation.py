"""Adaptation: learns a new look of a certain person, and under no circumstances somebody else's face."""

from __future__ import annotations

import math

import numpy as np
import pytest
from face_world import FaceWorld, empty_gallery, face, frame, made_up_calibration, unit
from identity_desk import between

from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.config import AdaptationConfig
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, Provenance, SessionKind
from face_recognition_node.identity.adaptation import Adapter, most_redundant
from face_recognition_node.identity.adaptation_review import review, templates_of_two
from face_recognition_node.vision.faces import FloatArray, HeadPose, Identity, IdentityState

CALIBRATION = made_up_calibration()  # 16 (s - 0.3): certain (7) from 0.74 on, learnable (5) from 0.61 on


@pytest.fixture
def world() -> FaceWorld:
    return FaceWorld(scatter=0.1)


def look(world: FaceWorld, similarity: float, towards: int, noise: float = 0.05) -> FloatArray:
    """Return an embedding of person 0 of this cosine to the axis, the rest of it along another axis."""
    direct = np.float32(similarity) * world.axis(0)
    aside = np.float32(math.sqrt(1 - similarity**2)) * world.axis(towards)
    return unit(direct + aside + np.float32(noise) * unit(world.rng.normal(size=64).astype(np.float32)))


def show(
    adapter: Adapter,
    world: FaceWorld,
    person_id: str,
    embeddings: list[FloatArray],
    start: float = 0.0,
    *,
    probability: float = 0.999,
    state: IdentityState = IdentityState.KNOWN,
    track_id: int = 1,
    flatness: str = "unverified",
    **quality: float,
) -> float:
    """Show views of one track at 10 Hz, always claimed to be this person; return the next stamp."""
    identity = Identity(state, person_id, "Anna", probability)
    for k, embedding in enumerate(embeddings):
        stamp = start + k / 10
        seen = face(world.view(stamp, embedding=embedding, **quality), track_id, identity)
        adapter.observe(frame(stamp, [type(seen)(track_id, seen.view, identity, None, flatness)]))
    return start + len(embeddings) / 10


def usual(world: FaceWorld, n: int = 15) -> list[FloatArray]:
    return [world.embedding(0) for _ in range(n)]


def with_hat(world: FaceWorld, n: int = 3, towards: int = 20, similarity: float = 0.7) -> list[FloatArray]:
    return [look(world, similarity, towards) for _ in range(n)]


def adapted(gallery: Gallery, person_id: str) -> list[FloatArray]:
    templates = gallery.snapshot().templates_of(person_id)
    return [t.embedding for t in templates if t.provenance is Provenance.ADAPTED]


@pytest.fixture
def anna(gallery: Gallery, world: FaceWorld) -> str:
    return gallery.add_person("Anna", world.templates(0)).person_id


def test_a_new_look_of_a_certain_person_is_learned(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    adapter = Adapter(gallery, CALIBRATION)
    hat = with_hat(world)
    t = show(adapter, world, anna, usual(world) + hat)
    assert not adapted(gallery, anna), "on probation until she looks as usual again"
    show(adapter, world, anna, usual(world, 5), t)
    learned = adapted(gallery, anna)
    assert len(learned) == 1
    assert max(float(learned[0] @ view) for view in hat) == pytest.approx(1.0, abs=1e-5)
    assert adapter.reports[-1].action == "added"
    precisions = [t.precision for t in gallery.snapshot().templates_of(anna)]
    assert precisions.count("fp16") == 1, "of what was learned, the arithmetic of its view is recorded"
    assert gallery.rollback_adaptation() == 1
    assert not adapted(gallery, anna)


def test_a_new_look_that_stays_is_learned_in_a_later_track(
    gallery: Gallery, world: FaceWorld, anna: str
) -> None:
    """With glasses on from the start the track's usual likeness is lower, and steady."""
    adapter = Adapter(gallery, CALIBRATION)
    show(adapter, world, anna, with_hat(world, 40, similarity=0.78))
    assert len(adapted(gallery, anna)) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seconds", [20.0, 60.0])
def test_a_slow_morph_into_a_stranger_does_not_drag_the_templates_along(seed: int, seconds: float) -> None:
    world = FaceWorld(seed, scatter=0.1)
    with empty_gallery() as gallery:
        anna = gallery.add_person("Anna", world.templates(0)).person_id
        adapter = Adapter(gallery, CALIBRATION)
        angles = np.linspace(0, np.pi / 2, round(seconds * 10))
        # The resolver is fooled to the very end: every view is claimed to be Anna with certainty.
        show(adapter, world, anna, [look(world, float(np.cos(a)), 5, noise=0.15) for a in angles])
        stranger = world.axis(5)
        enrolled = gallery.snapshot().search(stranger[None])[0][0].similarity
        assert all(float(template @ stranger) < 0.45 for template in adapted(gallery, anna))
        assert enrolled < 0.45, "the stranger must stay as unlike Anna as before"


def test_a_swap_to_another_face_teaches_nothing(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    adapter = Adapter(gallery, CALIBRATION)
    other = [look(world, 0.45, 7) for _ in range(30)]  # a lookalike in the doubtful band
    show(adapter, world, anna, usual(world) + other + usual(world))
    assert not adapted(gallery, anna)


def test_what_was_learned_vouches_for_nothing(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    """Views that match an adapted template perfectly but no enrolled one are not learned from."""
    drifted = NewTemplate(look(world, 0.3, 9, 0.0), 0.9, HeadPose(0, 0, 0), Provenance.ADAPTED)
    gallery.add_templates(anna, [drifted])
    version_of_drifted = len(adapted(gallery, anna))
    adapter = Adapter(gallery, CALIBRATION)
    views = [look(world, 0.3, 9, 0.4) for _ in range(60)]
    show(adapter, world, anna, views)
    assert len(adapted(gallery, anna)) == version_of_drifted


@pytest.mark.parametrize(
    "spoiled",
    [
        {"probability": 0.95},
        {"state": IdentityState.UNDECIDED},
        {"state": IdentityState.STRANGER},
        {"overall": 0.4},
        {"flatness": "flat"},
    ],
    ids=str,
)
def test_doubtful_tracks_and_views_teach_nothing(
    gallery: Gallery, world: FaceWorld, anna: str, spoiled: dict[str, object]
) -> None:
    adapter = Adapter(gallery, CALIBRATION)
    show(adapter, world, anna, usual(world) + with_hat(world) + usual(world), **spoiled)  # type: ignore[arg-type]
    assert not adapted(gallery, anna)


def test_a_track_that_ends_in_the_new_look_teaches_nothing(
    gallery: Gallery, world: FaceWorld, anna: str
) -> None:
    adapter = Adapter(gallery, CALIBRATION)
    t = show(adapter, world, anna, usual(world) + with_hat(world))
    show(adapter, world, anna, usual(world, 3), t + 5.0, track_id=2)
    assert not adapted(gallery, anna)


def test_a_short_track_teaches_nothing(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    adapter = Adapter(gallery, CALIBRATION)
    show(adapter, world, anna, usual(world, 4) + with_hat(world) + usual(world, 4))
    assert not adapted(gallery, anna)


def test_a_view_like_somebody_else_is_refused_and_reported(
    gallery: Gallery, world: FaceWorld, anna: str
) -> None:
    gallery.add_person("Bea", world.templates(20))
    adapter = Adapter(gallery, CALIBRATION)
    show(adapter, world, anna, usual(world) + with_hat(world, towards=20) + usual(world))
    assert not adapted(gallery, anna)
    assert {report.reason for report in adapter.reports} == {"also like somebody else"}


def test_off_in_events_by_default(gallery: Gallery, world: FaceWorld) -> None:
    gallery.set_session("cup", SessionKind.EVENT)
    anna = gallery.add_person("Anna", world.templates(0)).person_id
    views = usual(world) + with_hat(world) + usual(world)
    show(Adapter(gallery, CALIBRATION), world, anna, views)
    assert not adapted(gallery, anna)
    show(Adapter(gallery, CALIBRATION, AdaptationConfig(enabled=False, in_events=True)), world, anna, views)
    assert not adapted(gallery, anna)
    show(Adapter(gallery, CALIBRATION, AdaptationConfig(in_events=True)), world, anna, views)
    assert len(adapted(gallery, anna)) == 1


def test_there_are_never_more_than_k_and_the_most_different_stay(
    gallery: Gallery, world: FaceWorld, anna: str
) -> None:
    adapter = Adapter(gallery, CALIBRATION, AdaptationConfig(maximum_templates=3, interval_s=0.0))
    t = 0.0
    for towards in range(20, 30):
        t = show(
            adapter, world, anna, usual(world, 12) + with_hat(world, towards=towards) + usual(world, 6), t
        )
        assert len(adapted(gallery, anna)) <= 3
    vectors = np.stack(adapted(gallery, anna))
    assert len(vectors) == 3
    among = vectors @ vectors.T - np.eye(3)
    assert among.max() < 0.8
    assert gallery.snapshot().persons[anna].n_enrolled == 4


def test_the_most_redundant_is_what_a_slow_loop_finds(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    new = [
        NewTemplate(look(world, s, k, 0.2), 0.9, HeadPose(0, 0, 0), Provenance.ADAPTED)
        for s, k in ((0.7, 20), (0.7, 21), (0.72, 20), (0.9, 22))
    ]
    gallery.add_templates(anna, new)
    templates = gallery.snapshot().templates_of(anna)
    learned = [t for t in templates if t.provenance is Provenance.ADAPTED]
    fixed = [t for t in templates if t.provenance is not Provenance.ADAPTED]
    view = world.view(0.0, embedding=look(world, 0.7, 30))
    redundancy = {
        t.template_id: max(
            [float(t.embedding @ u.embedding) for u in templates if u is not t]
            + [float(t.embedding @ view.embedding)]  # type: ignore[operator]
        )
        for t in learned
    }
    found = most_redundant(learned, fixed, view)
    assert found is not None
    assert found.template_id == max(redundancy, key=lambda key: redundancy[key])
    repeated = world.view(0.0, embedding=learned[1].embedding)
    assert most_redundant([learned[1]], fixed, repeated) is None, "the view adds nothing to what there is"


def test_outliers_and_conflicts_are_set_aside_and_reported(
    gallery: Gallery, world: FaceWorld, anna: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="face_recognition_node")
    fine, outlier, conflict = (
        NewTemplate(e, 0.9, HeadPose(0, 0, 0), Provenance.ADAPTED)
        for e in (look(world, 0.7, 20, 0), look(world, 0.2, 21, 0), look(world, 0.6, 10, 0))
    )
    gallery.add_templates(anna, [fine, outlier, conflict])
    bea = gallery.add_person("Bea", world.templates(10)).person_id
    issues = review(gallery.snapshot(), CALIBRATION)
    assert [issue.person_id for issue in issues] == [anna, anna]
    assert "enrolled views" in issues[0].reason
    assert bea in issues[1].reason
    adapter = Adapter(gallery, CALIBRATION)
    adapter.observe(frame(0.0))
    assert [report.action for report in adapter.reports] == ["set_aside", "set_aside"]
    assert anna in caplog.text
    assert "Anna" not in caplog.text, "ids in the log, names on the wire"
    assert "Bea" not in caplog.text
    aside = [t for t in gallery.snapshot().templates_of(anna) if t.is_set_aside]
    assert len(aside) == 2
    assert not review(gallery.snapshot(), CALIBRATION)


def test_enrolled_templates_are_never_set_aside(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    gallery.add_templates(anna, world.templates(1))
    gallery.add_person("Bea", world.templates(1))
    assert review(gallery.snapshot(), CALIBRATION) == []


def test_a_gallery_that_cannot_be_written_does_not_stop_recognition(
    gallery: Gallery,
    world: FaceWorld,
    anna: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise GalleryUnavailableError("the disk is full")

    monkeypatch.setattr(gallery, "learn", full)
    show(Adapter(gallery, CALIBRATION), world, anna, usual(world) + with_hat(world) + usual(world))
    assert "the disk is full" in caplog.text
    assert not adapted(gallery, anna)


def test_writing_in_the_background_gives_the_same(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    writer = BackgroundWriter()
    adapter = Adapter(gallery, CALIBRATION, writer=writer)
    show(adapter, world, anna, usual(world) + with_hat(world) + usual(world))
    writer.close()
    assert len(adapted(gallery, anna)) == 1


def test_nobody_and_people_who_were_forgotten(gallery: Gallery, world: FaceWorld, anna: str) -> None:
    adapter = Adapter(gallery, CALIBRATION)
    adapter.observe(frame(0.0))
    t = show(adapter, world, anna, usual(world) + with_hat(world))
    gallery.forget(anna, final=True)
    show(adapter, world, anna, usual(world), t)
    assert not gallery.snapshot().persons


def test_an_entry_that_shows_two_people_is_reported_and_one_that_turns_is_not(world: FaceWorld) -> None:
    """After a wrong join nobody else in the gallery looks like the views that do not belong there."""
    gallery = empty_gallery()
    anna = gallery.add_person("Anna", world.templates(0, 4, 0.1))
    stranger = gallery.add_person("", world.templates(1, 3, 0.1), is_stranger=True)
    turned = [
        NewTemplate(between(world, 3, 4, share), 0.9, HeadPose(0, 0, 0)) for share in (1.0, 0.9, 0.6, 0.2)
    ]
    gallery.add_person("Bea", turned)
    assert templates_of_two(gallery.snapshot(), made_up_calibration()) == ()
    gallery.merge(anna.person_id, stranger.person_id)
    assert templates_of_two(gallery.snapshot(), made_up_calibration()) == tuple(sorted(stranger.template_ids))

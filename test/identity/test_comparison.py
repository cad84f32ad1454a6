"""The one likelihood ratio, corrected for hubness, and the one pooling; who must use them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from face_world import FaceWorld, face, frame, made_up_calibration, random_calibration, unit

from face_recognition_node.common.errors import InputError
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, Provenance
from face_recognition_node.identity.adaptation import Adapter
from face_recognition_node.identity.adaptation_review import review
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.comparison import (
    compare_views,
    compare_with_templates,
    log_false_match_rates,
    log_likelihood_ratios,
    pool,
    pool_views,
)
from face_recognition_node.systems import pictures
from face_recognition_node.vision.faces import Detection, HeadPose, Identity, IdentityState, ImageArray


def calibration_with_a_hub(weight: float = 2.0) -> Calibration:
    """Return a calibration by which faces near axis 40 resemble everybody; all other faces do so never."""
    hub = np.stack([unit(np.eye(64, dtype=np.float32)[40])] * 2)
    return replace(made_up_calibration(), prototypes=hub, weight=weight)


def test_the_ratio_of_each_pair_is_what_a_slow_loop_finds() -> None:
    calibration = random_calibration()
    first, second = calibration.prototypes[:2], calibration.prototypes[2:5]
    qualities = np.array([0.3, 0.5, 0.9])
    ratios = log_likelihood_ratios(calibration, first, [0.8, 0.6], second, qualities)
    chances = log_false_match_rates(calibration, first, [0.8, 0.6], second, qualities)
    assert ratios.shape == chances.shape == (2, 3)
    for i, own in enumerate((0.8, 0.6)):
        for k, other in enumerate(qualities):
            hubness = float(calibration.hubness(np.stack([first[i], second[k]])).mean())
            pair = (first[i] @ second[k], own, other, hubness)
            assert ratios[i, k] == pytest.approx(float(calibration.log_likelihood_ratio(*pair)), abs=1e-5)
            assert chances[i, k] == pytest.approx(float(calibration.log_false_match(*pair)), abs=1e-5)


def test_views_templates_and_arrays_are_compared_alike(gallery: Gallery) -> None:
    world, calibration = FaceWorld(), calibration_with_a_hub()
    anna = gallery.add_person("Anna", world.templates(0))
    templates = gallery.snapshot().templates_of(anna.person_id)
    view = world.view(0.0, overall=0.7)
    assert view.embedding is not None
    expected = log_likelihood_ratios(
        calibration, view.embedding[None], 0.7, np.stack([t.embedding for t in templates]), 0.9
    )
    assert compare_with_templates(calibration, view.embedding, 0.7, templates) == pytest.approx(expected[0])
    assert compare_with_templates(calibration, view.embedding, 0.7, ()).shape == (0,)
    alike = [world.view(0.0, embedding=t.embedding, overall=0.9) for t in templates]
    assert compare_views(calibration, [view], alike) == pytest.approx(expected)
    with pytest.raises(InputError, match="embed_all"):
        compare_views(calibration, [world.view(0.0, has_embedding=False)], alike)


def test_pooled_views_lean_to_the_good_ones() -> None:
    world = FaceWorld()
    good, poor = world.view(0.0, overall=1.0), world.view(0.1, person=1, overall=0.5)
    embedding, quality = pool_views([good, poor])
    assert embedding == pytest.approx(unit(good.embedding + 0.25 * poor.embedding), abs=1e-6)  # type: ignore[operator]
    assert quality == pytest.approx((1.0 + 0.25 * 0.5) / 1.25)
    vectors = np.stack([world.axis(0), world.axis(1)])
    worthless, nothing = pool(vectors, [0.0, 0.0])
    assert worthless == pytest.approx(unit(vectors.sum(axis=0))), "a direction where there is nothing better"
    assert nothing == 0.0
    assert pool(vectors, [0.5, 0.5], [1.0, 0.0])[0] == pytest.approx(vectors[0])


def test_adaptation_learns_no_face_that_resembles_everybody(gallery: Gallery) -> None:
    """Its guards compared by the plain cosine: a view that is like everybody was learned as the person's."""
    world = FaceWorld(scatter=0.1)
    anna = gallery.add_person("Anna", world.templates(0)).person_id
    everybody = unit(0.7 * world.axis(0) + 0.714 * world.axis(40))
    usual = [world.embedding(0) for _ in range(15)]

    def learned(weight: float) -> int:
        adapter = Adapter(gallery, calibration_with_a_hub(weight))
        identity = Identity(IdentityState.KNOWN, anna, "Anna", 0.999)
        for k, embedding in enumerate([*usual, everybody, *usual]):
            view = world.view(k / 10, embedding=embedding)
            adapter.observe(frame(k / 10, [face(view, 1, identity)]))
        return gallery.rollback_adaptation()

    assert learned(weight=2.0) == 0
    assert learned(weight=0.0) == 1, "without the hub it is a new look of hers"


def test_review_sets_aside_a_template_that_resembles_everybody(gallery: Gallery) -> None:
    world = FaceWorld(scatter=0.1)
    anna = gallery.add_person("Anna", world.templates(0)).person_id
    everybody = unit(0.7 * world.axis(0) + 0.714 * world.axis(40))
    gallery.add_templates(anna, [NewTemplate(everybody, 0.9, HeadPose(0, 0, 0), Provenance.ADAPTED)])
    found = review(gallery.snapshot(), calibration_with_a_hub())
    assert [issue.reason for issue in found] == ["no longer like the enrolled views"]
    assert review(gallery.snapshot(), calibration_with_a_hub(weight=0.0)) == []


def test_two_pictures_are_compared_with_the_hubness_of_their_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    world = FaceWorld()
    everybody = unit(0.6 * world.axis(0) + 0.8 * world.axis(40))
    faces = iter([world.axis(0), everybody])
    detection = world.view(0.0).detection

    class Embedder:
        dimension = 64

        def embed(self, crops_bgr: ImageArray) -> np.ndarray:
            return next(faces)[None]

    def largest_face(_: ImageArray) -> Detection:
        return detection

    monkeypatch.setattr(pictures, "robot_embedder", Embedder)
    monkeypatch.setattr(pictures, "largest_face", largest_face)
    monkeypatch.setattr(pictures, "robot_card", lambda: None)
    monkeypatch.setattr(Calibration, "from_card", lambda _: calibration_with_a_hub())
    images = [np.full((480, 640, 3), 90, np.uint8)] * 2
    probabilities = pictures.same_person_probabilities(images, 0.5)
    corrected = 0.6 - 2.0 * (0.0 + 0.8) / 2
    assert probabilities[0, 1] == pytest.approx(1 / (1 + np.exp(-16.0 * (corrected - 0.3))), abs=1e-4)

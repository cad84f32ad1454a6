"""Quality of a face: each part falls with its own defect, the whole predicts the similarity that is left."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.degradation import darken_face
from face_recognition_node.vision.alignment import ALIGNMENT_TEMPLATE, align_faces
from face_recognition_node.vision.faces import Detection, FaceQuality
from face_recognition_node.vision.pose import HEAD_XYZ, fit_heads
from face_recognition_node.vision.quality import (
    assess_quality,
    measure_exposure,
    measure_implausibility,
    measure_sharpness,
)

TEMPLATE = ALIGNMENT_TEMPLATE.astype(np.float64)
"""Landmarks of a face that is as large in the image as in the crop."""
BOX = np.array([15.0, 2.0, 97.0, 112.0])
"""The detector's box around such a face."""


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """A smooth pattern with detail at all scales, as a face has."""
    generator = np.random.default_rng(5)
    picture = np.zeros((112, 112, 3), np.float32)
    for scale in (1, 2, 4, 8, 16):
        noise = generator.normal(size=(112 // scale + 1, 112 // scale + 1, 3)).astype(np.float32)
        picture += cv2.resize(noise, (112, 112), interpolation=cv2.INTER_CUBIC) * scale
    picture = (picture - picture.mean()) / picture.std()
    return np.clip(128 + 35 * picture, 0, 255).astype(np.uint8)


def detection(scale: float = 1.0, landmarks: np.ndarray | None = None) -> Detection:
    points = TEMPLATE if landmarks is None else landmarks
    return Detection((BOX * scale).astype(np.float32), 0.99, (points * scale).astype(np.float32))


def quality(crop: np.ndarray, scale: float = 1.0, landmarks: np.ndarray | None = None) -> FaceQuality:
    return assess_quality(crop[None], [detection(scale, landmarks)])[0]


def test_a_smaller_face_is_worse_but_not_blurred(crop: np.ndarray) -> None:
    full = quality(crop)
    before = full
    for side in (80, 48, 32, 20, 12):
        small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        enlarged = align_faces(small, TEMPLATE[None] * side / 112)[0]
        now = quality(enlarged, side / 112)
        assert now.size <= before.size
        assert now.overall <= before.overall + 0.05
        before = now
    small = cv2.resize(crop, (40, 40), interpolation=cv2.INTER_AREA)
    enlarged = align_faces(small, TEMPLATE[None] * 40 / 112)[0]
    known, unknown = (measure_sharpness(enlarged[None], TEMPLATE[None] * s)[0] for s in (40 / 112, 1.0))
    assert known > unknown + 0.2, "knowing that the crop was enlarged has to make up for its softness"


@pytest.mark.parametrize("kind", ["defocus", "motion"])
def test_blur_lowers_the_sharpness_alone(crop: np.ndarray, kind: str) -> None:
    values = []
    for amount in (1, 5, 9, 15, 21):
        if kind == "defocus":
            blurred = cv2.GaussianBlur(crop, (0, 0), amount / 3)
        else:
            blurred = cv2.blur(crop, (amount, 1))
        values.append(quality(blurred))
    sharpness = [value.sharpness for value in values]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[-1] < 0.8 * sharpness[0]
    assert values[-1].size == values[0].size
    assert values[-1].landmarks == values[0].landmarks


def test_dark_and_burnt_out_faces_are_told_apart(crop: np.ndarray) -> None:
    dark = np.clip(crop * 0.04, 0, 255).astype(np.uint8)
    bright = np.clip(crop.astype(np.float32) * 5, 0, 255).astype(np.uint8)
    lost, burnt = measure_exposure(np.stack([crop, dark, bright]))
    assert np.argmax(lost) == 1
    assert np.argmax(burnt) == 2
    assert quality(dark).exposure < 0.6
    assert quality(bright).exposure < 0.8
    assert quality(crop).exposure > 0.95


def test_a_dark_room_is_no_sharper_than_a_lit_one(crop: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0, 2, crop.shape)
    blurred = cv2.GaussianBlur(crop, (0, 0), 3)
    low_light = np.clip(blurred * 0.15 + noise, 0, 255).astype(np.uint8)
    lit, dim = (measure_sharpness(c[None], TEMPLATE[None])[0] for c in (blurred, low_light))
    assert dim < lit + 0.25


def test_a_turned_head_is_less_frontal(crop: np.ndarray) -> None:
    values = []
    for degrees in (0, 30, 45, 60, 75):
        angle = np.radians(degrees)
        x = HEAD_XYZ[:, 0] * np.cos(angle) - HEAD_XYZ[:, 2] * np.sin(angle)
        points = np.stack([x, HEAD_XYZ[:, 1]], axis=1) * 17 + (56, 52)
        values.append(quality(crop, landmarks=points).frontality)
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.5


def test_landmarks_that_are_no_face_are_implausible(crop: np.ndarray) -> None:
    swapped = TEMPLATE[[4, 0, 2, 3, 1]]
    assert quality(crop, landmarks=swapped).landmarks < 0.1
    nose_outside = TEMPLATE.copy()
    nose_outside[2] += (0, 35)
    assert quality(crop, landmarks=nose_outside).landmarks < quality(crop).landmarks


def test_implausibility_does_not_depend_on_place_size_or_camera_roll() -> None:
    heads = fit_heads(TEMPLATE[None])
    usual = measure_implausibility(BOX[None], TEMPLATE[None], heads)[0]
    for scale, shift in ((0.2, 40.0), (7.0, -300.0)):
        points, box = TEMPLATE * scale + shift, BOX * scale + shift
        assert measure_implausibility(box[None], points[None], fit_heads(points[None]))[0] == pytest.approx(
            usual
        )


def test_many_faces_are_judged_as_one_by_one(crop: np.ndarray, rng: np.random.Generator) -> None:
    crops = np.stack([crop, cv2.GaussianBlur(crop, (0, 0), 2), crop // 4, crop])
    detections = [detection(s, TEMPLATE + rng.normal(0, 1, (5, 2))) for s in (1.0, 1.0, 0.5, 0.2)]
    together = assess_quality(crops, detections)
    for k in range(4):
        alone = assess_quality(crops[k : k + 1], detections[k : k + 1])[0]
        for part in ("overall", "size", "sharpness", "exposure", "frontality", "landmarks"):
            assert getattr(together[k], part) == pytest.approx(getattr(alone, part), abs=1e-9)


def test_no_faces() -> None:
    assert assess_quality(np.zeros((0, 112, 112, 3), np.uint8), []) == []


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_crop_is_bad_and_finite(value: int) -> None:
    blank = quality(np.full((112, 112, 3), value, np.uint8))
    assert 0.0 <= blank.overall < 0.75
    assert np.isfinite([blank.sharpness, blank.exposure]).all()


def test_wrong_shapes_and_lengths_are_refused(crop: np.ndarray) -> None:
    with pytest.raises(InputError, match="crops_bgr: expected uint8"):
        assess_quality(crop[None].astype(np.float32), [detection()])
    with pytest.raises(InputError, match="crops_bgr: expected uint8"):
        assess_quality(crop[None, :100], [detection()])
    with pytest.raises(InputError, match="one per crop"):
        assess_quality(crop[None], [])
    with pytest.raises(InputError, match="heads"):
        assess_quality(crop[None], [detection()], fit_heads(np.zeros((0, 5, 2))))


def test_on_real_faces_the_similarity_that_is_left_rises_with_quality(shared_data: Path) -> None:
    from face_recognition_node.assembly import load_models
    from face_recognition_node.config import Config

    embedder = load_models(Config()).embedder
    crops, references, detections, kinds = [], [], [], []
    with zipfile.ZipFile(shared_data / "lfw_pairs_112.zip") as archive:
        people = defaultdict(list)
        for name in archive.namelist():
            if name.endswith(".webp"):
                people[name.split("/")[-2]].append(name)
        for person in [p for p in sorted(people) if len(people[p]) > 1][:36]:
            first, second = (
                cv2.imdecode(np.frombuffer(archive.read(n), np.uint8), cv2.IMREAD_COLOR)
                for n in people[person][:2]
            )
            for kind, scale, picture in degraded(first):
                side = round(112 * scale)
                crops.append(align_faces(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA),
                                         TEMPLATE[None] * scale)[0])  # fmt: skip
                detections.append(detection(scale))
                kinds.append(kind)
                references.append(second)
    overall = np.array([q.overall for q in assess_quality(np.stack(crops), detections)])
    similarity = (embedder.embed(np.stack(crops)) * embedder.embed(np.stack(references))).sum(axis=1)
    order = [np.mean(overall[np.array(kinds) == k]) for k in dict.fromkeys(kinds)]
    left = [np.mean(similarity[np.array(kinds) == k]) for k in dict.fromkeys(kinds)]
    ranks = [np.argsort(np.argsort(values)) for values in (order, left)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8, "Spearman's rank correlation"
    quarters = np.array_split(np.argsort(overall), 4)
    means = [float(similarity[quarter].mean()) for quarter in quarters]
    assert means == sorted(means)
    assert means[3] - means[0] > 0.15


def degraded(picture: np.ndarray) -> list[tuple[str, float, np.ndarray]]:
    return [
        ("clean", 1.0, picture),
        ("24 px", 24 / 112, picture),
        ("16 px", 16 / 112, picture),
        ("soft", 1.0, cv2.GaussianBlur(picture, (0, 0), 2.5)),
        ("blurred", 1.0, cv2.GaussianBlur(picture, (0, 0), 5)),
        ("moving", 1.0, cv2.blur(picture, (17, 1))),
        ("dark", 1.0, darken_face(picture, 0.07, noise=3.0)),
        ("bright", 1.0, np.clip(picture.astype(np.float32) * 4, 0, 255).astype(np.uint8)),
    ]

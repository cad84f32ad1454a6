"""A dark picture is brought back to the light the networks know; a lit one is not touched."""

from __future__ import annotations

import numpy as np
import pytest

from face_recognition_node.backends import load_detector, load_embedder
from face_recognition_node.common.errors import InputError
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.evaluation.degradation import darken_face
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.relighting import (
    LIT_LEVEL,
    MOST_GAIN,
    brighten_faces,
    brighten_frame,
    measure_noise,
)


def test_what_is_lit_comes_back_as_it_is(rng):
    lit = rng.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    assert brighten_faces(lit) is lit
    frame = lit[0]
    assert brighten_frame(frame) is frame
    nobody = np.zeros((0, 112, 112, 3), np.uint8)
    assert brighten_faces(nobody) is nobody


def test_only_the_dark_face_is_changed_and_the_input_never(rng):
    crops = rng.integers(100, 256, (3, 112, 112, 3), dtype=np.uint8)
    crops[1] //= 8
    before = crops.copy()
    made = brighten_faces(crops[..., ::-1])  # a view that is not contiguous, too
    assert np.array_equal(crops, before)
    assert np.array_equal(made[[0, 2]], crops[[0, 2], ..., ::-1])
    assert made[1].mean() > 3 * crops[1].mean()
    assert made[1].max() <= LIT_LEVEL * 1.2


def test_a_bright_window_behind_a_dark_face_does_not_hide_it():
    crop = np.full((1, 112, 112, 3), 30, np.uint8)
    crop[:, :, :15] = 255
    assert brighten_faces(crop)[0, 60, 60, 1] == round(LIT_LEVEL)
    assert brighten_faces(crop)[0, 60, 5, 1] == 255


def test_black_stays_black_and_the_gain_has_an_end():
    assert not brighten_frame(np.zeros((48, 64, 3), np.uint8)).any()
    assert brighten_frame(np.full((48, 64, 3), 2, np.uint8)).max() == 2 * MOST_GAIN


@pytest.mark.slow
@pytest.mark.parametrize("light", [0.25, 0.12])
def test_a_face_in_the_dark_is_found_and_known(guest_bgr, stranger_bgr, light):
    detector = load_detector(ModelsConfig(), DetectorConfig())
    embedder = load_embedder(ModelsConfig())

    def embed(image):
        (face, *_) = detector.detect(image)
        return embedder.embed(align_faces(image, face.landmarks_xy[None]))[0]

    dark = embed(darken_face(guest_bgr, light))
    assert dark @ embed(guest_bgr) > 0.85
    assert dark @ embed(stranger_bgr) < 0.4


def test_darkening_can_be_repeated_and_refuses_nonsense(guest_bgr):
    assert np.array_equal(darken_face(guest_bgr, 0.2), darken_face(guest_bgr, 0.2))
    assert darken_face(guest_bgr, 1.0) is guest_bgr
    assert abs(darken_face(guest_bgr, 0.25).mean() / guest_bgr.mean() - 0.25) < 0.02
    for light, noise in ((0.0, 1.0), (1.5, 1.0), (0.5, -1.0)):
        with pytest.raises(InputError):
            darken_face(guest_bgr, light, noise)


def test_noise_is_measured_in_grey_values_and_smoothed_only_where_there_is_much(rng):
    ramp = np.repeat(np.linspace(20, 40, 320, dtype=np.float32)[None], 240, axis=0)[..., None].repeat(
        3, axis=2
    )
    clean = np.round(ramp).astype(np.uint8)
    noisy = np.round(ramp + rng.normal(0, 3, ramp.shape)).astype(np.uint8)
    assert measure_noise(clean) < 0.5
    assert abs(measure_noise(noisy) - 3) < 0.3
    assert measure_noise(brighten_frame(noisy)) < 0.6 * (LIT_LEVEL / 40) * measure_noise(noisy)
    assert len(np.unique(brighten_frame(clean))) <= len(np.unique(clean))  # a gain alone invents no grey
    assert measure_noise(np.zeros((2, 2, 3), np.uint8)) == 0.0


def test_a_dim_face_is_found_and_its_quality_says_so(guest_bgr):
    from face_recognition_node.vision.quality import assess_quality

    dark = darken_face(guest_bgr, 0.1, noise=3.0)
    (face, *_) = load_detector(ModelsConfig(), DetectorConfig()).detect(dark)
    crops = align_faces(dark, face.landmarks_xy[None])
    assert assess_quality(crops, [face])[0].exposure < 0.97

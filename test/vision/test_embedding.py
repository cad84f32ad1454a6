"""The embedder around its network: batching, normalising, refusing what has no direction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from face_recognition_node.common.errors import InputError, ModelError, ModelMismatchError
from face_recognition_node.common.resources import models_directory
from face_recognition_node.vision.embedding import MAXIMUM_BATCH, CropEmbedder, normalize
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.runner import BackendReport


class MeanColourRunner:
    """Answers each crop's mean colour, in an array that it overwrites with the next call."""

    def __init__(self) -> None:
        self.report = BackendReport("toy", "none", "", "fp32")
        self.batches: list[int] = []
        self._buffer = np.zeros((MAXIMUM_BATCH, 64), np.float32)

    def run(self, images_bgr):
        self.batches.append(len(images_bgr))
        assert images_bgr.flags.c_contiguous
        self._buffer[:, :3] = -1
        self._buffer[: len(images_bgr), :3] = images_bgr.mean(axis=(1, 2))
        return (self._buffer[: len(images_bgr)],)


@pytest.fixture
def card() -> ModelCard:
    return ModelCard.read(models_directory() / "efficientnet_b0_64.json")


@pytest.mark.parametrize("count", [1, MAXIMUM_BATCH, MAXIMUM_BATCH + 1, 3 * MAXIMUM_BATCH])
def test_large_numbers_of_faces_go_in_batches(card, rng, count):
    runner = MeanColourRunner()
    crops = rng.integers(1, 256, (count, 112, 112, 3), dtype=np.uint8)
    means = crops.mean(axis=(1, 2))
    got = CropEmbedder(runner, card).embed(crops)
    np.testing.assert_allclose(got[:, :3], means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)
    assert sum(runner.batches) == count
    assert max(runner.batches) <= MAXIMUM_BATCH


def test_no_faces_do_not_trouble_the_network(card):
    runner = MeanColourRunner()
    assert CropEmbedder(runner, card).embed(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 64)
    assert runner.batches == []


def test_a_view_that_is_not_contiguous_is_embedded(card, rng):
    crops = rng.integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)
    embedder = CropEmbedder(MeanColourRunner(), card)
    np.testing.assert_allclose(embedder.embed(crops[::2, :, ::-1]), embedder.embed(crops[::2]), atol=1e-6)


def test_crops_of_another_shape_are_refused(card):
    embedder = CropEmbedder(MeanColourRunner(), card)
    for crops in (
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((1, 112, 112, 3)),
        np.zeros((112, 112, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="112"):
            embedder.embed(crops)


def test_an_answer_without_direction_is_an_error(card):
    with pytest.raises(ModelError, match="without direction"):
        CropEmbedder(MeanColourRunner(), card).embed(np.zeros((1, 112, 112, 3), np.uint8))
    with pytest.raises(ModelError, match="without direction"):
        normalize(np.full((1, 64), np.nan, np.float32))


def test_another_alignment_is_refused(card):
    other = dataclasses.replace(card, alignment="some other warp")
    with pytest.raises(ModelMismatchError, match="some other warp"):
        CropEmbedder(MeanColourRunner(), other)


def test_it_says_what_it_is(card):
    embedder = CropEmbedder(MeanColourRunner(), card)
    assert (embedder.dimension, embedder.fingerprint) == (64, card.fingerprint)
    assert embedder.backend.name == "toy"

"""What the systems of the literature learn from: pairs, grey faces, pictures with depth."""

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: no torch")

# ruff: noqa: E402  # what follows needs torch
from face_recognition_node.common.errors import InputError
from face_recognition_node.systems.olivetti.data import grey_faces, make_pairs
from face_recognition_node.systems.rgbd.data import augment_rgbd, rgbd_input
from face_recognition_node.systems.rgbd.network import SqueezeEncoder


def test_each_picture_gets_a_pair_of_each_kind():
    labels = np.repeat(np.arange(40), 10)
    pairs, same = make_pairs(labels, seed=0)
    assert len(pairs) == 800
    assert same.sum() == 400
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert ((labels[pairs[:, 0]] == labels[pairs[:, 1]]) == (same == 1)).all()
    with pytest.raises(InputError, match="another picture to pair with"):
        make_pairs(np.array([0, 1, 1]), seed=0)


def test_pairs_to_check_with_are_not_those_trained_on():
    labels = np.repeat(np.arange(40), 10)
    trained, _ = make_pairs(labels, seed=0)
    others, same = make_pairs(labels, 1, trained)
    assert len(others) == 800
    assert same.sum() == 400
    assert {frozenset(pair) for pair in trained.tolist()}.isdisjoint(map(frozenset, others.tolist()))


def test_grey_faces_fill_the_range():
    made = grey_faces(np.random.default_rng(0).integers(60, 120, (2, 112, 92)).astype(np.uint8))
    assert made.shape == (2, 1, 64, 64)
    assert made.min() == 0
    assert made.max() == 1


def head_picture():
    depth = np.zeros((149, 119), np.uint16)
    cv2.ellipse(depth, (60, 70), (22, 30), 0, 0, 360, 150, -1)
    depth[95:, 20:100] = 170
    colour = np.random.default_rng(0).integers(1, 255, (149, 119, 3)).astype(np.uint8)
    return colour, depth


def test_rgbd_inputs_are_cut_to_the_head_and_relative():
    colour, depth = head_picture()
    made = rgbd_input(colour, depth)
    assert made.shape == (4, 80, 80)
    assert np.array_equal(made, rgbd_input(colour, np.where(depth > 0, depth + 30, 0).astype(np.uint16)))
    assert (made[:, 0, 0] == 0).all()
    assert made[3, 40, 40] > made[3, 75, 40]
    assert np.roll(colour, 5, axis=1).shape == colour.shape
    moved = rgbd_input(np.roll(colour, 5, axis=1), np.roll(depth, 5, axis=1))
    assert np.abs(moved - made).mean() < 0.05


def test_rgbd_without_depth_is_refused():
    colour, depth = head_picture()
    with pytest.raises(InputError, match="no depth"):
        rgbd_input(colour, np.zeros_like(depth))
    with pytest.raises(InputError, match="equal sizes"):
        rgbd_input(colour[:-1], depth)


def test_rgbd_augmentation_keeps_shape_and_holes():
    made = rgbd_input(*head_picture())
    views = [augment_rgbd(made, np.random.default_rng(seed)) for seed in range(8)]
    assert all(view.shape == made.shape and np.isfinite(view).all() for view in views)
    assert not np.allclose(views[0], views[1])
    with torch.no_grad():
        vectors = SqueezeEncoder().eval()(torch.from_numpy(np.stack(views)))
    assert vectors.shape == (8, 128)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(8), atol=1e-5)

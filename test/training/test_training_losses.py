"""The losses against slow loops of the papers' formulas."""

import itertools

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="recipes are read with msgspec")
torch = pytest.importorskip("torch", reason="the train extra is not installed: no torch")
pytest.importorskip(
    "pytorch_metric_learning", reason="the train extra is not installed: no pytorch-metric-learning"
)

# ruff: noqa: E402  # what follows needs torch
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.training.losses import (
    FaceMemory,
    HadsellContrastiveLoss,
    IdentityHead,
    build_metric_loss,
    build_miner,
    look_alike_loss,
    relation_loss,
)
from face_recognition_node.training.recipe import IdentityObjective, MetricObjective, build

LABELS = [0, 0, 0, 1, 1, 2]


@pytest.fixture
def vectors():
    return torch.randn(len(LABELS), 8, generator=torch.Generator().manual_seed(3))


def unit(vectors):
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("margin", [0.5, 1.0, 4.0])
def test_contrastive_loss_is_hadsells(vectors, margin):
    points = unit(vectors)
    same, different = [], []
    for i, j in itertools.permutations(range(len(LABELS)), 2):
        distance = float((points[i] - points[j]).norm())
        if LABELS[i] == LABELS[j]:
            same.append(0.5 * distance**2)
        else:
            different.append(0.5 * max(0.0, margin - distance) ** 2)
    loss = HadsellContrastiveLoss(margin)(vectors, torch.tensor(LABELS))
    assert float(loss) == pytest.approx(np.mean(same) + np.mean(different), rel=1e-5)


def two_points(distance):
    angle = torch.tensor([0.0, 2 * np.arcsin(distance / 2)])
    return torch.stack([angle.cos(), angle.sin()], dim=1).float()


def test_contrastive_loss_gives_same_and_different_their_roles():
    loss = HadsellContrastiveLoss(margin=1.0)
    near, far = two_points(0.1), two_points(1.5)
    same, different = torch.tensor([0, 0]), torch.tensor([0, 1])
    assert float(loss(near, same)) == pytest.approx(0.005)
    assert float(loss(far, same)) == pytest.approx(1.125)
    assert float(loss(near, different)) == pytest.approx(0.405)
    assert float(loss(far, different)) == 0


def test_contrastive_loss_pulls_same_pairs_together():
    points = two_points(1.0).requires_grad_()
    HadsellContrastiveLoss()(points, torch.tensor([0, 0])).backward()
    assert points.grad is not None
    assert points.grad[1, 1] > 0 > points.grad[0, 1]


@pytest.mark.parametrize("kind", ["contrastive", "triplet"])
def test_no_pairs_cost_nothing(kind, vectors):
    assert float(build_metric_loss(kind, 0.2)(vectors[:1], torch.tensor([0]))) == 0
    assert float(build_metric_loss(kind, 0.2)(vectors[:0], torch.tensor([], dtype=torch.long))) == 0


@pytest.mark.parametrize("margin", [-0.5, 0.0, 0.2, 1.0])
def test_triplet_loss_is_schroffs(vectors, margin):
    points = unit(vectors)
    costs = []
    for a, p, n in itertools.permutations(range(len(LABELS)), 3):
        if LABELS[a] == LABELS[p] != LABELS[n]:
            value = float((points[a] - points[p]).norm() ** 2 - (points[a] - points[n]).norm() ** 2) + margin
            costs.append(max(0.0, value))
    active = [cost for cost in costs if cost > 0]
    loss = build_metric_loss("triplet", margin)(vectors, torch.tensor(LABELS))
    # the library averages over the triplets that cost something
    assert float(loss) == pytest.approx(np.mean(active) if active else 0.0, rel=1e-4)


def test_semihard_triplets_lie_within_the_margin(vectors):
    points, margin = unit(vectors), 1.5
    a, p, n = build_miner("semihard", "triplet", margin)(vectors, torch.tensor(LABELS))
    gaps = ((points[a] - points[n]) ** 2).sum(1) - ((points[a] - points[p]) ** 2).sum(1)
    assert len(a)
    assert ((gaps > 0) & (gaps <= margin)).all()
    expected = sum(
        0 < float(((points[i] - points[k]) ** 2).sum() - ((points[i] - points[j]) ** 2).sum()) <= margin
        for i, j, k in itertools.permutations(range(len(LABELS)), 3)
        if LABELS[i] == LABELS[j] != LABELS[k]
    )
    assert len(a) == expected


def test_unknown_names_are_refused():
    with pytest.raises(ConfigurationError, match=r"'quadruplet' - at `\$\.kind`"):
        build(MetricObjective, {"kind": "quadruplet"})
    with pytest.raises(ConfigurationError, match="'semihard' is for triplets"):
        build_miner("semihard", "contrastive", 1.0)
    with pytest.raises(ConfigurationError, match=r"'sphere' - at `\$\.kind`"):
        build(IdentityObjective, {"kind": "sphere"})


@pytest.mark.parametrize("kind", ["cross_entropy", "cosface"])
def test_identity_loss_of_an_empty_batch_is_zero(kind, vectors):
    head = IdentityHead(kind, 8, 3)
    assert float(head(vectors[:0], torch.tensor([], dtype=torch.long))) == 0
    assert float(head(vectors, torch.tensor(LABELS))) > 0


def test_cosface_takes_the_margin_from_the_right_cosine_only(vectors):
    head, labels = IdentityHead("cosface", 8, 3, margin=0.3, scale=10.0), torch.tensor(LABELS)
    centres = head.centres().detach()
    cosines = unit(vectors) @ (centres / centres.norm(dim=0))
    cosines[torch.arange(len(LABELS)), labels] -= 0.3
    expected = torch.nn.functional.cross_entropy(10 * cosines, labels)
    assert float(head(vectors, labels)) == pytest.approx(float(expected), rel=1e-5)


def test_relation_loss_against_a_loop(vectors):
    ours, teacher = (
        unit(vectors),
        unit(torch.randn(len(LABELS), 5, generator=torch.Generator().manual_seed(4))),
    )
    squares = [
        float(ours[i] @ ours[j] - teacher[i] @ teacher[j]) ** 2
        for i, j in itertools.permutations(range(len(LABELS)), 2)
    ]
    assert float(relation_loss(ours, teacher)) == pytest.approx(np.mean(squares), rel=1e-5)
    assert float(relation_loss(ours[:1], teacher[:1])) == 0


@pytest.mark.parametrize("of_teacher", [None, 0.1])
def test_look_alike_loss_against_a_loop(vectors, of_teacher):
    random = torch.Generator().manual_seed(5)
    ours, teacher = unit(vectors), unit(torch.randn(len(LABELS), 8, generator=random))
    others = unit(torch.randn(40, 8, generator=random)), unit(torch.randn(40, 8, generator=random))
    squares = []
    for i, j in itertools.product(range(len(LABELS)), range(40)):
        pair = float(ours[i] @ others[0][j]), float(teacher[i] @ others[1][j])
        if pair[0] > 0.3 or pair[1] > (of_teacher or 0.3):
            squares.append((pair[0] - pair[1]) ** 2)
    assert 10 < len(squares) < 30 * len(LABELS)
    loss = look_alike_loss(ours, teacher, others, 0.3, of_teacher)
    assert float(loss) == pytest.approx(np.mean(squares), rel=1e-4)


def test_look_alike_loss_is_nothing_among_faces_that_nobody_confuses():
    face, nobody = torch.eye(3, requires_grad=True), (torch.empty(0, 3), torch.empty(0, 3))
    for others in ((-torch.eye(3), -torch.eye(3)), nobody):
        loss = look_alike_loss(face, torch.eye(3), others, 0.3)
        loss.backward()
        assert float(loss) == 0
        assert not face.grad.any()


def test_the_memory_keeps_the_latest_faces():
    memory = FaceMemory(5, 2, 3)
    assert [len(part) for part in memory.faces(torch.device("cpu"))] == [0, 0]
    for first in (0, 2, 4, 6):
        numbers = torch.tensor([first, first + 1.0])[:, None]
        memory.add(numbers.expand(2, 2), numbers.expand(2, 3))
    vectors, teacher = memory.faces(torch.device("cpu"))
    assert sorted(vectors[:, 0].tolist()) == [3, 4, 5, 6, 7]
    assert torch.equal(vectors[:, 0], teacher[:, 2])
    memory.add(torch.arange(8.0, 20)[:, None].expand(12, 2), torch.arange(8.0, 20)[:, None].expand(12, 3))
    assert sorted(memory.faces(torch.device("cpu"))[0][:, 0].tolist()) == [15, 16, 17, 18, 19]
    again = FaceMemory(5, 2, 3)
    again.load_state_dict(memory.state_dict())
    again.add(torch.full((1, 2), 20.0), torch.full((1, 3), 20.0))
    assert sorted(again.faces(torch.device("cpu"))[0][:, 0].tolist()) == [16, 17, 18, 19, 20]

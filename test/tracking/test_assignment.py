"""The assignment against trying every one, and against SciPy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment as reference

from face_recognition_node.common.errors import InputError
from face_recognition_node.tracking.assignment import linear_sum_assignment


def cheapest(costs: np.ndarray) -> float:
    """Try every assignment."""
    if costs.shape[0] > costs.shape[1]:
        costs = costs.T
    rows = range(costs.shape[0])
    return min(
        sum(costs[row, column] for row, column in zip(rows, columns, strict=True))
        for columns in itertools.permutations(range(costs.shape[1]), costs.shape[0])
    )


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([0.0, 1.0]),
)
def test_as_cheap_as_the_cheapest(rows: int, columns: int, seed: int, step: float) -> None:
    costs = np.random.default_rng(seed).normal(0, 3, (rows, columns))
    if step:
        costs = np.round(costs / step) * step  # ties
    found_rows, found_columns = linear_sum_assignment(costs)
    assert len(found_rows) == min(rows, columns)
    assert len(set(found_rows.tolist())) == len(set(found_columns.tolist())) == len(found_rows)
    assert found_rows.tolist() == sorted(found_rows.tolist())
    assert costs[found_rows, found_columns].sum() == pytest.approx(cheapest(costs))


@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    maximize=st.booleans(),
)
def test_the_same_as_scipy(rows: int, columns: int, seed: int, maximize: bool) -> None:
    costs = np.random.default_rng(seed).normal(0, 100, (rows, columns))
    for ours, theirs in zip(linear_sum_assignment(costs, maximize), reference(costs, maximize), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_forbidden_pairs_are_never_taken(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    costs = random.normal(0, 3, (rows, columns))
    costs[random.random((rows, columns)) < 0.4] = np.inf
    try:
        expected = reference(costs)
    except ValueError:
        with pytest.raises(InputError, match="forbidden"):
            linear_sum_assignment(costs)
        return
    found = linear_sum_assignment(costs)
    assert costs[found].sum() == pytest.approx(costs[expected].sum())


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(shape: tuple[int, int]) -> None:
    rows, columns = linear_sum_assignment(np.zeros(shape))
    assert len(rows) == len(columns) == 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        linear_sum_assignment([[0.0, np.nan]])
    with pytest.raises(InputError, match="matrix"):
        linear_sum_assignment([1.0, 2.0])
    with pytest.raises(InputError, match="infinite"):
        linear_sum_assignment([[1.0, -np.inf]])

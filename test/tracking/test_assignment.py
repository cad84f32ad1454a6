"""The assignment against trying every one, and against SciPy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment as reference

from face_recognition_node.tracking.assignment import cheapest_columns


def cheapest(costs: np.ndarray) -> float:
    """Try every assignment."""
    rows = range(costs.shape[0])
    return min(
        sum(costs[row, column] for row, column in zip(rows, columns, strict=True))
        for columns in itertools.permutations(range(costs.shape[1]), costs.shape[0])
    )


@given(
    rows=st.integers(1, 5),
    spare=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([0.0, 1.0]),
)
def test_as_cheap_as_the_cheapest(rows: int, spare: int, seed: int, step: float) -> None:
    costs = np.random.default_rng(seed).normal(0, 3, (rows, min(rows + spare, 5)))
    if step:
        costs = np.round(costs / step) * step  # ties
    columns = cheapest_columns(costs)
    assert len(columns) == len(set(columns.tolist())) == rows
    assert costs[np.arange(rows), columns].sum() == pytest.approx(cheapest(costs))


@given(rows=st.integers(1, 20), spare=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_the_same_as_scipy(rows: int, spare: int, seed: int) -> None:
    costs = np.random.default_rng(seed).normal(0, 100, (rows, rows + spare))
    np.testing.assert_array_equal(cheapest_columns(costs), reference(costs)[1])


@pytest.mark.parametrize("n_columns", [0, 3])
def test_nothing_to_assign(n_columns: int) -> None:
    assert len(cheapest_columns(np.zeros((0, n_columns)))) == 0

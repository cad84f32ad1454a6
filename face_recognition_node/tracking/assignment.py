"""The cheapest assignment of rows to columns, for the few faces of a frame.

The algorithm is that of shortest augmenting paths with potentials (Jonker and Volgenant 1987), as in SciPy,
whose ``optimize`` package would cost every process 0.3 s at its start and 45 MB for this one function.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import InputError

Indices = NDArray[np.intp]


def linear_sum_assignment(costs: ArrayLike, maximize: bool = False) -> tuple[Indices, Indices]:
    """Return (rows, columns) of the pairs with the least sum of costs; every row, or every column, is paired.

    Args:
        costs: (R, C) numbers; infinite where a pair is forbidden.
        maximize: Look for the greatest sum instead.

    Returns:
        Two arrays of length min(R, C), the rows ascending.

    Raises:
        InputError: If something is NaN, or every assignment contains a forbidden pair.
    """
    matrix = np.array(costs, np.float64)
    if matrix.ndim != 2:
        raise InputError(f"costs: expected a matrix (R, C), got shape {matrix.shape}")
    if np.isnan(matrix).any():
        raise InputError("costs: expected numbers or infinity, got NaN")
    if maximize:
        matrix = -matrix
    forbidden = ~np.isfinite(matrix)
    if (matrix == -np.inf).any():
        raise InputError("costs: an infinite gain cannot be compared")
    if forbidden.any():
        # Dearer than any set of allowed pairs, so that one is taken only if there is no way around it.
        span = np.abs(matrix[~forbidden]).sum() if not forbidden.all() else 0.0
        matrix[forbidden] = 2 * span + 1.0
    is_tall = matrix.shape[0] > matrix.shape[1]
    pairs = _assign_rows(matrix.T if is_tall else matrix)
    rows, columns = np.arange(len(pairs), dtype=np.intp), pairs
    if is_tall:
        order = np.argsort(pairs)
        rows, columns = pairs[order], order
    if forbidden[rows, columns].any():
        raise InputError("costs: every assignment contains a forbidden pair")
    return rows, columns


def _assign_rows(matrix: NDArray[np.float64]) -> Indices:
    """Return the column of each row of a (R, C) matrix, R <= C, finite.

    Plain lists: for the matrices of a frame they are several times faster than arrays of a few numbers.
    """
    costs = matrix.tolist()
    n_rows, n_columns = matrix.shape
    row_potential, column_potential = [0.0] * n_rows, [0.0] * n_columns
    owner = [-1] * n_columns
    for start in range(n_rows):
        # Dijkstra over the columns from one row, by reduced costs, until one without an owner is reached.
        shortest, came_from = [math.inf] * n_columns, [-1] * n_columns
        waiting, done = list(range(n_columns)), []
        row, last, column = start, 0.0, -1
        visited: list[tuple[int, float]] = []
        while True:
            visited.append((row, last))
            offset, row_costs = last - row_potential[row], costs[row]
            nearest = -1
            for other in waiting:
                length = offset + row_costs[other] - column_potential[other]
                if length < shortest[other]:
                    shortest[other], came_from[other] = length, column
                if nearest < 0 or shortest[other] < shortest[nearest]:
                    nearest = other
            column, last = nearest, shortest[nearest]
            waiting.remove(column)
            done.append(column)
            if owner[column] < 0:
                break
            row = owner[column]
        for visited_row, at in visited:
            row_potential[visited_row] += last - at
        for other in done:
            column_potential[other] -= last - shortest[other]
        while column >= 0:
            before = came_from[column]
            owner[column] = start if before < 0 else owner[before]
            column = before
    pairs = np.full(n_rows, -1, np.intp)
    for column, row in enumerate(owner):
        if row >= 0:
            pairs[row] = column
    return pairs

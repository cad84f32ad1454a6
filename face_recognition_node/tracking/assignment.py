"""The cheapest assignment of rows to columns, for the few faces of a frame.

The algorithm is that of shortest augmenting paths with potentials (Jonker and Volgenant 1987), as in SciPy,
whose ``optimize`` package would cost every process 0.3 s at its start and 45 MB for this one function.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def cheapest_columns(matrix: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the (R,) columns, all different, that cost least together in a finite (R, C) matrix, R <= C.

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

"""Gram matrices as the triangle on and above their diagonal, row by row: half the numbers, and sums of rows added to them.

In: rows of features [n d].  Out: their X'X, added to a triangle of d (d + 1) / 2 float64 numbers.
Cost: n d² operations for n rows, half of what a product of two matrices takes.

Up to `NARROW` columns everything is in double precision, and so are sources of fewer than `ROWS_PER_COLUMN` rows a column. More
rows of wider features are multiplied in single precision, a block of rows at a time, less a shift near their mean, and the sums
of blocks are added in double precision: an error of about 10⁻⁷ √(g_ii g_jj) in g_ij, g about the mean, in half the time. Of fewer
rows that error would be more than what they know of some directions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.linalg.blas import dsyrk, ssyrk

NARROW = 2048
"""Columns up to which double precision costs little: a thousand rows take some hundredths of a second."""
ROWS_PER_COLUMN = 4
"""Rows for each column from which on rounding in single precision is little beside what the rows say."""
ROWS = 4096
"""Rows that are summed in one precision at a time."""
SINGLE = (1e-12, 1e15)
"""Sizes of the largest feature between which squares and their sums stay in the range of single precision."""
SIDE = 512


def new_triangle(d: int) -> Float[np.ndarray, " t"]:
    """The triangle of no rows."""
    return np.zeros(d * (d + 1) // 2)


def in_single(rows: int, d: int) -> bool:
    """Whether so many rows of d columns are summed in single precision, as far as that goes."""
    return d > NARROW and rows >= ROWS_PER_COLUMN * d


def in_precision(X: Float[np.ndarray, "n d"], shift: Float[np.ndarray, " d"] | None) -> Float[np.ndarray, "n d"]:
    """Rows in the precision that they are summed in: less a shift, in single precision; without one in double precision."""
    single = shift is not None and _fits_single(X)
    precise: np.ndarray = X.astype(np.float32 if single else np.float64)
    return precise if shift is None else np.subtract(precise, shift, out=precise)


def shift_back(triangle: Float[np.ndarray, " t"], total: Float[np.ndarray, " d"], shift: Float[np.ndarray, " d"], n: int) -> None:
    """Turn the triangle of rows less a shift into theirs; `total` is the sum of the n rows themselves."""
    # X'X = (X − 1c')'(X − 1c') + c s' + (s − nc) c', s = X'1
    c, first, d = shift.astype(np.float64), 0, len(total)
    rest = total - n * c
    for i in range(d):
        triangle[first : first + d - i] += c[i] * total[i:] + rest[i] * c[i:]
        first += d - i


def add_rows(triangle: Float[np.ndarray, " t"], X: Float[np.ndarray, "n d"]) -> None:
    """Add X'X to a triangle, in the precision of X (`in_precision`); what overflows is infinite or NaN afterwards."""
    with np.errstate(over="ignore", invalid="ignore"):
        upper = (ssyrk if X.dtype == np.float32 else dsyrk)(1.0, X.T, lower=1).T
        d, first = len(upper), 0
        for i in range(d):
            triangle[first : first + d - i] += upper[i, i:]
            first += d - i


def symmetric(triangle: Float[np.ndarray, " t"], d: int) -> Float[np.ndarray, "d d"]:
    """The whole matrix."""
    whole, first = np.empty((d, d)), 0
    for i in range(d):
        whole[i, i:] = triangle[first : first + d - i]
        first += d - i
    for i in range(0, d, SIDE):
        corner = whole[i : i + SIDE, i : i + SIDE]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        whole[i + SIDE :, i : i + SIDE] = whole[i : i + SIDE, i + SIDE :].T
    return whole


def is_finite(triangle: Float[np.ndarray, " t"], d: int) -> bool:
    """Whether sums of squares stayed finite; where those on the diagonal did, all did (Cauchy and Schwarz)."""
    first = np.concatenate([[0], np.cumsum(np.arange(d, 1, -1))])
    return bool(np.isfinite(triangle[first]).all())


def _fits_single(X: Float[np.ndarray, "n d"]) -> bool:
    largest = max(float(X.max()), -float(X.min())) if X.size else 0.0
    return largest == 0.0 or SINGLE[0] < largest < SINGLE[1]

"""Means and deviations of columns from one pass over their rows.

In: rows a block at a time.  Out: `Moments`, in float64.
Cost: one pass, one block in float64. Blocks are merged by their means, so a large offset costs no digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the columns of n rows: `mean` and `deviation` [d]; `broken` rows hold a number that is NaN or infinite."""

    n: int
    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]
    broken: int


def moments_of(blocks: Iterable[Float[np.ndarray, "_ d"]]) -> Moments:
    """The moments of all blocks' rows; there is one row at least, in the first block."""
    n, broken, mean, spread = 0, 0, np.zeros(1), np.zeros(1)
    with np.errstate(invalid="ignore", over="ignore"):  # broken rows are counted; what overflows is an infinite deviation
        for block in (block for block in blocks if len(block)):
            broken += broken_rows(block)
            own, x = len(block), block.astype(np.float64)
            own_mean = x.sum(axis=0) / own
            x -= own_mean
            own_spread = np.square(x, out=x).sum(axis=0)
            if n:  # mean = mean_a + δ n_b / n,  Σ(x − mean)² = M_a + M_b + δ² n_a n_b / n,  δ = mean_b − mean_a
                delta = own_mean - mean
                own_mean = mean + delta * (own / (n + own))
                own_spread += spread + delta**2 * (n * own / (n + own))
            n, mean, spread = n + own, own_mean, own_spread
        return Moments(n, mean, np.sqrt(spread / n), broken)


def broken_rows(block: Float[np.ndarray, "_ d"]) -> int:
    """How many rows hold a number that is NaN or infinite."""
    return int((~np.isfinite(block).all(axis=1)).sum())

"""Intervals: 95 % bootstrap by prompt group, for every number that is reported.

In: a statistic of row weights, and each row's group.  Out: `Interval`.  Cost: resamples x rows numbers, in blocks.

Rows of one prompt are not independent, so whole groups are drawn with replacement; a resample is then a count per row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

BLOCK = 4_000_000
"""Weights (resamples x rows) that are held at a time."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Row weights [r n] (how often each row counts in each of r resamples) → q numbers for each, [r q]; NaN = undefined."""


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its interval; NaN where undefined (the ends too, where there is only one group)."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """`{"value", "low", "high"}`, with null for NaN (JSON has no NaN)."""
        return {name: None if math.isnan(x) else x for name, x in vars(self).items()}

    @classmethod
    def undefined(cls) -> Interval:
        return cls(math.nan, math.nan, math.nan)


def bootstrap_by_group(
    statistic: Statistic, groups: Sequence[str], *, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[Interval, ...]:
    """Percentile intervals of q numbers, drawing whole groups with replacement; deterministic for a seed.

    `value` is the statistic of all rows once. Resamples in which a number is undefined are left out of its interval; where
    they are more than half, or there are fewer than two groups, the ends are NaN.
    """
    n = len(groups)
    values = np.asarray(statistic(np.ones((1, n))), dtype=np.float64)[0]
    _, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    size = int(group_of.max()) + 1 if n else 0
    if size < 2:
        return tuple(Interval(float(v), math.nan, math.nan) for v in values)
    rng, block = np.random.default_rng(seed), max(1, BLOCK // n)
    drawn = [statistic(_counts(rng, min(block, resamples - start), size)[:, group_of]) for start in range(0, resamples, block)]
    return tuple(interval_of(float(v), column, level=level) for v, column in zip(values, np.concatenate(drawn).T, strict=True))


def mean_by_group(
    values: Float[np.ndarray, " n"], groups: Sequence[str], *, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """The mean of one number per row (an accuracy, a paired difference) with its interval by group; rows must be finite."""
    if not len(values):
        return Interval.undefined()

    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights @ values / weights.sum(axis=1))[:, None]

    return bootstrap_by_group(mean, groups, seed=seed, resamples=resamples, level=level)[0]


def _counts(rng: np.random.Generator, resamples: int, size: int) -> Float[np.ndarray, "r g"]:
    drawn = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.float64)


def interval_of(value: float, drawn: Float[np.ndarray, " r"], *, level: float = 0.95) -> Interval:
    """A number with the percentiles of its resamples; the ends are NaN where it is undefined, or in half of them."""
    defined = drawn[np.isfinite(drawn)]
    if math.isnan(value) or 2 * len(defined) <= len(drawn):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))

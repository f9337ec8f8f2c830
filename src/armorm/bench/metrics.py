"""Length correlation, and what every figure with an interval needs: intervals at the ends of a scale, and a permutation test.

In: scores and lengths [n], the prompt group of each row; sums per group.  Out: `LengthCorrelation`, `PairedDifference`, each with
its JSON.  Cost: per-group sums once, then one [resamples, groups] matrix of counts in blocks of bounded size.

Answers to one prompt are not independent, so the unit that is drawn anew is the prompt group. Intervals are percentile
bootstraps, with two exceptions where a bootstrap sees no spread and would claim certainty: a perfect (or null) score takes the
exact binomial bound over groups, and a single group gives the whole range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from armorm.errors import DataError
from armorm.intervals import Interval, bootstrap_by_group, mean_by_group
from armorm.results import Estimate, Number, Result

RESAMPLES = 2_000
PERMUTATIONS = 10_000
_CELLS = 1 << 22  # signs held at once by one block of permutations
_TAIL = 0.025  # on each side of a 95 % interval

Counts = Float[np.ndarray, "b groups"]  # how often each group was drawn, one row per resample
Weights = Float[np.ndarray, "b n"]  # how often each answer is present, one row per resample


class PairedDifference(Result):
    """How much higher one method's value is than another's on the same items, and the p of "no difference"."""

    difference: Estimate
    """In shares of the pairs, from −1 to 1."""
    p: Number
    """Two-sided, by flipping the signs of the prompts' differences."""


class LengthCorrelation(Result):
    """Rank correlation of score and length, in [−1, 1]."""

    pooled: Estimate
    """Over all answers."""
    within_prompt: Estimate
    """Among answers to the same prompt."""


def length_correlation(
    scores: Float[np.ndarray, " n"],
    lengths: Float[np.ndarray, " n"] | Int[np.ndarray, " n"],
    prompts: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> LengthCorrelation:
    """Spearman correlation of score and length, pooled over all answers and within prompts.

    Pooled mixes two things: prompts that call for long answers, and long answers preferred. Within prompts takes the
    first away: scores and lengths are ranked among the answers to one prompt (mean rank on ties), divided by their
    number, centred, and correlated over all answers; with two answers a prompt and no ties it is the share of prompts
    whose longer answer scores higher, minus the rest. Both intervals resample prompts. Answers with a NaN score are
    left out; NaN comes back where scores or lengths do not vary. Raises `DataError` when lengths differ.
    """
    check_lengths(scores, lengths, "lengths")
    check_lengths(scores, prompts, "prompts")
    kept = ~np.isnan(scores)
    if not kept.any():
        return LengthCorrelation(pooled=Interval.undefined(), within_prompt=Interval.undefined())
    membership = places_of([prompt for prompt, row in zip(prompts, kept, strict=True) if row])
    score, length = scores[kept], lengths[kept].astype(np.float64)
    pooled = _pooled_spearman(score, length, membership, seed, resamples)
    within = _within_spearman(score, length, membership, seed, resamples)
    return LengthCorrelation(pooled=bound(pooled, -1.0), within_prompt=bound(within, -1.0))


def exact_at_the_ends(one: Interval, n_groups: int) -> Interval:
    """The binomial bound over groups where all outcomes are alike, so that no resample differs from the data."""
    least = _TAIL ** (1 / n_groups)
    if one.value == 1.0:
        return Interval(1.0, least, 1.0)
    return Interval(0.0, 0.0, 1.0 - least) if one.value == 0.0 else one


def share_by_group(values: Float[np.ndarray, " n"], groups: Sequence[str], *, seed: int, resamples: int = 1000) -> Interval:
    """The mean of values in [0, 1] with its interval by group, exact where all are alike; undefined without any."""
    mean = mean_by_group(values, groups, seed=seed, resamples=resamples)
    return bound(exact_at_the_ends(mean, max(len(set(groups)), 1)), 0.0)


def bound(one: Interval, lowest: float) -> Interval:
    """The whole range [lowest, 1] where the value is known and its interval is not: a single group says no more."""
    return Interval(one.value, lowest, 1.0) if math.isnan(one.low) and not math.isnan(one.value) else one


def toss_coins(times: int, coins: int, *, seed: int) -> Iterator[Float[np.ndarray, "b coins"]]:
    """So many coins tossed so many times, a block of tosses at a time: 0 or 1."""
    generator = np.random.default_rng([seed, 1])  # a stream apart from the bootstrap's
    block = max(1, _CELLS // coins)
    for start in range(0, times, block):
        yield generator.integers(2, size=(min(block, times - start), coins), dtype=np.int8).astype(np.float64)


def sign_flip(sums: Float[np.ndarray, " groups"], seed: int, permutations: int) -> float:
    """Two-sided p of "no difference" from each group's sum of differences.

    Under "no difference" a group's sum is as likely as its negative: p is the share of sign assignments whose |sum| reaches the
    observed one, itself included, so never below 1 / (permutations + 1).
    """
    moving = sums[sums != 0]  # a sum of zero is its own negative
    if len(moving) == 0:
        return 1.0
    # sums of halves are exact in floating point; weighted ones get some room, so that the observed arrangement counts as reached
    least = abs(moving.sum()) - 1e-12 * np.abs(moving).sum()
    reached = 0
    for coins in toss_coins(permutations, len(moving), seed=seed):
        flipped = moving.sum() - 2 * (coins @ moving)
        reached += int(np.sum(np.abs(flipped) >= least))
    return (reached + 1) / (permutations + 1)


def _pooled_spearman(
    score: Float[np.ndarray, " n"], length: Float[np.ndarray, " n"], membership: Int[np.ndarray, " n"], seed: int, resamples: int
) -> Interval:
    _, score_level = np.unique(score, return_inverse=True)
    _, length_level = np.unique(length, return_inverse=True)

    def spearman(weights: Weights) -> Float[np.ndarray, "b 1"]:  # a prompt drawn twice brings its answers twice
        a = _weighted_ranks(score_level, weights)
        b = _weighted_ranks(length_level, weights)
        return _ratio((weights * a * b).sum(axis=1), (weights * a * a).sum(axis=1), (weights * b * b).sum(axis=1))

    groups = [f"{group:09d}" for group in membership]
    return bootstrap_by_group(spearman, groups, seed=seed, resamples=resamples)[0]


def _weighted_ranks(levels: Int[np.ndarray, " n"], weights: Weights) -> Float[np.ndarray, "b n"]:
    """Centred mean ranks of rows that are present `weights` times; `levels` are their values' places in order."""
    n_levels = int(levels.max()) + 1
    cells = levels + np.arange(len(weights))[:, None] * n_levels
    mass = np.bincount(cells.ravel(), weights=weights.ravel(), minlength=len(weights) * n_levels)
    mass = mass.reshape(len(weights), n_levels)
    mean_rank = np.cumsum(mass, axis=1) - mass / 2
    # the mean rank over all rows present is half their number
    return mean_rank[:, levels] - weights.sum(axis=1, keepdims=True) / 2


def _within_spearman(
    score: Float[np.ndarray, " n"], length: Float[np.ndarray, " n"], membership: Int[np.ndarray, " n"], seed: int, resamples: int
) -> Interval:
    a, b = (_ranks_within(values, membership) for values in (score, length))
    ab, aa, bb = (np.bincount(membership, weights=product) for product in (a * b, a * a, b * b))

    def correlation(counts: Counts) -> Float[np.ndarray, "b 1"]:
        return _ratio(counts @ ab, counts @ aa, counts @ bb)

    return bootstrap_by_group(correlation, place_names(len(ab)), seed=seed, resamples=resamples)[0]


def _ranks_within(values: Float[np.ndarray, " n"], membership: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Mean ranks among the rows of the same group, divided by their number and centred on zero."""
    ranks = np.zeros(len(values))
    order = np.argsort(membership, kind="stable")
    ends = np.flatnonzero(np.diff(membership[order])) + 1
    for rows in np.split(order, ends):
        ranks[rows] = (rankdata(values[rows]) - (len(rows) + 1) / 2) / len(rows)
    return ranks


def _ratio(ab: Float[np.ndarray, " b"], aa: Float[np.ndarray, " b"], bb: Float[np.ndarray, " b"]) -> Float[np.ndarray, "b 1"]:
    """ab / √(aa · bb), NaN where either side does not vary."""
    scale = np.sqrt(aa * bb)
    return np.divide(ab, scale, out=np.full(len(ab), np.nan), where=scale > 1e-12)[:, None]


def place_names(n_groups: int) -> list[str]:
    """One name a group, in order: the statistics here take sums per group, so each group is one row."""
    return [f"{place:09d}" for place in range(n_groups)]


def places_of(names: Sequence[str]) -> Int[np.ndarray, " n"]:
    """The place of each row's name among the sorted distinct names."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def check_lengths(values: np.ndarray, others: Sequence[Any] | np.ndarray, what: str) -> None:
    if len(values) != len(others):
        raise DataError(f"{len(values)} scored items but {len(others)} {what}: give one for each, in the same order")

"""Abstention: how often comparisons are wrong when those too close to call are left open.

In: score differences of pairs, their standard deviations, whether each pair was ranked right, prompt groups.
Out: `AbstentionCurve`.  Cost: one bootstrap per level.

Pairs are put in order of certainty, |margin| / std, and the least certain share is left open; beside it, the same with |margin|
alone, which a model without standard deviations could do. A pair's standard deviation holds what few ratings leave open in the
probe's weights. It knows nothing of the gate's errors or of raters who disagree, so z is a ranking of pairs whose error rate is
measured here, not a probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.bench.metrics import share_by_group
from armorm.errors import DataError
from armorm.intervals import Interval, bootstrap_by_group
from armorm.results import Estimate, Number, Result

LEVELS = tuple(round(0.1 * i, 1) for i in range(10))
RULES = (0.5, 1.0, 1.645, 1.96, 3.0)


class AbstentionPoint(Result):
    """Errors when some of the pairs are left open."""

    abstained: float
    """The share left open."""
    decided: int
    """Pairs that are called."""
    threshold: Number
    """The certainty from which a pair is called."""
    error: Estimate
    """The share of called pairs that are ranked wrong, ties half."""


class AbstentionCurve(Result):
    """Error rates by the share of pairs left open."""

    n: int
    """All pairs."""
    by_z: tuple[AbstentionPoint, ...]
    """Those with the least |margin| / standard deviation left open first."""
    by_margin: tuple[AbstentionPoint, ...]
    """Those with the least |margin| left open first."""
    rules: tuple[AbstentionPoint, ...]
    """All with |margin| < z · standard deviation left open, for a few z."""
    area_z: Estimate
    """Mean error rate over all shares left open, by z."""
    area_margin: Estimate
    """The same by margin."""
    area_gain: Estimate
    """The latter minus the former, above 0 where standard deviations help."""


def certainty(margins: Float[np.ndarray, " p"], stds: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """z = |margin| / std; 0 for no margin at all, infinite for a margin without uncertainty."""
    size = np.abs(margins)
    with np.errstate(all="ignore"):
        return np.where(size > 0, size / stds, 0.0)


def too_close_to_call(margins: Float[np.ndarray, " p"], stds: Float[np.ndarray, " p"], z: float = 1.96) -> Bool[np.ndarray, " p"]:
    """Pairs whose margin is no more than `z` standard deviations would explain: |margin| < z · std, or no margin."""
    return (certainty(margins, stds) < z) | (margins == 0)


def abstention_curve(
    margins: Float[np.ndarray, " p"],
    stds: Float[np.ndarray, " p"],
    right: Float[np.ndarray, " p"] | Bool[np.ndarray, " p"],
    groups: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> AbstentionCurve:
    """Error rates at each level of abstention, with 95 % intervals by prompt.

    `right`: whether the sign of the margin was right, 0.5 for a tie. Raises DataError for arrays of different lengths, numbers
    that are not finite, negative standard deviations.
    """
    _check(margins, stds, right, groups)
    n, size = len(margins), np.abs(margins)
    wrong, z, names = 1 - right.astype(np.float64), certainty(margins, stds), np.asarray(groups, dtype=str)

    def point(kept: np.ndarray, threshold: float, left_open: float) -> AbstentionPoint:
        error = share_by_group(wrong[kept], names[kept].tolist(), seed=seed, resamples=resamples)
        return AbstentionPoint(abstained=left_open, decided=len(kept), threshold=threshold, error=error)

    def curve(sure: Float[np.ndarray, " p"], order: Int[np.ndarray, " p"]) -> tuple[AbstentionPoint, ...]:
        decided = [(level, order[: max(1, round(n * (1 - level)))]) for level in LEVELS]
        return tuple(point(kept, float(sure[kept[-1]]) if n else float("nan"), level) for level, kept in decided)

    def rule(times: float) -> AbstentionPoint:
        kept = np.flatnonzero(~too_close_to_call(margins, stds, times))
        return point(kept, times, 1 - len(kept) / n if n else 0.0)

    orders = [np.argsort(-sure, kind="stable") for sure in (z, size)]

    def areas(weights: np.ndarray) -> np.ndarray:
        columns = []
        for order in orders:
            drawn = weights[:, order]
            decided = np.cumsum(drawn, axis=1)
            rate = np.cumsum(drawn * wrong[order], axis=1) / np.maximum(decided, 1)
            columns.append((rate * drawn).sum(axis=1) / decided[:, -1])
        by_z, by_margin = columns
        return np.stack([by_z, by_margin, by_margin - by_z], axis=1)

    area_z, area_margin, area_gain = (
        bootstrap_by_group(areas, groups, seed=seed, resamples=resamples) if n else (Interval.undefined(),) * 3
    )
    return AbstentionCurve(
        n=n,
        by_z=curve(z, orders[0]),
        by_margin=curve(size, orders[1]),
        rules=tuple(rule(times) for times in RULES),
        area_z=area_z,
        area_margin=area_margin,
        area_gain=area_gain,
    )


def _check(margins: np.ndarray, stds: np.ndarray, right: np.ndarray, groups: Sequence[str]) -> None:
    sizes = {len(margins), len(stds), len(right), len(groups)}
    if len(sizes) > 1:
        raise DataError(
            f"there are {len(margins)} margins, {len(stds)} standard deviations, {len(right)} outcomes and {len(groups)} groups: "
            "give one of each per pair"
        )
    if not (np.isfinite(margins).all() and np.isfinite(stds).all()) or (stds < 0).any():
        raise DataError("margins and standard deviations must be finite, the latter not negative: leave unscored pairs out")

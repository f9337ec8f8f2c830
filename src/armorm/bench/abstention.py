"""Abstention: how often comparisons are wrong when those too close to call are left open.

In: score differences of pairs, the probabilities of their winners, whether each pair was ranked right, prompt groups.
Out: `AbstentionCurve`.  Cost: one bootstrap per level.

Pairs are put in order of confidence, the calibrated probability's distance from ½, and the least sure share is left open; beside
it, the same with |margin| alone, which needs no calibration. The probability never falls with the margin, so the two orders
differ only where it gives one value to several margins. What it adds is what a threshold means: "called at 80 %" promises an
error rate, and the one that is found stands beside it. Pairs of one confidence are one block, any part of which is as good as
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.bench.metrics import bound, exact_at_the_ends
from armorm.bench.reliability import confidence
from armorm.errors import DataError
from armorm.intervals import Interval, bootstrap_by_group
from armorm.results import Estimate, Number, Result

LEVELS = tuple(round(0.1 * i, 1) for i in range(10))
RULES = (0.6, 0.7, 0.8, 0.9, 0.95)


class AbstentionPoint(Result):
    """Errors when some of the pairs are left open."""

    abstained: float
    """The share left open."""
    decided: int
    """Pairs that are called."""
    threshold: Number
    """The probability of being right, or the |margin|, from which a pair is called."""
    error: Estimate
    """The share of called pairs that are ranked wrong, ties half."""
    promised: Number
    """The same by the probabilities; null where the margin decides."""


class AbstentionCurve(Result):
    """Error rates by the share of pairs left open."""

    n: int
    """All pairs."""
    by_probability: tuple[AbstentionPoint, ...]
    """Those with the probability nearest ½ left open first; none without a calibration."""
    by_margin: tuple[AbstentionPoint, ...]
    """Those with the least |margin| left open first."""
    rules: tuple[AbstentionPoint, ...]
    """All with a probability of being right below a threshold left open, for a few thresholds."""
    area_probability: Estimate
    """Mean error rate over all shares left open, by probability."""
    area_margin: Estimate
    """The same by margin."""
    area_gain: Estimate
    """The latter minus the former, 0 where the probability tells all margins apart."""


@dataclass(frozen=True, eq=False)
class _Order:
    """Pairs, the surest first: their places, and where each block of equally sure ones begins."""

    sure: Float[np.ndarray, " p"]
    places: Int[np.ndarray, " p"]
    starts: Int[np.ndarray, " b"]

    @classmethod
    def of(cls, sure: Float[np.ndarray, " p"]) -> _Order:
        places = np.argsort(-sure, kind="stable")
        return cls(sure, places, np.flatnonzero(np.diff(sure[places], prepend=np.inf)))

    def part(self, decided: int) -> Float[np.ndarray, " p"]:
        """How much of each pair is called when so many are: 1 or 0, and an even part in the block in which the line falls."""
        ends = np.append(self.starts, len(self.places))
        last = int(np.searchsorted(ends, decided)) - 1  # the block in which it falls
        called = np.zeros(len(self.places))
        called[self.places[: ends[last]]] = 1.0
        called[self.places[ends[last] : ends[last + 1]]] = (decided - ends[last]) / (ends[last + 1] - ends[last])
        return called

    def area(self, wrong: Float[np.ndarray, " p"], weights: Float[np.ndarray, "r p"]) -> Float[np.ndarray, " r"]:
        """Mean error rate over all shares left open; `weights` say how often each pair is there."""
        drawn = weights[:, self.places]
        decided = np.cumsum(drawn, axis=1)
        errors, counts = (np.add.reduceat(x, self.starts, axis=1) for x in (drawn * wrong[self.places], drawn))
        of_block = np.repeat(errors / np.maximum(counts, 1), np.diff(np.append(self.starts, len(self.places))), axis=1)
        rate = np.cumsum(drawn * of_block, axis=1) / np.maximum(decided, 1)
        return (rate * drawn).sum(axis=1) / decided[:, -1]


def abstention_curve(
    margins: Float[np.ndarray, " p"],
    probabilities: Float[np.ndarray, " p"] | None,
    right: Float[np.ndarray, " p"] | Bool[np.ndarray, " p"],
    groups: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> AbstentionCurve:
    """Error rates at each level of abstention, with 95 % intervals by prompt.

    `probabilities`: those of the winners (None: the model has no calibration). `right`: whether the sign of the margin was right,
    0.5 for a tie. Raises DataError for arrays of different lengths, margins that are not finite, probabilities beyond 0 and 1.
    """
    _check(margins, probabilities, right, groups)
    n, names, wrong = len(margins), np.asarray(groups, dtype=str), 1 - right.astype(np.float64)
    by_margin = _Order.of(np.abs(margins))
    by_probability = by_margin if probabilities is None else _Order.of(confidence(probabilities))

    def point(called: np.ndarray, threshold: float, left_open: float, *, sure: bool) -> AbstentionPoint:
        rows = np.flatnonzero(called)
        error = _share_called(wrong[rows], called[rows], names[rows].tolist(), seed=seed, resamples=resamples)
        promised = float(np.average(1 - by_probability.sure[rows], weights=called[rows])) if sure and len(rows) else float("nan")
        decided = round(float(called.sum()))
        return AbstentionPoint(abstained=left_open, decided=decided, threshold=threshold, error=error, promised=promised)

    def curve(order: _Order, *, sure: bool) -> tuple[AbstentionPoint, ...]:
        points = []
        for left_open in LEVELS:
            most = min(n, max(1, round(n * (1 - left_open))))
            called = order.part(most) if n else np.zeros(0)
            lowest = float(order.sure[order.places[most - 1]]) if n else float("nan")
            points.append(point(called, lowest, left_open, sure=sure))
        return tuple(points)

    def rule(threshold: float) -> AbstentionPoint:
        called = (by_probability.sure >= threshold).astype(np.float64)
        return point(called, threshold, 1 - float(called.mean()) if n else 0.0, sure=True)

    def areas(weights: np.ndarray) -> np.ndarray:
        ours, plain = (order.area(wrong, weights) for order in (by_probability, by_margin))
        return np.stack([ours, plain, plain - ours], axis=1)

    ours, plain, gain = bootstrap_by_group(areas, groups, seed=seed, resamples=resamples) if n else (Interval.undefined(),) * 3
    known = probabilities is not None
    return AbstentionCurve(
        n=n,
        by_probability=curve(by_probability, sure=True) if known else (),
        by_margin=curve(by_margin, sure=False),
        rules=tuple(rule(threshold) for threshold in RULES) if known else (),
        area_probability=ours if known else Interval.undefined(),
        area_margin=plain,
        area_gain=gain if known else Interval.undefined(),
    )


def _share_called(
    wrong: Float[np.ndarray, " c"], called: Float[np.ndarray, " c"], groups: Sequence[str], *, seed: int, resamples: int
) -> Interval:
    """The share of what is called that is wrong, with its interval by prompt, exact where all outcomes are alike."""
    if not len(wrong):
        return Interval.undefined()

    def share(weights: np.ndarray) -> np.ndarray:
        return (weights @ (called * wrong) / (weights @ called))[:, None]

    (found,) = bootstrap_by_group(share, groups, seed=seed, resamples=resamples)
    return bound(exact_at_the_ends(found, len(set(groups))), 0.0)


def _check(margins: np.ndarray, probabilities: np.ndarray | None, right: np.ndarray, groups: Sequence[str]) -> None:
    sizes = {len(margins), len(right), len(groups), *(() if probabilities is None else (len(probabilities),))}
    if len(sizes) > 1:
        told = "no" if probabilities is None else str(len(probabilities))
        raise DataError(
            f"there are {len(margins)} margins, {told} probabilities, {len(right)} outcomes and {len(groups)} groups: "
            "give one of each per pair"
        )
    if not np.isfinite(margins).all():
        raise DataError("margins must be finite: leave unscored pairs out")
    if probabilities is not None and not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DataError("probabilities must lie between 0 and 1: leave unscored pairs out")

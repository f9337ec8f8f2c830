"""How good a probe is: predicted against given ratings, objective by objective, with intervals.

In: predictions [n k] on the [0, 1] scale, ratings [n k] on the raw scales (NaN = no label), each row's prompt group.
Out: one `ObjectiveQuality` per objective; one `MeanQuality` for each of several probes on the same rows.
Cost: resamples x labelled rows per objective, a sort each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from armorm.errors import FitError, ObjectiveMismatch
from armorm.intervals import Interval, bootstrap_by_group
from armorm.objectives import Objective, Objectives


@dataclass(frozen=True)
class ObjectiveQuality:
    """One objective's agreement with its ratings: `n` labelled rows, `rmse` on the raw scale, `auc` for binary objectives only.

    Numbers that are undefined (no rows, constant ratings) are NaN. Spearman's interval ranks the rows once and resamples the
    ranks, which leaves out the small spread that ranking anew would add.
    """

    name: str
    n: int
    pearson: Interval
    spearman: Interval
    r2: Interval
    rmse: Interval
    auc: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {k: v.to_json() if isinstance(v, Interval) else v for k, v in vars(self).items()}


def probe_quality(
    predicted: Float[np.ndarray, "n k"],
    ratings_raw: Float[np.ndarray, "n k"],
    objectives: Objectives,
    groups: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> list[ObjectiveQuality]:
    """Pearson, Spearman, R², RMSE (raw scale) and AUC (binary objectives) with 95 % bootstrap intervals by prompt group.

    Raises ObjectiveMismatch for another number of columns, FitError for predictions that are not finite.
    """
    if predicted.shape[1] != len(objectives) or ratings_raw.shape != predicted.shape or len(groups) != len(predicted):
        raise ObjectiveMismatch(
            f"predictions are {predicted.shape}, ratings {ratings_raw.shape}, groups {len(groups)}, "
            f"objectives {len(objectives)}: give a row per response and a column per objective"
        )
    if not np.isfinite(predicted).all():
        raise FitError("some predictions are NaN or infinite: check the features that they were made from")
    found, names = [], np.asarray(groups, dtype=str)
    for i, objective in enumerate(objectives):
        rows = ~np.isnan(ratings_raw[:, i])
        p, y = predicted[rows, i].astype(np.float64), ratings_raw[rows, i].astype(np.float64)
        found.append(_quality(objective, p, y, names[rows].tolist(), seed, resamples))
    return found


@dataclass(frozen=True)
class MeanQuality:
    """Pearson's correlation averaged over objectives, and how far it is above another probe's on the same rows."""

    pearson: Interval
    gain: Interval


def mean_quality(
    predicted: Sequence[Float[np.ndarray, "n k"]],
    ratings_raw: Float[np.ndarray, "n k"],
    objectives: Objectives,
    groups: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> list[MeanQuality]:
    """Several probes' predictions of the same ratings, each beside the first's, with 95 % bootstrap intervals by prompt group.

    The mean is over the objectives whose correlation is defined for every probe (in a resample: of those, the ones that are
    defined there); without any it is NaN. Raises ObjectiveMismatch for predictions of another shape than the ratings'.
    """
    if strange := [p.shape for p in predicted if p.shape != ratings_raw.shape]:
        raise ObjectiveMismatch(f"predictions are {strange[0]}, ratings {ratings_raw.shape}: give the same rows and objectives")
    rows = [np.flatnonzero(~np.isnan(ratings_raw[:, i])) for i in range(len(objectives))]
    unit = objectives.to_unit(ratings_raw)

    def by_objective(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        columns = [weighted_pearson(weights[:, at], values[at, i], unit[at, i]) for i, at in enumerate(rows) if len(at)]
        return np.stack(columns, axis=1) if columns else np.full((len(weights), 1), np.nan)

    whole = np.concatenate([by_objective(np.ones((1, len(groups))), values) for values in predicted])
    usable = np.isfinite(whole).all(axis=0)

    def means(weights: np.ndarray) -> np.ndarray:
        found = np.stack([by_objective(weights, values)[:, usable] for values in predicted], axis=1)  # [r methods objectives]
        there = np.isfinite(found).all(axis=1, keepdims=True)
        mean = _ratio(np.where(there, found, 0).sum(axis=2), np.broadcast_to(there.sum(axis=2), found.shape[:2]).astype(float))
        return np.concatenate([mean, mean - mean[:, :1]], axis=1)

    intervals = bootstrap_by_group(means, groups, seed=seed, resamples=resamples)
    return [MeanQuality(intervals[i], intervals[len(predicted) + i]) for i in range(len(predicted))]


def _quality(
    objective: Objective,
    predicted: Float[np.ndarray, " n"],
    raw: Float[np.ndarray, " n"],
    groups: list[str],
    seed: int,
    resamples: int,
) -> ObjectiveQuality:
    n, nothing = len(raw), Interval.undefined()
    if not n:
        return ObjectiveQuality(objective.name, 0, nothing, nothing, nothing, nothing, nothing if objective.binary else None)
    in_raw = np.asarray(objective.from_unit(predicted))
    unit = np.asarray(objective.to_unit(raw))
    ranks = rankdata(predicted), rankdata(unit)
    binary = objective.binary and len(np.unique(raw)) <= 2  # a 0 to 1 scale may also hold ratings between its ends

    def statistics(weights: np.ndarray) -> np.ndarray:
        error = weights @ (in_raw - raw) ** 2
        columns = [
            weighted_pearson(weights, predicted, unit),
            weighted_pearson(weights, *ranks),
            1 - _ratio(error, _spread(weights, raw)),
            np.sqrt(error / weights.sum(axis=1)),
        ]
        return np.stack([*columns, weighted_auc(weights, predicted, unit > 0.5)] if binary else columns, axis=1)

    intervals = bootstrap_by_group(statistics, groups, seed=seed, resamples=resamples)
    pearson, spearman, r2, rmse, *auc = intervals
    return ObjectiveQuality(objective.name, n, pearson, spearman, r2, rmse, auc[0] if auc else None)


def weighted_pearson(
    weights: Float[np.ndarray, "r n"], x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " r"]:
    """Pearson's correlation for each row of weights; NaN where x or y does not vary or all weights are 0."""
    x, y = x - x.mean(), y - y.mean()  # sums about the middle lose no digits
    joint = weights @ (x * y) - _ratio((weights @ x) * (weights @ y), weights.sum(axis=1))
    return _ratio(joint, np.sqrt(_spread(weights, x) * _spread(weights, y)))


def weighted_auc(
    weights: Float[np.ndarray, "r n"], scores: Float[np.ndarray, " n"], positive: np.ndarray
) -> Float[np.ndarray, " r"]:
    """Probability that a positive row scores above a negative one (ties count half), for each row of weights."""
    values, level = np.unique(scores, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(values)))
    sums = [np.add.reduceat((weights * mask)[:, order], starts, axis=1) for mask in (positive, ~positive)]
    above, below = sums  # positives and negatives at each level of the score
    wins = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return _ratio(wins, above.sum(axis=1) * below.sum(axis=1))


def _spread(weights: Float[np.ndarray, "r n"], x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " r"]:
    # Σ w (x − x̄_w)², exactly 0 where rounding is all there is
    x = x - x.mean()
    square = weights @ (x * x)
    spread = square - _ratio((weights @ x) ** 2, weights.sum(axis=1))
    return np.where(spread > 1e-12 * square, spread, 0.0)


def _ratio(above: Float[np.ndarray, "*r"], below: Float[np.ndarray, "*r"]) -> Float[np.ndarray, "*r"]:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)

"""Linear probe (eq. 1): one ridge regression per objective, each over the rows that carry its label.

In: `RidgeStatistics`, one per fold (folds made by prompt group).  Out: `ProbeFit` with the `Probe`, weights [k d].
Cost: no row is read; per distinct gram matrix one eigendecomposition (d³) per fold and one for the final fit, whatever
the number of strengths and objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from jaxtyping import Float

from armorm.bounds import STRONGEST, WEAKEST, shown
from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.statistics import RidgeStatistics, SharedStatistics, eigen_of
from armorm.objectives import Objectives

BLOCK = 8192  # rows that are in float64 at one time
NO_VARIANCE = 1e-10
"""Labels (in [0, 1]) whose variance is below this are constant."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Rewards as linear functions of features: `weights` [k d], `intercepts` [k], and `alphas` [k], the strengths of the fit."""

    objectives: Objectives
    weights: Float[np.ndarray, "k d"]
    intercepts: Float[np.ndarray, " k"]
    alphas: Float[np.ndarray, " k"]

    def __post_init__(self) -> None:
        if not len(self.objectives) == len(self.weights) == len(self.intercepts) == len(self.alphas):
            raise ObjectiveMismatch(
                f"a probe of {len(self.objectives)} objectives has {len(self.weights)} rows of weights, "
                f"{len(self.intercepts)} intercepts and {len(self.alphas)} strengths: fit the probe again"
            )

        if not (np.isfinite(self.weights).all() and np.isfinite(self.intercepts).all()):
            raise FitError("the probe has weights that are NaN or infinite: its features are too large: fit it on scaled ones")

    def predict(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Rewards [n k] on the [0, 1] scale (predictions may lie outside it). Raises FitError for another width."""
        if features.shape[1] != self.weights.shape[1]:
            raise FitError(
                f"the probe reads features of width {self.weights.shape[1]}, these have {features.shape[1]}: "
                "use the backbone and the feature settings that it was fitted with"
            )
        blocks = [features[i : i + BLOCK].astype(np.float64) @ self.weights.T for i in range(0, max(len(features), 1), BLOCK)]
        return np.concatenate(blocks) + self.intercepts


@dataclass(frozen=True, eq=False)
class ProbeFit:
    """A probe and how its strengths were chosen.

    `cv_pearson` [k]: of held-out predictions, pooled over the folds, at the chosen strength (NaN where an objective
    can't be fitted). `errors` [k a]: mean held-out squared error for each strength in `grid` [a]. `n`: labelled rows each.
    """

    probe: Probe
    cv_pearson: Float[np.ndarray, " k"]
    errors: Float[np.ndarray, "k a"]
    grid: Float[np.ndarray, " a"]
    n: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def mean_cv_pearson(self) -> float:
        """Mean over the objectives that could be fitted: what feature candidates are compared by."""
        usable = self.cv_pearson[np.isfinite(self.cv_pearson)]
        return float(usable.mean()) if len(usable) else float("nan")


def fit_probe(
    folds: Sequence[RidgeStatistics],
    objectives: Objectives,
    *,
    alphas: Sequence[float],
    intercept: bool = False,
    min_rows: int = 50,
) -> ProbeFit:
    """Fits eq. 1 with a strength per objective chosen by cross-validation over `folds`, then refits on all of them.

    `alphas` are scikit-learn's (the penalty is alpha · ‖w‖² beside the sum of squared errors). The paper has no intercept;
    with one it is not penalised. An objective with no rows or constant labels gets zero weights and a warning.

    Raises FitError for fewer than two folds, strengths that are not positive, or when no objective can be fitted;
    ObjectiveMismatch when the statistics have another number of objectives.
    """
    grid = _check(folds, objectives, alphas)
    k, total = len(objectives), reduce(add, folds)
    weights, intercepts = np.zeros((k, total.d)), np.zeros(k)
    chosen, pearson = np.full(k, grid[-1]), np.full(k, np.nan)
    errors, unlabelled = np.full((k, len(grid)), np.nan), [o.name for o, n in zip(objectives, total.n, strict=True) if not n]
    warnings = [f"{name}: no row is labelled, its weights are zero" for name in unlabelled]
    fitted = 0
    for columns in total.sharing():
        everything = total.shared(columns)
        at, usable = list(columns), everything.label_variance > NO_VARIANCE
        held_out = _held_out(folds, everything, grid, intercept=intercept)
        errors[at] = np.where(usable, held_out[0] / everything.n, np.nan).T
        best = np.argmin(held_out[0], axis=0)
        if sum(fold.shared(columns).n > 0 for fold in folds) < 2:
            best[:] = len(grid) - 1
            warnings += [f"{objectives[i].name}: all labelled rows lie in one fold, the strongest alpha was taken" for i in at]
        chosen[at] = grid[best]
        pearson[at] = np.where(usable, _pearson(held_out[1:], everything, best), np.nan)
        W, b = _fit(everything, chosen[at], intercept=intercept)
        constant = everything.label_sum / everything.n if intercept else 0.0
        weights[at], intercepts[at] = np.where(usable[:, None], W, 0.0), np.where(usable, b, constant)
        fitted += int(usable.sum())
        warnings += _warn(everything, objectives, usable, best, grid, min_rows)
    if not fitted:
        raise FitError(f"no objective can be fitted: {'; '.join(warnings)}: give rated rows with differing ratings")
    probe = Probe(objectives, weights, intercepts, chosen)
    return ProbeFit(probe, pearson, errors, grid, total.n, tuple(warnings))


def solve_ridge_path(
    gram: Float[np.ndarray, "d d"], moment: Float[np.ndarray, "d c"], alphas: Float[np.ndarray, " a"]
) -> Float[np.ndarray, "a c d"]:
    """Weights for every strength, a row per column of `moment`, from one eigendecomposition.

    X'X = V diag(s) V'  ⇒  (X'X + alpha I)⁻¹ X'y = V diag(1 / (s + alpha)) V' X'y
    """
    s, V = eigen_of(gram)
    turned = (V.T @ moment).T  # [c d]
    return (turned / (s + alphas[:, None, None])) @ V.T


def _fit_path(
    sums: SharedStatistics, grid: Float[np.ndarray, " a"], *, intercept: bool
) -> tuple[Float[np.ndarray, "a c d"], Float[np.ndarray, "a c"]]:
    if not sums.n:
        a, (d, c) = len(grid), sums.moment.shape
        return np.zeros((a, c, d)), np.zeros((a, c))
    gram, moment, x, y = sums.centred(intercept=intercept)
    W = solve_ridge_path(gram, moment, grid)
    return W, y - W @ x


def _fit(
    sums: SharedStatistics, alphas: Float[np.ndarray, " c"], *, intercept: bool
) -> tuple[Float[np.ndarray, "c d"], Float[np.ndarray, " c"]]:
    # each objective at its own strength
    distinct, which = np.unique(alphas, return_inverse=True)
    W, b = _fit_path(sums, distinct, intercept=intercept)
    own = np.arange(len(alphas))
    return W[which, own], b[which, own]


def _held_out(
    folds: Sequence[RidgeStatistics], everything: SharedStatistics, grid: Float[np.ndarray, " a"], *, intercept: bool
) -> Float[np.ndarray, "4 a c"]:
    # `SharedStatistics.predicted` over all held-out rows, for every strength
    total = np.zeros((4, len(grid), len(everything.columns)))
    for fold in folds:
        held_out = fold.shared(everything.columns)
        total += held_out.predicted(*_fit_path(everything - held_out, grid, intercept=intercept))
    return total


def _pearson(sums: Float[np.ndarray, "3 a c"], everything: SharedStatistics, best: np.ndarray) -> Float[np.ndarray, " c"]:
    # Pearson's correlation of the pooled held-out predictions at the chosen strengths, NaN where a variance is zero
    p, pp, py = sums[:, best, np.arange(len(best))]
    n, y = everything.n, everything.label_sum
    label_spread = everything.label_square_sum - y * y / n
    spread, joint = pp - p * p / n, py - p * y / n
    floor = 1e-14 * np.maximum(pp, 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((label_spread > 0) & (spread > floor), joint / np.sqrt(label_spread * spread), np.nan)


def _warn(
    sums: SharedStatistics,
    objectives: Objectives,
    usable: np.ndarray,
    best: np.ndarray,
    grid: Float[np.ndarray, " a"],
    min_rows: int,
) -> list[str]:
    warnings = []
    for column, good, place in zip(sums.columns, usable, best, strict=True):
        name = objectives[column].name
        if not good:
            warnings.append(f"{name}: all {sums.n} ratings are the same, its weights are zero")
            continue
        if sums.n < min_rows:
            warnings.append(f"{name}: only {sums.n} labelled rows (at least {min_rows} are advised)")
        if len(grid) > 1 and place in (0, len(grid) - 1):
            end = "smallest" if place == 0 else "largest"
            warnings.append(f"{name}: the chosen alpha {grid[place]:g} is the {end} of the grid: widen it on that side")
    return warnings


def _check(folds: Sequence[RidgeStatistics], objectives: Objectives, alphas: Sequence[float]) -> Float[np.ndarray, " a"]:
    if len(folds) < 2:
        raise FitError(f"cross-validation needs at least 2 folds, got {len(folds)}: split the rows by prompt group")
    if folds[0].k != len(objectives):
        raise ObjectiveMismatch(
            f"the statistics have {folds[0].k} objectives, the list names {len(objectives)}: compute them with this list"
        )
    grid = np.unique(np.array(alphas, dtype=np.float64))
    if not len(grid) or not np.isfinite(grid).all() or grid[0] <= 0:
        raise FitError(f"alphas must be positive numbers, got {shown(list(alphas))}")
    if grid[0] < WEAKEST or grid[-1] > STRONGEST:
        raise FitError(
            f"alphas must lie between {WEAKEST:g} and {STRONGEST:g}, where they are no rounding, got {shown(list(alphas))}"
        )
    return grid


def refit(statistics: RidgeStatistics, probe: Probe, *, intercept: bool = False) -> Probe:
    """A probe on other rows at the strengths that `probe` has; an objective without rows or variance keeps zero weights."""
    weights, intercepts = np.zeros_like(probe.weights), np.zeros_like(probe.intercepts)
    for columns in statistics.sharing():
        sums, at = statistics.shared(columns), list(columns)
        usable = sums.label_variance > NO_VARIANCE
        W, b = _fit(sums, probe.alphas[at], intercept=intercept)
        weights[at], intercepts[at] = np.where(usable[:, None], W, 0.0), np.where(usable, b, 0.0)
    return Probe(probe.objectives, weights, intercepts, probe.alphas)

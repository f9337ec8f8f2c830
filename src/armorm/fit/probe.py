"""Linear probe (eq. 1): one ridge regression per objective, each over the rows that carry its label.

In: `RidgeStatistics`, one per fold (folds made by prompt group).  Out: `ProbeFit` with the `Probe`, weights [k d].
Cost: no row is read; per set of objectives that are rated on the same rows one path of strengths (`ridge`) for each fold and one
for the final fit. Only that set's gram matrices are in memory: one per fold and about five more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from jaxtyping import Bool, Float

from armorm.bounds import STRONGEST, WEAKEST, shown
from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.neighbours import Neighbour
from armorm.fit.ridge import fit_at, fit_path, neighbours_of
from armorm.fit.statistics import RidgeStatistics, SharedStatistics
from armorm.objectives import Objectives

BLOCK = 8192  # rows that are in float64 at one time
ROUNDING = 1e-6
"""How far below 0 a sum of squares may lie, as a share of the labels', for rounding alone."""
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
    `without`: for each fold the probe on the other folds, at the chosen strengths.
    """

    probe: Probe
    cv_pearson: Float[np.ndarray, " k"]
    errors: Float[np.ndarray, "k a"]
    grid: Float[np.ndarray, " a"]
    n: tuple[int, ...]
    warnings: tuple[str, ...]
    without: tuple[Probe, ...]

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
    on_objectives: Callable[[int, int], None] = lambda _done, _of: None,
) -> ProbeFit:
    """Fits eq. 1 with a strength per objective chosen by cross-validation over `folds`, then refits on all of them.

    `alphas` are scikit-learn's (the penalty is alpha · ‖w‖² beside the sum of squared errors). The paper has no intercept;
    with one it is not penalised. An objective with no rows or constant labels gets zero weights and a warning. `on_objectives`
    hears how many are done, of how many.

    Raises FitError for fewer than two folds, strengths that are not positive, or when no objective can be fitted;
    ObjectiveMismatch when the statistics have another number of objectives.
    """
    grid = _check(folds, objectives, alphas)
    k, total = len(objectives), reduce(add, folds)
    whole, without = _Weights.zeros(k, total.d), [_Weights.zeros(k, total.d) for _ in folds]
    chosen, pearson = np.full(k, grid[-1]), np.full(k, np.nan)
    errors, unlabelled = np.full((k, len(grid)), np.nan), [o.name for o, n in zip(objectives, total.n, strict=True) if not n]
    warnings = [f"{name}: no row is labelled, its weights are zero" for name in unlabelled]
    done = 0
    for columns in total.sharing():
        at, held_out = list(columns), [fold.shared(columns) for fold in folds]
        everything = reduce(add, held_out)
        usable = everything.label_variance > NO_VARIANCE
        near = neighbours_of(everything, grid, intercept=intercept)
        paths = [_left_out(everything, fold, grid, near, intercept=intercept) for fold in held_out]
        sums = _summed([fold.predicted(path.W, path.b) for fold, path in zip(held_out, paths, strict=True)], everything)
        errors[at] = np.where(usable & np.isfinite(sums[0]), sums[0] / everything.n, np.nan).T
        best = np.argmin(sums[0], axis=0)
        best[np.isinf(sums[0]).all(axis=0)] = len(grid) - 1
        if sum(fold.n > 0 for fold in held_out) < 2:
            best[:] = len(grid) - 1
            warnings += [f"{objectives[i].name}: all labelled rows lie in one fold, the strongest alpha was taken" for i in at]
        chosen[at] = grid[best]
        pearson[at] = np.where(usable, _pearson(sums[1:], everything, best), np.nan)
        for weights, path in zip(without, paths, strict=True):
            weights.put(at, path.at(best), path.usable, 0.0)
        constant = everything.label_sum / everything.n if intercept else 0.0
        whole.put(at, fit_at(everything, chosen[at], intercept=intercept, near=near), usable, constant)
        warnings += _warn(everything, objectives, usable, best, grid, min_rows)
        done += len(at)
        on_objectives(done, k)
    if not np.isfinite(errors).any():
        raise FitError(f"no objective can be fitted: {'; '.join(warnings)}: give rated rows with differing ratings")
    probe, *others = (Probe(objectives, weights.W, weights.b, chosen) for weights in (whole, *without))
    return ProbeFit(probe, pearson, errors, grid, total.n, tuple(warnings), tuple(others))


def refit(statistics: RidgeStatistics, probe: Probe, *, intercept: bool = False) -> Probe:
    """A probe on other rows at the strengths that `probe` has; an objective without rows or variance keeps zero weights."""
    weights = _Weights.zeros(*probe.weights.shape)
    for columns in statistics.sharing():
        sums, at = statistics.shared(columns), list(columns)
        weights.put(at, fit_at(sums, probe.alphas[at], intercept=intercept), sums.label_variance > NO_VARIANCE, 0.0)
    return Probe(probe.objectives, weights.W, weights.b, probe.alphas)


@dataclass(frozen=True, eq=False)
class _Weights:
    # A probe's weights in the making.

    W: Float[np.ndarray, "k d"]
    b: Float[np.ndarray, " k"]

    @classmethod
    def zeros(cls, k: int, d: int) -> _Weights:
        return cls(np.zeros((k, d)), np.zeros(k))

    def put(self, at: list[int], found: tuple[np.ndarray, np.ndarray], usable: np.ndarray, constant: np.ndarray | float) -> None:
        """Fitted objectives; one that is not usable has zero weights and a constant."""
        self.W[at], self.b[at] = np.where(usable[:, None], found[0], 0.0), np.where(usable, found[1], constant)


@dataclass(frozen=True, eq=False)
class _Path:
    # Weights and intercepts at every strength, and which objectives' labels vary.

    W: Float[np.ndarray, "a c d"]
    b: Float[np.ndarray, "a c"]
    usable: Bool[np.ndarray, " c"]

    def at(self, best: np.ndarray) -> tuple[Float[np.ndarray, "c d"], Float[np.ndarray, " c"]]:
        own = np.arange(len(best))
        return self.W[best, own], self.b[best, own]


def _left_out(
    everything: SharedStatistics,
    fold: SharedStatistics,
    grid: Float[np.ndarray, " a"],
    near: Sequence[Neighbour],
    *,
    intercept: bool,
) -> _Path:
    # The fit without a fold's rows
    rest = everything - fold
    usable = rest.label_variance > NO_VARIANCE if rest.n else np.zeros(len(rest.columns), dtype=bool)
    return _Path(*fit_path(rest, grid, intercept=intercept, near=near), usable)


def _summed(found: Sequence[Float[np.ndarray, "4 a c"]], everything: SharedStatistics) -> Float[np.ndarray, "4 a c"]:
    # What was predicted of all folds. An error or a square below 0 is the rounding of sums that a weak strength blows up: such a
    # strength is none to choose.
    least = -ROUNDING * everything.label_square_sum
    impossible = np.any([(one[0] < least) | (one[2] < least) for one in found], axis=0)
    sums: np.ndarray = reduce(add, found)
    sums[0] = np.where(impossible, np.inf, sums[0])
    return sums


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

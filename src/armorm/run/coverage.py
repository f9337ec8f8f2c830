"""Uncertainty of a run's probe: posterior, calibration on folds, coverage on test prompts.

In: the probe with those that lack a fold, rated stores.
Out: `Uncertainty` in a stage's folder, facts for the report.
Cost: per set of rated rows two eigendecompositions, a Cholesky factor per fold and strength, and d² products for each of at most
`CALIBRATED` of its rows; one set's matrices are in memory at a time. One pass over all rated features for the test prompts.

Training prompts fit the probe; the same, each predicted without its fold, set noise, inflation and reach; test prompts say how
often the intervals hold. Coverage is also cross-validated over the folds (each fold's ratings against intervals that the
others set): more rows, about the calibration rather than the final probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.bench.metrics import share_by_group
from armorm.fit.calibration import LEVEL, Calibration, HeldOut, calibrate, residual_correlation, sketch_of
from armorm.fit.posterior import Compaction, Directions, Leverage, Posterior, compact, directions, fit_directions
from armorm.fit.statistics import SharedStatistics
from armorm.intervals import Interval
from armorm.results import write_number
from armorm.run.context import TEST, RunContext
from armorm.run.probe_stage import FittedProbe
from armorm.run.summing import RatingStores, fold_statistics
from armorm.scoring.uncertainty import Uncertainty

GAUSSIAN_REACH = 1.96
"""Reach of an interval where held-out rows are too few to set it."""
FEWEST = 20
"""Held-out ratings below which an objective is not calibrated."""
CALIBRATED = 16_384
"""Rows of a set that calibrate it; of more, whole shards are taken, evenly over all."""
COMPACTION_ROWS = 4096


@dataclass(frozen=True, eq=False)
class _Rated:
    """Rows that carry labels of some objectives: features, ratings [n c] on [0, 1], prompts, folds (−1: test)."""

    features: Float[np.ndarray, "n d"]
    ratings: Float[np.ndarray, "n c"]
    prompts: list[str]
    folds: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class _Calibrated:
    """A part's calibrations, one per objective (None: not calibrated), and what they rest on."""

    calibrations: tuple[Calibration | None, ...]
    correlation: Float[np.ndarray, "c c"]
    covered: tuple[Interval, ...]


def uncertainty_stage(
    folder: Path, context: RunContext, fitted: FittedProbe, ratings: RatingStores, *, statistics: Path | None = None
) -> tuple[Uncertainty, dict[str, Any]]:
    """Fit, calibrate and save the uncertainty of the probe; report how often its intervals hold.

    Without the folds' statistics in `fitted` they are found in the folder `statistics`, or taken again.
    """
    objectives, reporter, probe = context.objectives, context.reporter, fitted.probe
    folds = fitted.statistics or fold_statistics(context, ratings, [fitted.spec], folder=statistics)[fitted.spec]
    source = _Source(context, ratings, fitted)
    k, total, intercept = len(objectives), reduce(add, folds), context.recipe.probe.intercept
    closed, inflation, correlation = np.full(k, np.nan), np.ones(k), np.eye(k)
    sigma, reach, covered = closed.copy(), np.full(k, GAUSSIAN_REACH), [Interval.undefined()] * k
    parts, cuts = [], []
    with reporter.bar("uncertainty", k) as advance:
        for columns in total.sharing():
            at, held_out = list(columns), [fold.shared(columns) for fold in folds]
            part, closed[at] = fit_directions(reduce(add, held_out), probe, intercept=intercept)
            sigma[at] = closed[at]
            calibrated, cut, how = _calibrate_part(part, held_out, source)
            correlation[np.ix_(at, at)] = calibrated.correlation
            for column, one, interval in zip(at, calibrated.calibrations, calibrated.covered, strict=True):
                covered[column] = interval
                if one is not None and np.isfinite(sigma[column]):
                    sigma[column], inflation[column], reach[column] = one.sigma, one.inflation, one.reach
            parts.append(cut)
            names = [objectives.names[c] for c in at]
            cuts.append({"objectives": names, "rank": how.rank, "error": how.mean_error, "worst": how.largest_error})
            advance(sum(len(own.columns) for own in parts), "objectives")
    posterior = Posterior(total.d, sigma, inflation, correlation, intercept, tuple(parts))
    uncertainty = Uncertainty(objectives, posterior, np.where(np.isfinite(sigma), reach, np.nan), LEVEL)
    uncertainty.save(folder)
    test = _test(uncertainty, source)
    scale = sigma / closed
    return uncertainty.rounded(), {
        "level": LEVEL,
        "coverage": test["coverage"],
        "n_test": test["n"],
        "objectives": [
            {
                "name": o.name,
                "sigma": write_number(sigma[i]),
                "scale": write_number(scale[i]),
                "inflation": float(inflation[i]),
                "reach": write_number(uncertainty.reach[i]),
                "n": total.n[i],
                "coverage_cross_validated": covered[i].to_json(),
                **test["objectives"][i],
            }
            for i, o in enumerate(objectives)
        ],
        "parts": cuts,
        "bytes": sum(f.stat().st_size for f in folder.glob("uncertainty.*")),
    }


# -- rows -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
    # What calibration reads rated rows with: the stores, the probe with those that lack a fold.

    context: RunContext
    ratings: RatingStores
    fitted: FittedProbe

    @cached_property
    def prompts(self) -> dict[str, tuple[list[str], Float[np.ndarray, " n"]]]:
        """For each store its rows' prompts and their folds."""
        found = {name: store.groups for name, store in self.ratings.items()}
        return {name: (groups, self.context.folds(groups).astype(np.float64)) for name, groups in found.items()}

    def rated(self, columns: Sequence[int], *, test: bool = False, share: float = 1.0) -> Iterator[_Rated]:
        """Shard by shard, rows that carry a label of any of the columns, those of the test prompts or the others; of all shards
        that hold such rows an even `share`. Stores without such a label are not opened."""
        objectives, passed = self.context.objectives, 0
        names = {objectives.names[c] for c in columns}
        for name, store in self.ratings.items():
            if not names & set(store.manifest["objectives"]):
                continue
            groups, folds = self.prompts[name]
            for rows in store.blocks():
                labels = objectives.to_unit(store.ratings(objectives, rows))[:, list(columns)]
                kept = np.flatnonzero(~np.isnan(labels).all(axis=1) & ((folds[rows] == TEST) == test))
                if not len(kept):
                    continue
                passed += 1
                if passed == 1 or int((passed - 1) * share) > int((passed - 2) * share):
                    own = [groups[rows][i] for i in kept]
                    yield _Rated(store.features(self.fitted.spec, rows)[kept], labels[kept], own, folds[rows][kept])


# -- calibration ------------------------------------------------------------------------------------------------------------


def _calibrate_part(
    part: Directions, held_out: Sequence[SharedStatistics], source: _Source
) -> tuple[_Calibrated, Directions, Compaction]:
    """Calibrate a part's objectives on its rows, each predicted by the probe without its fold, and cut the part."""
    n = sum(fold.n for fold in held_out)
    found = list(source.rated(part.columns, share=min(1.0, CALIBRATED / n)))
    cut, how = _compact_part(part, held_out, found, source)
    return _calibrate_on(found, part, held_out, source), cut, how


def _calibrate_on(
    found: Sequence[_Rated], part: Directions, held_out: Sequence[SharedStatistics], source: _Source
) -> _Calibrated:
    seed, intercept = source.context.recipe.seed, source.context.recipe.probe.intercept
    columns, at = part.columns, list(part.columns)
    strengths, which = np.unique(part.alphas, return_inverse=True)
    sketches = [sketch_of(part, columns[int(np.argmax(which == j))], seed=seed) for j in range(len(strengths))]
    everything = reduce(add, held_out)
    errors, levers, sketched = [np.empty((0, len(at)))], [np.empty((0, len(strengths)))], []
    prompts, fold_of = [], [np.empty(0)]
    for fold, own in enumerate(held_out):
        if not 0 < own.n < everything.n:
            continue
        rows = [(r.features[h], r.ratings[h], r.prompts, h) for r in found if len(h := np.flatnonzero(r.folds == fold))]
        levers.append(_leverages(everything - own, strengths, [x for x, *_ in rows], intercept=intercept))
        for features, ratings, names, here in rows:
            x = features.astype(np.float64)
            errors.append(ratings - source.fitted.without[fold].predict(x)[:, at])
            sketched.append(np.stack([(x - part.mean) @ sketch for sketch in sketches], axis=1))
            prompts += [names[i] for i in here]
            fold_of.append(np.full(len(here), float(fold)))
    e, h, f = np.concatenate(errors), np.concatenate(levers), np.concatenate(fold_of)
    if len(e) < FEWEST:
        return _Calibrated((None,) * len(at), np.eye(len(at)), (Interval.undefined(),) * len(at))
    b = np.concatenate(sketched)
    of_objective = [HeldOut(e[:, i], h[:, which[i]], b[:, which[i]], prompts) for i in range(len(at))]
    return _Calibrated(
        tuple(calibrate(rows) for rows in of_objective),
        residual_correlation(e),
        tuple(_cross_validated(rows, f, seed=seed) for rows in of_objective),
    )


def _leverages(
    rest: SharedStatistics, strengths: Float[np.ndarray, " a"], features: Sequence[np.ndarray], *, intercept: bool
) -> Float[np.ndarray, "n a"]:
    """Leverages of rows at each strength, in the fit without their fold; one root in memory at a time."""
    found = []
    for alpha in strengths:
        leverage = Leverage.of(rest, float(alpha), intercept=intercept)
        found.append(np.concatenate([np.empty(0), *map(leverage, features)]))
    return np.stack(found, axis=1)


def _cross_validated(rows: HeldOut, folds: Float[np.ndarray, " n"], *, seed: int) -> Interval:
    """Coverage of each fold's ratings by intervals that the other folds calibrated."""
    covered = np.zeros(len(rows))
    for fold in np.unique(folds):
        here, others = folds == fold, rows.take(folds != fold)
        if len(others) < FEWEST:
            return Interval.undefined()
        one = calibrate(others)
        covered[here] = np.abs(rows.errors[here]) <= one.reach * one.predictive_std(rows.leverages[here])
    return share_by_group(covered, rows.prompts, seed=seed)


def _compact_part(
    part: Directions, held_out: Sequence[SharedStatistics], found: Sequence[_Rated], source: _Source
) -> tuple[Directions, Compaction]:
    """The part with few eigenvectors, chosen on a fold that was left out."""
    everything = reduce(add, held_out)
    fold = next((i for i, one in enumerate(held_out) if 0 < one.n < everything.n), None)
    if fold is None:  # all rows in one fold: nothing is new to them, so nothing is cut
        return part, Compaction(len(part.values), 0.0, 0.0)
    rows = np.concatenate([rows.features[rows.folds == fold] for rows in found])[:COMPACTION_ROWS]
    rest = directions(everything - held_out[fold], part.alphas, intercept=source.context.recipe.probe.intercept)
    return compact(part, rest, rows)


# -- coverage ---------------------------------------------------------------------------------------------------------------


def _test(uncertainty: Uncertainty, source: _Source) -> dict[str, Any]:
    """How often intervals hold on test prompts, per objective and over all ratings."""
    k, probe, seed = len(uncertainty.objectives), source.fitted.probe, source.context.recipe.seed
    found: list[list[np.ndarray]] = [[np.empty((0, k))] for _ in range(3)]
    prompts: list[str] = []
    for rows in source.rated(range(k), test=True):
        x, given = rows.features, rows.ratings
        low, high = uncertainty.rating_interval(x, probe.predict(x))
        holds = (given >= low - 1e-9) & (given <= high + 1e-9)
        known = ~np.isnan(given) & ~np.isnan(low)
        for values, kept in zip((holds, high - low, uncertainty.posterior.std(x)), found, strict=True):
            kept.append(np.where(known, values, np.nan))
        prompts += rows.prompts
    covered, widths, stds = map(np.concatenate, found)
    known, named = ~np.isnan(covered), np.array(prompts)

    def row(i: int) -> dict[str, Any]:
        own = known[:, i]
        means = {name: float(x[own, i].mean()) if own.any() else None for name, x in (("mean_std", stds), ("mean_width", widths))}
        share = share_by_group(covered[own, i], named[own].tolist(), seed=seed)
        return {"n_test": int(own.sum()), "coverage": share.to_json(), **means}

    overall = share_by_group(covered[known], named[np.nonzero(known)[0]].tolist(), seed=seed)
    return {"coverage": overall.to_json(), "n": int(known.sum()), "objectives": [row(i) for i in range(k)]}

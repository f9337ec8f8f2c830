"""Uncertainty of a run's probe: posterior, calibration on folds, coverage on test prompts, abstention on pairs.

In: the probe with those that lack a fold, rated stores; for abstention the fitted method and pairs.
Out: `Uncertainty` in a stage's folder, facts for the report.
Cost: a few passes over the rated features; two eigendecompositions per set of rated rows, a Cholesky factor per fold of it.

Training prompts fit the probe; the same, each predicted without its fold, set noise, inflation and reach; test prompts say how
often the intervals hold. Coverage is also cross-validated over the folds (each fold's ratings against intervals that the
others set): more rows, about the calibration rather than the final probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.bench.abstention import abstention_curve
from armorm.bench.metrics import share_by_group
from armorm.fit.calibration import LEVEL, Calibration, HeldOut, calibrate, residual_correlation, sketch_of
from armorm.fit.method import Fitted
from armorm.fit.posterior import Compaction, Directions, Leverage, compact, directions, fit_posterior
from armorm.fit.statistics import RidgeStatistics
from armorm.intervals import Interval
from armorm.results import write_number
from armorm.run.context import TEST, RunContext
from armorm.run.pairs import PairArrays
from armorm.run.probe_stage import FittedProbe, RatingStores, fold_statistics
from armorm.scorers import AnswerFeatures
from armorm.scoring.uncertainty import Uncertainty

GAUSSIAN_REACH = 1.96
"""Reach of an interval where held-out rows are too few to set it."""
FEWEST = 20
"""Held-out ratings below which an objective is not calibrated."""
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
    folder: Path, context: RunContext, fitted: FittedProbe, ratings: RatingStores
) -> tuple[Uncertainty, dict[str, Any]]:
    """Fit, calibrate and save the uncertainty of the probe; report how often its intervals hold.

    Without the folds' statistics in `fitted` they are taken again, one pass.
    """
    objectives, reporter, probe = context.objectives, context.reporter, fitted.probe
    folds = fitted.statistics or fold_statistics(context, ratings, fitted.spec)
    source = _Source(context, ratings, fitted, folds)
    total = reduce(add, folds)
    whole = fit_posterior(total, probe, intercept=context.recipe.probe.intercept)
    sigma, inflation, correlation = whole.sigma.copy(), whole.inflation.copy(), whole.correlation.copy()
    reach, covered = np.full(len(objectives), GAUSSIAN_REACH), [Interval.undefined()] * len(objectives)
    parts, cuts = [], []
    with reporter.bar("uncertainty", len(whole.parts)) as advance:
        for done, part in enumerate(whole.parts):
            at = list(part.columns)
            calibrated = _calibrate_part(part, source)
            correlation[np.ix_(at, at)] = calibrated.correlation
            for column, one, interval in zip(at, calibrated.calibrations, calibrated.covered, strict=True):
                covered[column] = interval
                if one is not None and np.isfinite(sigma[column]):
                    sigma[column], inflation[column], reach[column] = one.sigma, one.inflation, one.reach
            cut, how = _compact_part(part, source)
            parts.append(cut)
            names = [objectives.names[c] for c in at]
            cuts.append({"objectives": names, "rank": how.rank, "error": how.mean_error, "worst": how.largest_error})
            advance(done + 1, "sets of rated rows")
    posterior = replace(whole, sigma=sigma, inflation=inflation, correlation=correlation, parts=tuple(parts))
    uncertainty = Uncertainty(objectives, posterior, np.where(np.isfinite(sigma), reach, np.nan), LEVEL)
    uncertainty.save(folder)
    test = _test(uncertainty, source)
    scale = sigma / whole.sigma
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


def abstention_facts(
    uncertainty: Uncertainty, fitted: Fitted, suites: Mapping[str, PairArrays], *, seed: int
) -> list[dict[str, Any]]:
    """Each suite's error rates by the share of pairs that is left open; the method's own scores."""
    found = []
    for name, pairs in suites.items():
        sides = zip(pairs.chosen(fitted.feature).blocks(), pairs.rejected(fitted.feature).blocks(), strict=True)
        both = [margins_of(uncertainty, fitted, *block) for block in sides]
        margins, stds = (np.concatenate(part) for part in zip(*both, strict=True))
        right = (margins > 0) + 0.5 * (margins == 0)
        found.append({"suite": name, **abstention_curve(margins, stds, right, pairs.groups, seed=seed).to_json()})
    return found


def margins_of(
    uncertainty: Uncertainty, fitted: Fitted, chosen: AnswerFeatures, rejected: AnswerFeatures
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Score differences of pairs and their standard deviations."""
    coefficients = [fitted.coefficients(side) for side in (chosen, rejected)]
    stds = uncertainty.of_difference(chosen.response, coefficients[0], rejected.response, coefficients[1])
    return fitted.scores(chosen) - fitted.scores(rejected), stds


# -- rows -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
    # What calibration reads rated rows with: the stores, the probe with those that lack a fold, the folds' statistics.

    context: RunContext
    ratings: RatingStores
    fitted: FittedProbe
    folds: Sequence[RidgeStatistics]

    def rated(self, columns: Sequence[int]) -> Iterator[_Rated]:
        """Shard by shard, the rows that carry a label of any of the columns; stores without one are not opened."""
        objectives = self.context.objectives
        names = {objectives.names[c] for c in columns}
        for store in self.ratings.values():
            if not names & set(store.manifest["objectives"]):
                continue
            groups = store.groups
            folds = self.context.folds(groups).astype(np.float64)
            for rows in store.blocks():
                labels = objectives.to_unit(store.ratings(objectives, rows))[:, list(columns)]
                kept = np.flatnonzero(~np.isnan(labels).all(axis=1))
                if len(kept):
                    own = [groups[rows][i] for i in kept]
                    yield _Rated(store.features(self.fitted.spec, rows)[kept], labels[kept], own, folds[rows][kept])


# -- calibration ------------------------------------------------------------------------------------------------------------


def _calibrate_part(part: Directions, source: _Source) -> _Calibrated:
    """Calibrate a part's objectives on its rows, each predicted by the probe without its fold."""
    seed, intercept = source.context.recipe.seed, source.context.recipe.probe.intercept
    columns, at = part.columns, list(part.columns)
    strengths, which = np.unique(part.alphas, return_inverse=True)
    leverage = _leverages(columns, strengths, source.folds, intercept=intercept)
    sketches = np.stack([sketch_of(part, columns[int(np.argmax(which == j))], seed=seed) for j in range(len(strengths))])
    errors, levers, sketched = [np.empty((0, len(at)))], [np.empty((0, len(strengths)))], []
    prompts, fold_of = [], [np.empty(0)]
    for rows in source.rated(columns):
        for fold in leverage:
            here = np.flatnonzero(rows.folds == fold)
            if not len(here):
                continue
            x = rows.features[here].astype(np.float64)
            errors.append(rows.ratings[here] - source.fitted.without[fold].predict(x)[:, at])
            levers.append(np.stack([h(x) for h in leverage[fold]], axis=1))
            sketched.append(np.einsum("nd,adq->naq", x - part.mean, sketches, optimize=True))
            prompts += [rows.prompts[i] for i in here]
            fold_of.append(rows.folds[here])
    e, h, f = np.concatenate(errors), np.concatenate(levers), np.concatenate(fold_of)
    if len(e) < FEWEST:
        return _Calibrated((None,) * len(at), np.eye(len(at)), (Interval.undefined(),) * len(at))
    b = np.concatenate(sketched)
    held_out = [HeldOut(e[:, i], h[:, which[i]], b[:, which[i]], prompts) for i in range(len(at))]
    return _Calibrated(
        tuple(calibrate(rows) for rows in held_out),
        residual_correlation(e),
        tuple(_cross_validated(rows, f, seed=seed) for rows in held_out),
    )


def _leverages(
    columns: tuple[int, ...], strengths: Float[np.ndarray, " a"], folds: Sequence[RidgeStatistics], *, intercept: bool
) -> dict[int, list[Leverage]]:
    """For each fold that holds rows of these objectives, while others do too: leverages in the fit without it."""
    everything = reduce(add, folds).shared(columns)
    found = {}
    for i, fold in enumerate(folds):
        held_out = fold.shared(columns)
        if 0 < held_out.n < everything.n:
            rest = everything - held_out
            found[i] = [Leverage.of(rest, float(alpha), intercept=intercept) for alpha in strengths]
    return found


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


def _compact_part(part: Directions, source: _Source) -> tuple[Directions, Compaction]:
    """The part with few eigenvectors, chosen on a fold that was left out."""
    everything = reduce(add, source.folds).shared(part.columns)
    held_out = [fold.shared(part.columns) for fold in source.folds]
    fold = next((i for i, one in enumerate(held_out) if 0 < one.n < everything.n), None)
    if fold is None:  # all rows in one fold: nothing is new to them, so nothing is cut
        return part, Compaction(len(part.values), 0.0, 0.0)
    blocks, count = [], 0
    for rows in source.rated(part.columns):
        if count < COMPACTION_ROWS and (rows.folds == fold).any():
            blocks.append(rows.features[rows.folds == fold].astype(np.float64))
            count += len(blocks[-1])
    rest = directions(everything - held_out[fold], part.alphas, intercept=source.context.recipe.probe.intercept)
    return compact(part, rest, np.concatenate(blocks)[:COMPACTION_ROWS])


# -- coverage ---------------------------------------------------------------------------------------------------------------


def _test(uncertainty: Uncertainty, source: _Source) -> dict[str, Any]:
    """How often intervals hold on test prompts, per objective and over all ratings."""
    k, probe, seed = len(uncertainty.objectives), source.fitted.probe, source.context.recipe.seed
    covered, widths, stds = (np.empty((0, k)) for _ in range(3))
    prompts: list[str] = []
    for rows in source.rated(range(k)):
        test = np.flatnonzero(rows.folds == TEST)
        x, given = rows.features[test], rows.ratings[test]
        low, high = uncertainty.rating_interval(x, probe.predict(x))
        holds = (given >= low - 1e-9) & (given <= high + 1e-9)
        known = ~np.isnan(given) & ~np.isnan(low)
        covered = np.concatenate([covered, np.where(known, holds, np.nan)])
        widths = np.concatenate([widths, np.where(known, high - low, np.nan)])
        stds = np.concatenate([stds, np.where(known, uncertainty.posterior.std(x), np.nan)])
        prompts += [rows.prompts[i] for i in test]
    known, named = ~np.isnan(covered), np.array(prompts)

    def row(i: int) -> dict[str, Any]:
        own = known[:, i]
        means = {name: float(x[own, i].mean()) if own.any() else None for name, x in (("mean_std", stds), ("mean_width", widths))}
        share = share_by_group(covered[own, i], named[own].tolist(), seed=seed)
        return {"n_test": int(own.sum()), "coverage": share.to_json(), **means}

    overall = share_by_group(covered[known], named[np.nonzero(known)[0]].tolist(), seed=seed)
    return {"coverage": overall.to_json(), "n": int(known.sum()), "objectives": [row(i) for i in range(k)]}

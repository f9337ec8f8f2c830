"""Uncertainty of a run's probe: posterior, calibration on folds, coverage on test prompts, abstention on pairs.

In: a probe's folder with the probes that lack a fold, rated stores; for abstention the later parts and pairs.
Out: `Uncertainty` saved beside the probe, facts for the report.
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
from jaxtyping import Bool, Float

from armorm.bench.abstention import abstention_curve
from armorm.bench.metrics import bounded, exact_at_the_ends
from armorm.data.splits import Split, folds_of
from armorm.features.spec import FeatureSpec
from armorm.fit.calibration import LEVEL, Calibration, HeldOut, calibrate, residual_correlation, sketch_of
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.parts import load_probe
from armorm.fit.posterior import Compaction, Directions, Leverage, compacted, directions, fit_posterior
from armorm.fit.probe import Probe
from armorm.fit.statistics import RidgeStatistics
from armorm.intervals import Interval, mean_by_group
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.run.fitting import PairArrays, RatingStores, fold_statistics
from armorm.run.rows import side_of
from armorm.scorers import AnswerFeatures
from armorm.scoring.uncertainty import Uncertainty

GAUSSIAN_REACH = 1.96
"""Reach of an interval where held-out rows are too few to set it."""
FEWEST = 20
"""Held-out ratings below which an objective is not calibrated."""
COMPACTION_ROWS = 4096
TEST = -1


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
    folder: Path,
    recipe: Recipe,
    probe_folder: Path,
    objectives: Objectives,
    ratings: RatingStores,
    reporter: Reporter,
    *,
    folds: Sequence[RidgeStatistics] | None = None,
) -> dict[str, Any]:
    """Fit, calibrate and save the uncertainty of the probe in `probe_folder`; report how often its intervals hold.

    `folds`: the chosen feature's statistics where they are at hand (otherwise taken again, one pass).
    """
    probe, feature = load_probe(probe_folder)
    spec, intercept = FeatureSpec.parse(feature), recipe.probe.intercept
    folds = folds or fold_statistics(recipe, objectives, ratings, spec)
    without = [load_probe(probe_folder / f"without-fold-{i}")[0] for i in range(len(folds))]
    total = reduce(add, folds)
    whole = fit_posterior(total, probe, intercept=intercept)
    sigma, inflation, correlation = whole.sigma.copy(), whole.inflation.copy(), whole.correlation.copy()
    reach, covered = np.full(len(objectives), GAUSSIAN_REACH), [Interval.undefined()] * len(objectives)
    parts, cuts = [], []
    with reporter.bar("uncertainty", len(whole.parts)) as advance:
        for done, part in enumerate(whole.parts):
            at = list(part.columns)
            found = _calibrated(part, folds, without, recipe, objectives, ratings, spec)
            correlation[np.ix_(at, at)] = found.correlation
            for column, one, interval in zip(at, found.calibrations, found.covered, strict=True):
                covered[column] = interval
                if one is not None and np.isfinite(sigma[column]):
                    sigma[column], inflation[column], reach[column] = one.sigma, one.inflation, one.reach
            cut, how = _compacted(part, folds, recipe, objectives, ratings, spec)
            parts.append(cut)
            cuts.append(how)
            advance(done + 1, "sets of rated rows")
    posterior = replace(whole, sigma=sigma, inflation=inflation, correlation=correlation, parts=tuple(parts))
    uncertainty = Uncertainty(objectives, posterior, np.where(np.isfinite(sigma), reach, np.nan), LEVEL)
    uncertainty.save(folder)
    test = _test(uncertainty, probe, recipe, objectives, ratings, spec)
    scale = sigma / whole.sigma
    return {
        "level": LEVEL,
        "coverage": test["coverage"],
        "n_test": test["n"],
        "objectives": [
            {
                "name": o.name,
                "sigma": _number(sigma[i]),
                "scale": _number(scale[i]),
                "inflation": float(inflation[i]),
                "reach": _number(uncertainty.reach[i]),
                "n": total.n[i],
                "coverage_cross_validated": covered[i].to_json(),
                **test["objectives"][i],
            }
            for i, o in enumerate(objectives)
        ],
        "parts": [
            {
                "objectives": [objectives.names[c] for c in p.columns],
                "rank": c.rank,
                "error": c.mean_error,
                "worst": c.largest_error,
            }
            for p, c in zip(parts, cuts, strict=True)
        ],
        "bytes": sum(f.stat().st_size for f in folder.glob("uncertainty.*")),
    }


def abstention_facts(
    uncertainty: Uncertainty,
    probe: Probe,
    feature: str,
    debias: Debias,
    gate: Gate,
    suites: Mapping[str, PairArrays],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Each suite's error rates by the share of pairs that is left open; the method's own scores."""
    found = []
    for name, pairs in suites.items():
        margins, stds = margins_of(uncertainty, probe, debias, gate, pairs.chosen[feature], pairs.rejected[feature])
        right = (margins > 0) + 0.5 * (margins == 0)
        found.append({"suite": name, **abstention_curve(margins, stds, right, pairs.groups, seed=seed).to_json()})
    return found


def margins_of(
    uncertainty: Uncertainty,
    probe: Probe,
    debias: Debias,
    gate: Gate,
    chosen: AnswerFeatures,
    rejected: AnswerFeatures,
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Score differences of pairs and their standard deviations."""
    weights = [gate.weights_for(side.prompt) for side in (chosen, rejected)]
    scores = [
        (w * debias.apply(probe.predict(side.response), _computed(debias, side.tokens)).values).sum(axis=1)
        for w, side in zip(weights, (chosen, rejected), strict=True)
    ]
    coefficients = [debias.coefficients(w) for w in weights]
    stds = uncertainty.of_difference(chosen.response, coefficients[0], rejected.response, coefficients[1])
    return scores[0] - scores[1], stds


def _computed(debias: Debias, tokens: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n m"]:
    return np.repeat(tokens[:, None].astype(np.float64), len(debias.computed), axis=1)


# -- rows -------------------------------------------------------------------------------------------------------------------


def _rated(
    columns: Sequence[int], recipe: Recipe, objectives: Objectives, ratings: RatingStores, spec: FeatureSpec
) -> Iterator[_Rated]:
    """Shard by shard, the rows that carry a label of any of the columns; stores without one are not opened."""
    names = {objectives.names[c] for c in columns}
    for stored, rows in ratings.values():
        if not names & set(stored.manifest["objectives"]):
            continue
        start = 0
        for block in stored.blocks():
            groups = [row.group for row in rows[start : start + len(block.ids)]]
            start += len(groups)
            labels = objectives.to_unit(block.ratings(objectives))[:, list(columns)]
            kept = np.flatnonzero(~np.isnan(labels).all(axis=1))
            if len(kept):
                own = [groups[i] for i in kept]
                folds = np.array([_fold(g, recipe) for g in own], dtype=np.float64)
                yield _Rated(block.features("response", spec)[kept], labels[kept], own, folds)


def _fold(group: str, recipe: Recipe) -> int:
    if side_of(group, recipe) is Split.TEST:
        return TEST
    return folds_of(group, seed=recipe.seed, folds=recipe.probe.folds)


# -- calibration ------------------------------------------------------------------------------------------------------------


def _calibrated(
    part: Directions,
    folds: Sequence[RidgeStatistics],
    without: Sequence[Probe],
    recipe: Recipe,
    objectives: Objectives,
    ratings: RatingStores,
    spec: FeatureSpec,
) -> _Calibrated:
    """Calibrate a part's objectives on its rows, each predicted by the probe without its fold."""
    columns, at = part.columns, list(part.columns)
    strengths, which = np.unique(part.alphas, return_inverse=True)
    leverage = _leverages(columns, strengths, folds, intercept=recipe.probe.intercept)
    sketches = np.stack([sketch_of(part, columns[int(np.argmax(which == j))], seed=recipe.seed) for j in range(len(strengths))])
    errors, levers, sketched = [np.empty((0, len(at)))], [np.empty((0, len(strengths)))], []
    prompts, fold_of = [], [np.empty(0)]
    for rows in _rated(columns, recipe, objectives, ratings, spec):
        for fold in leverage:
            here = np.flatnonzero(rows.folds == fold)
            if not len(here):
                continue
            x = rows.features[here].astype(np.float64)
            errors.append(rows.ratings[here] - without[fold].predict(x)[:, at])
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
        tuple(_cross_validated(rows, f, seed=recipe.seed) for rows in held_out),
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
    return _share(covered, list(rows.prompts), seed)


def _compacted(
    part: Directions,
    folds: Sequence[RidgeStatistics],
    recipe: Recipe,
    objectives: Objectives,
    ratings: RatingStores,
    spec: FeatureSpec,
) -> tuple[Directions, Compaction]:
    """The part with few eigenvectors, chosen on a fold that was left out."""
    everything = reduce(add, folds).shared(part.columns)
    sizes = [fold.shared(part.columns).n for fold in folds]
    fold = next((i for i, n in enumerate(sizes) if 0 < n < everything.n), None)
    if fold is None:  # all rows in one fold: nothing is new to them, so nothing is cut
        return part, Compaction(len(part.values), 0.0, 0.0)
    blocks, count = [], 0
    for rows in _rated(part.columns, recipe, objectives, ratings, spec):
        if count < COMPACTION_ROWS and (rows.folds == fold).any():
            blocks.append(rows.features[rows.folds == fold].astype(np.float64))
            count += len(blocks[-1])
    rest = directions(everything - folds[fold].shared(part.columns), part.alphas, intercept=recipe.probe.intercept)
    return compacted(part, rest, np.concatenate(blocks)[:COMPACTION_ROWS])


# -- coverage ---------------------------------------------------------------------------------------------------------------


def _test(
    uncertainty: Uncertainty, probe: Probe, recipe: Recipe, objectives: Objectives, ratings: RatingStores, spec: FeatureSpec
) -> dict[str, Any]:
    """How often intervals hold on test prompts, per objective and over all ratings."""
    k = len(objectives)
    covered, widths, stds = (np.empty((0, k)) for _ in range(3))
    prompts: list[str] = []
    for rows in _rated(range(k), recipe, objectives, ratings, spec):
        test = np.flatnonzero(rows.folds == TEST)
        x, given = rows.features[test], rows.ratings[test]
        low, high = uncertainty.rating_interval(x, probe.predict(x))
        holds = (given >= low - 1e-9) & (given <= high + 1e-9)
        known = ~np.isnan(given) & ~np.isnan(low)
        covered = np.concatenate([covered, np.where(known, holds, np.nan)])
        widths = np.concatenate([widths, np.where(known, high - low, np.nan)])
        stds = np.concatenate([stds, np.where(known, uncertainty.posterior.std(x), np.nan)])
        prompts += [rows.prompts[i] for i in test]

    def row(i: int) -> dict[str, Any]:
        own = ~np.isnan(covered[:, i])
        return {
            "n_test": int(own.sum()),
            "coverage": _share(covered[own, i], _named(prompts, own), recipe.seed).to_json(),
            "mean_std": _mean(stds[own, i]),
            "mean_width": _mean(widths[own, i]),
        }

    known = ~np.isnan(covered)
    every = [prompt for prompt, n in zip(prompts, known.sum(axis=1), strict=True) for _ in range(n)]
    overall = _share(covered[known], every, recipe.seed)
    return {"coverage": overall.to_json(), "n": int(known.sum()), "objectives": [row(i) for i in range(k)]}


def _share(covered: Float[np.ndarray, " n"], prompts: list[str], seed: int) -> Interval:
    if not len(covered):
        return Interval.undefined()
    return bounded(exact_at_the_ends(mean_by_group(covered, prompts, seed=seed), len(set(prompts))), 0.0)


def _named(prompts: list[str], kept: Bool[np.ndarray, " n"]) -> list[str]:
    return [prompts[i] for i in np.flatnonzero(kept)]


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

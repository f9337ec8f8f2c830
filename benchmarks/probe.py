"""How much sufficient statistics save: all objectives, strengths and folds, against one ridge fit for each.

    python benchmarks/probe.py [--rows 20000] [--width 576] [--objectives 14]

Prints seconds of both ways in one run, their ratio, and the largest difference of the weights that both choose.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.linear_model import Ridge

from armorm.fit.probe import fit_probe
from armorm.fit.statistics import RidgeStatistics
from armorm.objectives import Objective, Objectives
from armorm.report.provenance import provenance

ALPHAS, FOLDS = [10.0**e for e in range(-4, 5)], 5


def one_by_one(features: np.ndarray, ratings: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """A Ridge per objective, strength and fold; the best strength refitted."""
    weights = []
    for column in ratings.T:
        rated = np.isfinite(column)
        errors = np.zeros(len(ALPHAS))
        for i, alpha in enumerate(ALPHAS):
            for fold in range(FOLDS):
                train, held_out = rated & (folds != fold), rated & (folds == fold)
                model = Ridge(alpha=alpha, fit_intercept=False).fit(features[train], column[train])
                errors[i] += ((model.predict(features[held_out]) - column[held_out]) ** 2).sum()
        best = ALPHAS[int(np.argmin(errors))]
        weights.append(Ridge(alpha=best, fit_intercept=False).fit(features[rated], column[rated]).coef_)
    return np.array(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--objectives", type=int, default=14)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    features = rng.normal(size=(given.rows, given.width))
    truth = rng.normal(size=(given.objectives, given.width)) / np.sqrt(given.width)
    ratings = features @ truth.T + rng.normal(size=(given.rows, given.objectives))
    ratings[rng.random(ratings.shape) < 0.7] = np.nan
    folds = rng.integers(0, FOLDS, size=given.rows)
    objectives = Objectives([Objective(name=f"o{i}", min=-10, max=10) for i in range(given.objectives)])

    start = time.perf_counter()
    statistics = [RidgeStatistics.from_rows(features[folds == f], ratings[folds == f]) for f in range(FOLDS)]
    ours = fit_probe(statistics, objectives, alphas=ALPHAS).probe.weights
    middle = time.perf_counter()
    theirs = one_by_one(features, ratings, folds)
    end = time.perf_counter()
    facts = provenance()
    where = f"{facts['machine']}; commit {facts['commit']}"
    print(f"{given.rows:,} rows, width {given.width}, {given.objectives} objectives; {where}")
    print(f"sufficient statistics      {middle - start:8.2f} s  {(end - middle) / (middle - start):6.1f}x")
    print(f"one ridge fit at a time    {end - middle:8.2f} s  largest weight difference {np.abs(ours - theirs).max():.1e}")


if __name__ == "__main__":
    main()

"""Stage 1: the probe, and the probes without one fold each, on stored features.

In: rated stores, a recipe.  Out: `FittedProbe` in a stage's folder, facts for the report.
Cost: one pass over the rated features of sources that are new, for all candidates (`summing`), then only what was summed.

The probes without a fold are for the gate: it learns from cross-fitted rewards, in which a training pair's come from the probe
that was fitted without the pair's fold. So it meets the probe's errors as they are on new prompts, also where a prompt has both
ratings and pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.errors import FitError
from armorm.features.answers import column_of
from armorm.features.spec import FeatureSpec
from armorm.fit.parts import load_probe, save_probe
from armorm.fit.probe import Probe, ProbeFit, fit_probe, refit
from armorm.fit.quality import probe_quality
from armorm.fit.statistics import RidgeStatistics
from armorm.progress import counting
from armorm.run.context import TEST, RunContext
from armorm.run.summing import RatingStores, fold_statistics


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """The probe, the feature that it reads, and the probes `without` one fold each.

    `statistics` are those of the folds, while they are at hand; they are not saved.
    """

    probe: Probe
    feature: str
    without: tuple[Probe, ...]
    statistics: Sequence[RidgeStatistics] | None = field(default=None, repr=False)

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec.parse(self.feature)

    def save(self, folder: Path) -> None:
        """Write the probe into `folder`, the others into folders of it. Raises StorageError."""
        save_probe(folder, self.probe, self.feature)
        for i, probe in enumerate(self.without):
            save_probe(folder / f"without-fold-{i}", probe, self.feature)

    @classmethod
    def load(cls, folder: Path, folds: int) -> FittedProbe:
        """What `save` wrote. Raises CheckpointError for a part that is missing or damaged."""
        return cls(*load_probe(folder), tuple(load_probe(folder / f"without-fold-{i}")[0] for i in range(folds)))


def fit_probe_stage(
    folder: Path,
    context: RunContext,
    ratings: RatingStores,
    *,
    statistics: Path | None = None,
    fill: Float[np.ndarray, " k"] | None = None,
) -> tuple[FittedProbe, dict[str, Any]]:
    """Choose among the feature candidates by held-out probe quality, fit, report on the test split.

    `statistics` is the folder where sums over the rated rows are kept (none: nowhere). `fill` puts a number on [0, 1] in the
    place of every missing rating that is fitted to (see `ablations`); without it they are masked. The test split is judged by the
    ratings that it has either way.
    """
    settings, reporter = context.recipe.probe, context.reporter
    tried: dict[str, float] = {}
    best: tuple[str, ProbeFit, list[RidgeStatistics]] | None = None
    candidates = fold_statistics(context, ratings, context.recipe.features.candidates, folder=statistics, fill=fill)
    for spec, folds in candidates.items():
        with reporter.bar(f"probe on {spec}", len(context.objectives)) as advance:
            options: Any = {"alphas": settings.alphas, "intercept": settings.intercept}
            fit = fit_probe(folds, context.objectives, **options, on_objectives=counting(advance, "objectives"))
        reporter.say(f"probe on {spec}: mean held-out Pearson {fit.mean_cv_pearson:.3f}")
        tried[str(spec)] = fit.mean_cv_pearson
        if math.isfinite(fit.mean_cv_pearson) and (best is None or fit.mean_cv_pearson > best[1].mean_cv_pearson):
            best = str(spec), fit, folds
    if best is None:
        raise FitError(
            f"the probe predicts the same for every held-out answer, on each of {', '.join(tried)}: the features don't vary, or "
            "the prompts are too few: name other layers in `features.response`, or give more rated prompts"
        )
    feature, fit, folds = best
    for warning in fit.warnings:
        reporter.warn(warning)
    fitted = FittedProbe(fit.probe, feature, fit.without, folds)
    fitted.save(folder)
    return fitted, {
        "feature": feature,
        "candidates": [{"feature": f, "pearson": pearson} for f, pearson in tried.items()],
        "objectives": _objective_rows(context, fit, predict_test(context, ratings, fit.probe, feature)),
        "warnings": list(fit.warnings),
    }


def fit_permuted_probe(context: RunContext, ratings: RatingStores, fitted: FittedProbe) -> Probe:
    """The probe as it comes out on permuted ratings, at the same strengths: stage 1 turned off."""
    folds = fold_statistics(context, ratings, [fitted.spec], permuted=True)[fitted.spec]
    return refit(reduce(add, folds), fitted.probe, intercept=context.recipe.probe.intercept)


@dataclass(frozen=True)
class Predicted:
    """Rated rows of one split with their predictions."""

    rewards: Float[np.ndarray, "n k"]
    raw: Float[np.ndarray, "n k"]
    groups: list[str]
    ids: list[str]


def predict_test(context: RunContext, ratings: RatingStores, probe: Probe, feature: str) -> Predicted:
    """Predictions for the rated rows of the test split, which chose nothing."""
    spec, k = FeatureSpec.parse(feature), len(context.objectives)
    rewards, raw, groups, ids = [np.empty((0, k))], [np.empty((0, k))], [], []
    for store in ratings.values():
        own = store.groups
        test = context.folds(own) == TEST
        if test.any():
            rewards.append(column_of([store], "response", spec).take(np.flatnonzero(test)).over(probe.predict))
        raw.append(store.ratings(context.objectives)[test])
        groups += [g for g, held_out in zip(own, test, strict=True) if held_out]
        ids += [i for i, held_out in zip(store.ids, test, strict=True) if held_out]
    return Predicted(np.concatenate(rewards), np.concatenate(raw), groups, ids)


def _objective_rows(context: RunContext, fit: ProbeFit, test: Predicted) -> list[dict[str, Any]]:
    quality = probe_quality(test.rewards, test.raw, fit.probe.objectives, test.groups, seed=context.recipe.seed)
    return [
        {
            **q.to_json(),
            "n_train": fit.n[i],
            "n_test": q.n,
            "alpha": float(fit.probe.alphas[i]),
            "rmse_raw": q.rmse.to_json(),
            "warnings": [w for w in fit.warnings if w.startswith(f"{q.name}:")],
        }
        for i, q in enumerate(quality)
    ]

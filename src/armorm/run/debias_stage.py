"""Stage 2a: debiasing on the reference answers.

In: the probe, rated stores, pairs.  Out: `Debias` in a stage's folder, facts for the report.
Cost: one prediction of the reference answers, a block at a time, and what `fit_debias` takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.data.splits import Split
from armorm.features.answers import column_of
from armorm.features.columns import Column
from armorm.fit.debias import Debias, correlations, fit_debias
from armorm.fit.method import compute_nuisances
from armorm.fit.parts import save_debias
from armorm.recipe import RESPONSE_TOKENS
from armorm.results import write_number
from armorm.run.context import RunContext
from armorm.run.pairs import PairArrays
from armorm.run.probe_stage import FittedProbe
from armorm.run.summing import RatingStores

Correlations = Float[np.ndarray, "k q"]


def fit_debias_stage(
    folder: Path, context: RunContext, fitted: FittedProbe, ratings: RatingStores, pairs: PairArrays
) -> tuple[Debias, dict[str, Any]]:
    """Fit λ on the reference answers of the training split; report correlations there and on held-out prompts' answers."""
    settings, probe = context.recipe.debias, fitted.probe
    names, method = settings.nuisances, settings.method
    facts = {"method": method, "nuisances": names, "itself": settings.itself}
    if not names:
        debias = Debias.identity(probe.objectives)
        save_debias(folder, debias)
        return debias, {**facts, "objectives": [], "warnings": []}
    computed = tuple(n for n in names if n == RESPONSE_TOKENS)
    reference = _reference(context, fitted, ratings, pairs, (Split.TRAIN, Split.VALIDATION))
    fit = fit_debias(
        reference.rewards,
        compute_nuisances(computed, reference.tokens),
        probe.objectives,
        nuisances=names,
        computed_names=computed,
        method=method,
        itself=settings.itself,
    )
    for warning in fit.warnings:
        context.reporter.warn(warning)
    save_debias(folder, fit.debias)
    held_out = _reference(context, fitted, ratings, pairs, (Split.TEST,))
    before, after = _correlations(context, fit.debias, held_out)

    def change(first: Correlations, second: Correlations, i: int) -> dict[str, Any]:
        return {n: {"before": write_number(first[i, j]), "after": write_number(second[i, j])} for j, n in enumerate(names)}

    return fit.debias, {
        **facts,
        "reference": {"sources": settings.reference or sorted(set(pairs.sources)), "n": len(reference)},
        "held_out": {"n": len(held_out)},
        "objectives": [
            {
                "name": o.name,
                "coefficients": {n: float(fit.coefficients[i, j]) for j, n in enumerate(names)},
                "reference": change(fit.before, fit.after, i),
                "held_out": change(before, after, i),
            }
            for i, o in enumerate(probe.objectives)
        ],
        "warnings": list(fit.warnings),
    }


@dataclass(frozen=True, eq=False)
class _Predicted:
    # Answers with the probe's rewards

    rewards: Float[np.ndarray, "n k"]
    tokens: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.tokens)


def _correlations(context: RunContext, debias: Debias, answers: _Predicted) -> tuple[Correlations, Correlations]:
    # Of each reward with each nuisance, before and after.
    names, k = context.recipe.debias.nuisances, len(debias.objectives)
    if len(answers) < 3:
        return np.full((k, len(names)), np.nan), np.full((k, len(names)), np.nan)
    rewards, computed = answers.rewards, compute_nuisances(debias.computed, answers.tokens)
    nuisance = np.concatenate([rewards, computed], axis=1)[:, [debias.terms.index(n) for n in names]]
    method = context.recipe.debias.method
    return correlations(rewards, nuisance, method), correlations(debias.apply(rewards, computed).values, nuisance, method)


def _reference(
    context: RunContext, fitted: FittedProbe, ratings: RatingStores, pairs: PairArrays, sides: tuple[Split, ...]
) -> _Predicted:
    # Answers of the reference sources (none named: of all pairs) on the given sides.
    wanted = set(context.recipe.debias.reference)
    features, tokens = list[Column](), list[Float[np.ndarray, " n"]]()
    for store in (store for name, store in ratings.items() if name in wanted):
        at = np.array([side in sides for side in context.sides(store.groups)], dtype=np.bool_)
        features.append(column_of([store], "response", fitted.spec).take(np.flatnonzero(at)))
        tokens.append(store.tokens()[at].astype(np.float64))
    named = pairs.take(pairs.at(*sides) & np.array([not wanted or s in wanted for s in pairs.sources], dtype=np.bool_))
    for side in (named.chosen(fitted.feature), named.rejected(fitted.feature)):
        features.append(side.response)
        tokens.append(side.tokens)
    return _Predicted(np.concatenate([found.over(fitted.probe.predict) for found in features]), np.concatenate(tokens))

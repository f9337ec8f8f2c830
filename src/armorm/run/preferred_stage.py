"""One more objective, learnt from the pairs themselves: what was preferred, whatever the named objectives say of it.

In: the probe with those that lack a fold, pairs.  Out: `FittedProbe` with a row more, `preferred`; facts for the report.
Cost: a Bradley–Terry fit at all strengths, and one at the chosen strength for each fold.

The row is a linear Bradley–Terry head on the probe's own feature. As the other rewards are, it is cross-fitted: for a pair the
gate learns from the head that was fitted without the pair's fold. Its log-odds have no scale of their own among rewards, so they
are brought to that of the others: over the training pairs its differences, cross-fitted, have the root mean square deviation of
theirs; 0.5 is the mean over those pairs' answers. Debiasing, gate, explanations and profiles then treat it as any objective. No
answer is rated on it, so it has no standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from armorm.data.splits import Split
from armorm.errors import FitError
from armorm.features.columns import Rows, blocks
from armorm.fit.posterior import Posterior
from armorm.fit.probe import Probe
from armorm.fit.weighing import Shares, pair_weights
from armorm.objectives import Objectives
from armorm.recipe import PREFERRED, Recipe
from armorm.rivals.bradley_terry import BradleyTerry, fit_bradley_terry
from armorm.run.context import RunContext
from armorm.run.pairs import PairArrays
from armorm.run.probe_stage import FittedProbe
from armorm.scoring.uncertainty import Uncertainty

Heads = tuple[Float[np.ndarray, " d"], ...]


def fit_preferred_stage(
    folder: Path, context: RunContext, fitted: FittedProbe, pairs: PairArrays
) -> tuple[FittedProbe, dict[str, Any]]:
    """`with_preferred` into a folder, by the recipe's settings."""
    with context.reporter.bar("preferred", context.recipe.probe.folds + 1) as advance:
        found, facts = with_preferred(context.recipe, fitted, pairs, on_fit=lambda done: advance(done, "fits"))
    found.save(folder)
    return found, facts


def with_preferred(
    recipe: Recipe, fitted: FittedProbe, pairs: PairArrays, *, on_fit: Callable[[int], None] = lambda _done: None
) -> tuple[FittedProbe, dict[str, Any]]:
    """The probe with `PREFERRED` as its last objective, fitted to the pairs that are not for tests; facts of the fit.

    Pairs count what `gate.weigh` and the shares of what is made say. Raises FitError as `fit_bradley_terry` does, and where no
    other reward differs between two answers.
    """
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    validation, shares = known.at(Split.VALIDATION), recipe.pair_shares
    whole = _fitted(recipe, fitted, known, validation, shares)
    on_fit(1)
    heads = []
    for fold in range(len(fitted.without)):
        others = known.take(known.folds != fold)
        own = others.at(Split.VALIDATION)
        heads.append(_fitted(recipe, fitted, others, own, shares, strength=whole.strength).weights)
        on_fit(fold + 2)
    scale, centre = _scale(fitted, known, whole.weights, tuple(heads))
    rows = [(scale * head, 0.5 - scale * float(centre @ head)) for head in (whole.weights, *heads)]
    probes = [_longer(probe, *row) for probe, row in zip((fitted.probe, *fitted.without), rows, strict=True)]
    facts = {"strength": whole.strength, "pairs": len(known), "scale": scale}
    return replace(fitted, probe=probes[0], without=tuple(probes[1:]), statistics=None), facts


def without_errors(uncertainty: Uncertainty) -> Uncertainty:
    """The uncertainty of a probe with `PREFERRED`, of whose row nothing is known: it adds nothing to a score's standard error."""
    p, k = uncertainty.posterior, uncertainty.posterior.k
    correlation = np.eye(k + 1)
    correlation[:k, :k] = p.correlation
    longer = Posterior(p.width, np.append(p.sigma, np.nan), np.append(p.inflation, 1.0), correlation, p.intercept, p.parts)
    return replace(
        uncertainty,
        objectives=Objectives([*uncertainty.objectives, PREFERRED]),
        posterior=longer,
        reach=np.append(uncertainty.reach, np.nan),
    )


def _fitted(
    recipe: Recipe,
    fitted: FittedProbe,
    pairs: PairArrays,
    validation: Bool[np.ndarray, " p"],
    shares: Shares,
    *,
    strength: float | None = None,
) -> BradleyTerry:
    sides = fitted.feature, pairs.chosen(fitted.feature).response, pairs.rejected(fitted.feature).response
    weights = pair_weights(recipe.gate.weigh, pairs.groups, pairs.sources, validation, shares)
    given: Any = {} if strength is None else {"strengths": (strength,)}
    return fit_bradley_terry([sides], validation, weights=weights, **given)


def _scale(
    fitted: FittedProbe, known: PairArrays, whole: Float[np.ndarray, " d"], heads: Heads
) -> tuple[float, Float[np.ndarray, " d"]]:
    # What makes log-odds a reward: their factor, and the mean feature, which gets 0.5. One pass over the pairs.
    chosen, rejected = (side.response for side in (known.chosen(fitted.feature), known.rejected(fitted.feature)))
    k, n = len(fitted.probe.objectives), len(known)
    gaps, margins, total = np.full((n, k), np.nan), np.full(n, np.nan), np.zeros(len(whole))
    for rows in blocks(n):
        one, other = _both(chosen, rejected, rows)
        total += one.sum(axis=0) + other.sum(axis=0)
        for fold, (probe, head) in enumerate(zip(fitted.without, heads, strict=True)):
            at = known.folds[rows] == fold
            gaps[rows[at]] = (one[at] - other[at]) @ probe.weights.T
            margins[rows[at]] = (one[at] - other[at]) @ head
    deviations = gaps.std(axis=0)
    wanted, own = float(np.sqrt((deviations[deviations > 0] ** 2).mean())) if (deviations > 0).any() else 0.0, margins.std()
    if not (wanted > 0 and own > 0 and np.isfinite(wanted / own)):
        raise FitError(
            "`preferred` can't be learnt from these pairs: no reward differs between the two answers of any of them; give other "
            "pairs, or leave `preferred` out"
        )
    return wanted / float(own), total / (2 * n)


def _both(chosen: Rows, rejected: Rows, rows: np.ndarray) -> tuple[Float[np.ndarray, "b d"], Float[np.ndarray, "b d"]]:
    return chosen.rows(rows).astype(np.float64), rejected.rows(rows).astype(np.float64)


def _longer(probe: Probe, weights: Float[np.ndarray, " d"], intercept: float) -> Probe:
    return Probe(
        Objectives([*probe.objectives, PREFERRED]),
        np.vstack([probe.weights, weights]),
        np.append(probe.intercepts, intercept),
        np.append(probe.alphas, 0.0),
    )

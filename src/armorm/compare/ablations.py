"""What the method is worth piece by piece: rivals with fixed weights, and the method without the probe's missing-label masking.

In: a run's context, rated stores, pairs as arrays, the run's probe.  Out: `Unmasked` parts, methods for the benchmark.
Cost: fixed weights one prediction of the pairs; without masking one pass over the rated features, one debiasing, one gate.

Without masking, every row carries every objective. A rating that is missing is filled with a number of its objective:

- `mean`: the mean of the training rows that have the rating. It is the best guess that looks at no feature.
- `zero`: 0, which on [0, 1] is the lowest rating that a scale has. It says that an answer which nobody rated for safety is
  as unsafe as can be, so the probe learns which set a row comes from; it is here for comparison and is no fair rival.

Either way rows of other sets pull an objective's rewards towards a constant, and towards whatever tells the sets apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from armorm.data.splits import Split
from armorm.disk import read_sealed, write_sealed
from armorm.errors import RecipeError
from armorm.features.answers import Answers
from armorm.fit.debias import Debias
from armorm.fit.method import Fitted
from armorm.fit.probe import Probe
from armorm.recipe import FixedWeightsRecipe
from armorm.rivals.fixed import FixedWeights, GatedRewards, fit_fixed_weights, given_weights, preset_weights
from armorm.run.context import TEST, RunContext
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.gate_stage import cross_fit, fit_gate_stage
from armorm.run.methods import MAIN, Method
from armorm.run.pairs import PairArrays, prompts_elsewhere
from armorm.run.preferred_stage import with_preferred
from armorm.run.probe_stage import FittedProbe, fit_probe_stage
from armorm.run.summing import RatingStores

FORMAT = 2

Fill = Literal["mean", "zero"]
"""What stands for a missing rating: its objective's mean over rated training rows, or 0 (see the module's docstring)."""


@dataclass(frozen=True, eq=False)
class Unmasked:
    """The method on a probe without masking."""

    fill: Fill
    fitted: Fitted

    @property
    def method(self) -> Method:
        """What the benchmark compares."""
        name, label = f"{MAIN}-not-masked", "… without missing-label masking"
        if self.fill != "mean":
            name, label = f"{name}-{self.fill}", f"{label} ({self.fill} filled)"
        return Method(GatedRewards(self.fitted, name, label), self.fitted.feature)


def fit_without_masking(
    context: RunContext,
    ratings: RatingStores,
    pairs: PairArrays,
    at: Path,
    *,
    fill: Fill = "mean",
    feature: str | None = None,
    padded: Answers | None = None,
) -> tuple[Unmasked, dict[str, Any]]:
    """Fit probe, debiasing and gate as the run does, but on ratings whose gaps are filled, into folders of `at`.

    Folds, strengths and the gate's settings are the recipe's. `feature` is the run's own; without it the candidates compete
    again, by held-out error on the filled ratings as someone without masks would measure it; `padded` is the store of padded
    copies that the debiasing may need. The facts are what the stages reported (`probe`, `debias`, `gate`); an objective's
    `n_train` counts filled rows too, its figures are about the test split's real ratings. Raises what the stages raise.
    """
    if feature is not None:
        features = context.recipe.features.model_copy(update={"response": [feature]})
        context = replace(context, recipe=context.recipe.model_copy(update={"features": features}))
    context.reporter.say(f"without missing-label masking: {fill} in the place of missing ratings")
    probe, probe_facts = fit_probe_stage(at / "probe", context, ratings, fill=fill_values(context, ratings, fill))
    probe = with_preferred(context.recipe, probe, pairs)[0] if context.recipe.preferred else probe
    debias, debias_facts = fit_debias_stage(at / "debias", context, probe, ratings, pairs.natural, padded=padded)
    elsewhere = prompts_elsewhere(context, ratings, pairs)
    gates, gate_facts = fit_gate_stage(at / "gate", context, probe, debias, pairs, elsewhere=elsewhere)
    fitted = Fitted(probe.probe, probe.feature, debias, gates.gate)
    fitted.save(at)
    write_sealed(at / "unmasked.json", {"format": FORMAT, "fill": fill})
    return Unmasked(fill, fitted), {"probe": probe_facts, "debias": debias_facts, "gate": gate_facts}


def load_without_masking(at: Path) -> Unmasked:
    """What `fit_without_masking` left in a folder. Raises CheckpointError where it is missing or damaged."""
    whole = read_sealed(at / "unmasked.json", FORMAT, remedy="remove the folder and fit it again", holds={"fill": str})
    return Unmasked(whole["fill"], Fitted.load(at))


def fill_values(context: RunContext, ratings: RatingStores, fill: Fill) -> Float[np.ndarray, " k"]:
    """What fills each objective's gaps, on [0, 1]; NaN for an objective that no training row is rated for."""
    objectives = context.objectives
    known = [store.ratings(objectives)[context.folds(store.groups) != TEST] for store in ratings.values()]
    labels = objectives.to_unit(np.concatenate(known))
    n = (~np.isnan(labels)).sum(axis=0)
    values = np.nansum(labels, axis=0) / np.maximum(n, 1) if fill == "mean" else np.zeros(len(objectives))
    return np.where(n > 0, values, np.nan)


def rival_methods(
    fitted: FittedProbe,
    pairs: PairArrays,
    *,
    fixed: Sequence[FixedWeightsRecipe] = (),
    unmasked: Sequence[Unmasked] = (),
) -> list[Method]:
    """Rivals of a finished run: every setting in `fixed`, weights fitted to its training pairs, and the `unmasked` parts.

    All but the last read the run's probe. Raises RecipeError for settings of one name, presets and attributes that don't exist;
    ObjectiveMismatch for objectives that the run does not have.
    """
    names = [setting.name for setting in fixed]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise RecipeError(f"compare.fixed_weights: named twice: {', '.join(twice)}: give each its own name")
    scorers = [*(_weigh(fitted.probe, setting) for setting in fixed), fitted_weights(fitted, pairs)]
    return [*(Method(scorer, fitted.feature) for scorer in scorers), *(u.method for u in unmasked)]


def fitted_weights(fitted: FittedProbe, pairs: PairArrays) -> FixedWeights:
    """Signed weights on the run's raw rewards, cross-fitted as for its gate, from the same training and validation pairs."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    none = Debias.identity(fitted.probe.objectives)
    sides = (known.chosen(fitted.feature), known.rejected(fitted.feature))
    chosen, rejected = (cross_fit(fitted, none, side, known.folds).values for side in sides)
    return fit_fixed_weights(fitted.probe, chosen, rejected, known.at(Split.VALIDATION))


def _weigh(probe: Probe, setting: FixedWeightsRecipe) -> FixedWeights:
    name, label = f"fixed-{setting.name}", f"fixed weights, {setting.name}"
    if setting.preset is not None:
        return preset_weights(probe, setting.preset, setting.objectives, name=name, label=label)
    if setting.objectives:
        raise RecipeError(
            f"compare.fixed_weights: {setting.name} has weights by objective and `objectives` besides, which name what stands "
            "for a preset's attributes: leave `objectives` out"
        )
    return given_weights(probe, setting.weights or {}, name=name, label=label)

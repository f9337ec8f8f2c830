"""What the method is worth piece by piece: rivals with fixed weights, and the method without the probe's missing-label masking.

In: a recipe, rated stores, pairs as arrays, the folder of the run's probe.  Out: `Unmasked` parts, methods for the benchmark.
Cost: fixed weights one prediction of the pairs; without masking one pass over the rated features, one debiasing, one gate.

Without masking, every row carries every objective. A rating that is missing is filled with a number of its objective:

- `mean`: the mean of the training rows that have the rating. It is the best guess that looks at no feature.
- `zero`: 0, which on [0, 1] is the lowest rating that a scale has. It says that an answer which nobody rated for safety is
  as unsafe as can be, so the probe learns which set a row comes from; it is here for comparison and is no fair rival.

Either way rows of other sets pull an objective's rewards towards a constant, and towards whatever tells the sets apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from armorm.data.splits import Split
from armorm.errors import CheckpointError, RecipeError
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.parts import load_debias, load_gate, load_probe
from armorm.fit.probe import Probe
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import FixedWeightsRecipe, Recipe
from armorm.rivals.fixed import FixedWeights, GatedRewards, fit_fixed_weights, given_weights, preset_weights
from armorm.run.fitting import PairArrays, RatingStores, cross_fitted, fit_debias_stage, fit_gate_stage, fit_probe_stage
from armorm.run.methods import MAIN, Method
from armorm.run.rows import side_of

FORMAT = 1

Fill = Literal["mean", "zero"]
"""What stands for a missing rating: its objective's mean over rated training rows, or 0 (see the module's docstring)."""


@dataclass(frozen=True, eq=False)
class Unmasked:
    """The method's parts on a probe without masking, and what their stages reported (`probe`, `debias`, `gate`)."""

    fill: Fill
    probe: Probe
    feature: str
    debias: Debias
    gate: Gate
    facts: dict[str, Any]

    @property
    def method(self) -> Method:
        """What the benchmark compares."""
        name, label = f"{MAIN}-not-masked", "… without missing-label masking"
        if self.fill != "mean":
            name, label = f"{name}-{self.fill}", f"{label} ({self.fill} filled)"
        return Method(GatedRewards(self.probe, self.debias, self.gate, name, label), self.feature)


def fit_without_masking(
    recipe: Recipe,
    objectives: Objectives,
    ratings: RatingStores,
    pairs: PairArrays,
    at: Path,
    reporter: Reporter,
    *,
    fill: Fill = "mean",
    feature: str | None = None,
) -> Unmasked:
    """Fit probe, debiasing and gate as the run does, but on ratings whose gaps are filled, into folders of `at`.

    Folds, strengths and the gate's settings are the recipe's. `feature` is the run's own; without it the candidates compete
    again, by held-out error on the filled ratings as someone without masks would measure it. In `facts`, an objective's `n_train`
    counts filled rows too; its figures are about the test split's real ratings. Raises what the stages raise.
    """
    if feature is not None:
        recipe = recipe.model_copy(update={"features": recipe.features.model_copy(update={"response": [feature]})})
    reporter.say(f"without missing-label masking: {fill} in the place of missing ratings")
    values = fill_values(recipe, objectives, ratings, fill)
    facts = {"probe": fit_probe_stage(at / "probe", recipe, objectives, ratings, reporter, fill=values)}
    facts["debias"] = fit_debias_stage(at / "debias", recipe, at / "probe", ratings, pairs, reporter)
    facts["gate"] = fit_gate_stage(at / "gate", recipe, at / "probe", load_debias(at / "debias"), pairs, reporter)
    whole = {"format": FORMAT, "fill": fill, "facts": facts}
    (at / "unmasked.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return load_without_masking(at)


def load_without_masking(at: Path) -> Unmasked:
    """What `fit_without_masking` left in a folder. Raises CheckpointError where it is missing or damaged."""
    path = at / "unmasked.json"
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole.get("format") != FORMAT:
            raise CheckpointError(f"{path}: format {whole.get('format')}, this version reads {FORMAT}: fit it again")
        fill, facts = whole["fill"], whole["facts"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}): remove the folder and fit it again") from None
    probe, feature = load_probe(at / "probe")
    return Unmasked(fill, probe, feature, load_debias(at / "debias"), load_gate(at / "gate"), facts)


def fill_values(recipe: Recipe, objectives: Objectives, ratings: RatingStores, fill: Fill) -> Float[np.ndarray, " k"]:
    """What fills each objective's gaps, on [0, 1]; NaN for an objective that no training row is rated for."""
    known = [r for _, rows in ratings.values() for r in rows if side_of(r.group, recipe) is not Split.TEST]
    labels = objectives.to_unit(np.array([objectives.row(r.ratings) for r in known]).reshape(-1, len(objectives)))
    n = (~np.isnan(labels)).sum(axis=0)
    values = np.nansum(labels, axis=0) / np.maximum(n, 1) if fill == "mean" else np.zeros(len(objectives))
    return np.where(n > 0, values, np.nan)


def rival_methods(
    recipe: Recipe,
    probe_folder: Path,
    pairs: PairArrays,
    *,
    fixed: Sequence[FixedWeightsRecipe] = (),
    unmasked: Sequence[Unmasked] = (),
) -> list[Method]:
    """Rivals of a finished run: every setting in `fixed`, weights fitted to its training pairs, and the `unmasked` parts.

    All but the last read the probe in `probe_folder` (which holds its cross-fitting probes too). Raises RecipeError for settings
    of one name, presets and attributes that don't exist; ObjectiveMismatch for objectives that the run does not have.
    """
    probe, feature = load_probe(probe_folder)
    names = [setting.name for setting in fixed]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise RecipeError(f"compare.fixed_weights: named twice: {', '.join(twice)}: give each its own name")
    scorers = [*(_weighted(probe, setting) for setting in fixed), fitted_weights(recipe, probe_folder, pairs)]
    return [*(Method(scorer, feature) for scorer in scorers), *(u.method for u in unmasked)]


def fitted_weights(recipe: Recipe, probe_folder: Path, pairs: PairArrays) -> FixedWeights:
    """Signed weights on the run's raw rewards, cross-fitted as for its gate, from the same training and validation pairs."""
    probe, _ = load_probe(probe_folder)
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    none = Debias.identity(probe.objectives)
    chosen, rejected = (cross_fitted(recipe, probe_folder, none, known, side).values for side in ("chosen", "rejected"))
    return fit_fixed_weights(probe, chosen, rejected, known.at(Split.VALIDATION))


def _weighted(probe: Probe, setting: FixedWeightsRecipe) -> FixedWeights:
    name, label = f"fixed-{setting.name}", f"fixed weights, {setting.name}"
    if setting.preset is not None:
        return preset_weights(probe, setting.preset, setting.objectives, name=name, label=label)
    if setting.objectives:
        raise RecipeError(
            f"compare.fixed_weights: {setting.name} has weights by objective and `objectives` besides, which name what stands "
            "for a preset's attributes: leave `objectives` out"
        )
    return given_weights(probe, setting.weights or {}, name=name, label=label)

"""Rivals that weigh objectives the same for every prompt, or look at nothing but length.

In: a probe and a debiasing (or none); weights that are published, one's own, or fitted to pairs.  Out: FeatureScorers.
Cost: none beyond the probe's; fitted weights are one logistic regression [p k] per strength.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from armorm.errors import ObjectiveMismatch, RecipeError
from armorm.fit.debias import DebiasedRewards
from armorm.fit.method import Fitted
from armorm.fit.probe import Probe
from armorm.objectives import Direction, Objective, Objectives, ScaleMap
from armorm.rivals.bradley_terry import STRENGTHS, fit_bradley_terry
from armorm.scorers import AnswerFeatures

PRESETS: Mapping[str, Mapping[str, float]] = {
    "helpsteer2": {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45, "complexity": 0.55, "verbosity": -0.4},
    "helpsteer2-nemotron": {"helpfulness": 0.3, "correctness": 0.74, "coherence": 0.46, "complexity": 0.47, "verbosity": -0.33},
}
"""Published weights by attribute, for ratings from 0 to 4: those that NVIDIA's model cards recommend for its regression models on
HelpSteer2, Llama3-70B-SteerLM-RM and Nemotron-4-340B-Reward."""

RATED_BY = ("helpsteer", "helpsteer2")
"""The sets whose objectives stand for a preset's attributes where nothing else is said, the first that is there."""

TOP = 4.0
"""A preset's ratings end here."""

AMOUNTS = frozenset({"verbosity"})
"""Attributes that say how much there is of something, not how good it is."""


@dataclass(frozen=True)
class GatedRewards:
    """The method itself, and with a constant gate its rivals of fixed weights."""

    fitted: Fitted
    name: str
    label: str

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        return self.fitted.scores(answers)


@dataclass(frozen=True, eq=False)
class FixedWeights:
    """score = Σ w_i · r_i + intercept over the probe's raw rewards on [0, 1]; `weights` [k] may be negative.

    `strength` is that of the fit (scikit-learn's C), None where the weights were given. Raises ObjectiveMismatch for another
    number of weights than the probe has objectives.
    """

    probe: Probe
    weights: Float[np.ndarray, " k"]
    name: str
    label: str
    intercept: float = 0.0
    strength: float | None = None

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.probe.objectives):
            raise ObjectiveMismatch(
                f"there are {len(self.weights)} weights for the probe's {len(self.probe.objectives)} objectives: give one each"
            )

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        return self.probe.predict(answers.response) @ self.weights + self.intercept


@dataclass(frozen=True)
class LongerWins:
    """Length in tokens is the score."""

    name: str = "length"
    label: str = "longer wins"

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        return answers.tokens.astype(np.float64)


def preset_weights(
    probe: Probe, preset: str, objectives: Mapping[str, str] | None = None, *, name: str, label: str | None = None
) -> FixedWeights:
    """One of `PRESETS`: score = Σ w_a · rating_a, every rating from 0 to 4.

    `objectives` names the objective that stands for an attribute; the others are those of `RATED_BY`. Rewards are brought to the
    scale that the weights were published for: from the lowest rating of an objective's own scale (0) to its highest (4), whatever
    its map to [0, 1]. Where all scales are mapped by their end points that is 4 · r, and where all are HelpSteer's it is 5 · r
    less a constant, so the order of answers is that of Σ w_a · r_a. An attribute that says how much (verbosity) follows its raw
    rating, also for an objective of which less is better: map it to one that rises with length. Two attributes may be mapped to
    one objective; their weights add up.

    Raises RecipeError for an unknown preset or attribute; ObjectiveMismatch naming every objective that is not there.
    """
    if preset not in PRESETS:
        raise RecipeError(f"there is no preset {preset!r} of fixed weights: choose among {_listed(PRESETS)}, or give `weights`")
    published, mapped = PRESETS[preset], dict(objectives or {})
    if strange := [a for a in mapped if a not in published]:
        raise RecipeError(f"{preset} has no {_listed(strange)}: its attributes are {_listed(published)}; correct `objectives`")
    standing = {a: mapped.get(a) or _rated(a, probe.objectives) for a in published}
    if absent := {a: o for a, o in standing.items() if o not in probe.objectives.names}:
        raise ObjectiveMismatch(
            f"{preset} weighs {_listed(f'{a} ({o})' for a, o in absent.items())}, for which there is no objective; there are "
            f"{_listed(probe.objectives.names)}. Say in `objectives` which of them stand for {_listed(absent)} "
            f"({{{next(iter(absent))}: …}}), or give `weights` by objective instead of the preset"
        )
    weights, intercept = np.zeros(len(probe.objectives)), 0.0
    for attribute, weight in published.items():
        column = probe.objectives.column(standing[attribute])
        slope, offset = _rating_line(probe.objectives[column], amount=attribute in AMOUNTS)
        weights[column] += weight * slope
        intercept += weight * offset
    return FixedWeights(probe, weights, name, label or f"fixed weights, {name}", intercept)


def given_weights(probe: Probe, weights: Mapping[str, float], *, name: str, label: str | None = None) -> FixedWeights:
    """One's own weights by objective, on raw rewards in [0, 1] (so 1 is good, except for neutral objectives); the rest weigh 0.

    Raises ObjectiveMismatch naming every objective that is not there; RecipeError for weights that are not finite or all 0.
    """
    if absent := [o for o in weights if o not in probe.objectives.names]:
        raise ObjectiveMismatch(
            f"{name} weighs {_listed(absent)}, for which there is no objective: choose among {_listed(probe.objectives.names)}"
        )
    if not all(map(math.isfinite, weights.values())) or not any(weights.values()):
        raise RecipeError(f"{name}: weights must be finite numbers and not all 0, got {dict(weights)}")
    row = np.nan_to_num(probe.objectives.row(weights))
    return FixedWeights(probe, row, name, label or f"fixed weights, {name}")


def fit_fixed_weights(
    probe: Probe,
    chosen: Float[np.ndarray, "p k"],
    rejected: Float[np.ndarray, "p k"],
    validation: Bool[np.ndarray, " p"],
    *,
    strengths: Sequence[float] = STRENGTHS,
    name: str = "fitted-weights",
    label: str = "fixed weights, fitted to pairs (signed)",
) -> FixedWeights:
    """Signed weights of raw rewards by logistic regression on pair differences: Bradley–Terry on k rewards.

    `chosen` and `rejected` are both answers' raw rewards, which should be cross-fitted: a probe is better on the answers that it
    was fitted to. The strength is that with the least log-loss on the pairs in `validation`; the others are fitted to.

    Raises ObjectiveMismatch for another number of rewards than the probe has objectives, FitError without training or validation
    pairs.
    """
    k = len(probe.objectives)
    if chosen.shape[1] != k or rejected.shape[1] != k:
        raise ObjectiveMismatch(
            f"the pairs have {chosen.shape[1]} and {rejected.shape[1]} rewards, the probe {k} objectives: "
            "predict them with this probe"
        )
    fit = fit_bradley_terry([("rewards", chosen, rejected)], validation, strengths=strengths)
    return FixedWeights(probe, fit.weights, name, label, strength=fit.strength)


def best_single_objective(chosen: DebiasedRewards, rejected: DebiasedRewards) -> int:
    """The column whose reward alone orders most pairs right (ties count half)."""
    gap = chosen.values - rejected.values
    return int(np.argmax((gap > 0).mean(axis=0) + 0.5 * (gap == 0).mean(axis=0)))


def _rated(attribute: str, objectives: Objectives) -> str:
    names = [f"{rated}-{attribute}" for rated in RATED_BY]
    return next((n for n in names if n in objectives.names), names[0])


def _rating_line(objective: Objective, *, amount: bool) -> tuple[float, float]:
    # rating from 0 to 4 = slope · reward + offset: undo the objective's own map, then its end points are 0 and 4
    ends = {"scale_map": ScaleMap.END_POINTS} | ({"direction": Direction.NEUTRAL} if amount else {})
    plain = objective.model_copy(update=ends)
    low, high = (TOP * float(plain.to_unit(objective.from_unit(reward))) for reward in (0.0, 1.0))
    return high - low, low


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)

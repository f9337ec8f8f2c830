"""Stage 2c: P(right), the probability that the answer with the higher score is the better one, and how far it holds.

In: the probe with those that lack a fold, a debiasing, a gate, pairs.  Out: `Preference` in a stage's folder, facts for the
report.
Cost: one prediction of the validation pairs; later one of each suite's pairs, and bootstraps.

Validation pairs fit it: the gate's weights come from training pairs, on which its margins are too good, and test pairs, which no
stage has seen, are left to say how far the probabilities hold. The rewards are cross-fitted, as those that the gate learnt from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.bench.abstention import abstention_curve
from armorm.bench.reliability import reliability
from armorm.data.splits import Split
from armorm.features.columns import gathered
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.parts import save_preference
from armorm.fit.preference import Preference, PreferenceFit, fit_preference
from armorm.results import write_number
from armorm.run.gate_stage import cross_fit
from armorm.run.pairs import PairArrays
from armorm.run.probe_stage import FittedProbe

FEW = 50
"""Prompts below which the report says that the probabilities rest on few."""


def fit_preference_stage(
    folder: Path, fitted: FittedProbe, debias: Debias, gate: Gate, pairs: PairArrays
) -> tuple[Preference | None, dict[str, Any]]:
    """Fit P(right) on the validation pairs and save it; where they don't allow it there is none, and the facts say why."""
    known = pairs.take(pairs.at(Split.VALIDATION))
    fit = fit_preference(cross_fitted_margins(fitted, debias, gate, known), known.groups)
    if fit.preference is not None:
        save_preference(folder, fit.preference, debias.objectives)
    return fit.preference, _facts(fit, known)


def cross_fitted_margins(fitted: FittedProbe, debias: Debias, gate: Gate, pairs: PairArrays) -> Float[np.ndarray, " p"]:
    """Winner's score minus loser's, both of rewards from the probe without the pair's fold of prompts."""
    if not len(pairs):
        return np.zeros(0)
    sides = (pairs.chosen(fitted.feature), pairs.rejected(fitted.feature))
    chosen, rejected = (cross_fit(fitted, debias, side, pairs.folds).values for side in sides)
    return (pairs.prompts.over(gate.weights_for) * (chosen - rejected)).sum(axis=1)  # over k


def margins_of(fitted: Fitted, pairs: PairArrays) -> Float[np.ndarray, " p"]:
    """Winner's score minus loser's by the final probe, which has seen no prompt of a suite or of the test split."""
    sides = zip(pairs.chosen(fitted.feature).blocks(), pairs.rejected(fitted.feature).blocks(), strict=True)
    return gathered((fitted.scores(chosen) - fitted.scores(rejected) for chosen, rejected in sides), len(pairs))


def measured(fitted: Fitted, pairs: PairArrays, objectives: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the model's card says of it, of prompts that chose nothing: accuracy on test pairs, each objective's correlation."""
    margins = margins_of(fitted, pairs)
    right = float(np.mean((margins > 0) + 0.5 * (margins == 0))) if len(margins) else math.nan
    of_objectives = [("pearsonr", o["name"], o["pearson"]["value"], o["n_test"]) for o in objectives]
    found = [("accuracy", "held-out pairs", right, len(margins)), *of_objectives]
    return [
        {"metric": metric, "on": on, "value": value, "n": n}
        for metric, on, value, n in found
        if value is not None and math.isfinite(value)
    ]


def confidence_facts(
    preference: Preference | None, fitted: Fitted, suites: Mapping[str, PairArrays], *, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Of each suite's pairs: `abstention`, the errors when close calls are left open, and `reliability`, with a calibration."""
    found: dict[str, list[dict[str, Any]]] = {"abstention": [], "reliability": []}
    for name, pairs in suites.items():
        margins = margins_of(fitted, pairs)
        known = None if preference is None else preference.of(margins)
        right = (margins > 0) + 0.5 * (margins == 0)
        curve = abstention_curve(margins, known, right, pairs.groups, seed=seed)
        found["abstention"].append({"suite": name, **curve.to_json()})
        if known is not None:
            found["reliability"].append({"suite": name, **reliability(known, pairs.groups, seed=seed).to_json()})
    return found


def _facts(fit: PreferenceFit, known: PairArrays) -> dict[str, Any]:
    found = fit.preference
    return {
        "form": None if found is None else found.form,
        "pairs": len(known),
        "prompts": len(set(known.groups)),
        "slope": None if found is None or found.form == "isotonic" else found.slope,
        "most": None if found is None else found.most,
        "log_loss": {form: write_number(loss) for form, loss in fit.log_loss.items()},
        "reason": fit.reason,
        "warnings": _warnings(fit),
    }


def _warnings(fit: PreferenceFit) -> list[str]:
    found = fit.preference
    if found is None:
        return [f"P(right) could not be calibrated: {fit.reason}"]
    if not found.tells:
        return [
            f"P(right) is 50 % for every margin: on {found.pairs} validation pairs the score doesn't tell winners from losers"
        ]
    return [f"P(right) rests on {found.prompts} prompts' validation pairs alone"] if found.prompts < FEW else []

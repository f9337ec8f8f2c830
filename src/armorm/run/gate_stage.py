"""Stage 2b: the gate, and the constant ones that it is compared with, on cross-fitted rewards of stored pairs.

In: the probe with those that lack a fold, a debiasing, pairs.  Out: `Gates` in a stage's folder, facts for the report.
Cost: one prediction of the pairs, the gate's training. Of the features a block or a batch is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from armorm.data.splits import Split
from armorm.features.columns import Column, blocks
from armorm.fit.debias import Debias, DebiasedRewards
from armorm.fit.gate import Gate, GateFit, fit_constant_gate, fit_gate
from armorm.fit.method import compute_nuisances
from armorm.fit.parts import load_gate, save_gate
from armorm.fit.weighing import pair_weights
from armorm.rivals.fixed import best_single_objective
from armorm.run.context import RunContext
from armorm.run.pairs import PairArrays, StoredAnswers
from armorm.run.probe_stage import FittedProbe


@dataclass(frozen=True, eq=False)
class Gates:
    """The trained `gate`; constant ones: `fixed` (the best weights), `uniform`, `single` (the best objective alone)."""

    gate: Gate
    fixed: Gate
    uniform: Gate
    single: Gate

    @property
    def best_objective(self) -> str:
        """The objective that `single` reads."""
        return self.single.objectives.names[int(np.argmax(self.single.biases[-1]))]

    def save(self, folder: Path) -> None:
        """Write all four into `folder`. Raises StorageError."""
        for one in fields(self):
            save_gate(folder, getattr(self, one.name), one.name)

    @classmethod
    def load(cls, folder: Path) -> Gates:
        """What `save` wrote. Raises CheckpointError for a gate that is missing or damaged."""
        return cls(*(load_gate(folder, one.name) for one in fields(cls)))


def fit_gate_stage(
    folder: Path, context: RunContext, fitted: FittedProbe, debias: Debias, pairs: PairArrays
) -> tuple[Gates, dict[str, Any]]:
    """Train the gate (and, for comparison, constant ones) on cross-fitted, debiased rewards."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    validation, objectives = known.at(Split.VALIDATION), debias.objectives
    chosen = cross_fit(fitted, debias, known.chosen(fitted.feature), known.folds)
    rejected = cross_fit(fitted, debias, known.rejected(fitted.feature), known.folds)
    settings = context.recipe.gate
    weights = pair_weights(settings.weigh, known.groups, known.sources, validation)
    with context.reporter.bar("gate", settings.steps * settings.seeds) as advance:
        fit = fit_gate(
            known.prompts,
            chosen,
            rejected,
            validation,
            objectives,
            settings=settings,
            seed=context.recipe.seed,
            weights=weights,
            progress=lambda done, _all: advance(done, "steps"),
        )
    fixed = fit_constant_gate(chosen, rejected, validation, objectives, weights=weights)
    uniform, best = np.full(len(objectives), 1 / len(objectives)), np.zeros(len(objectives))
    best[best_single_objective(chosen, rejected)] = 1.0
    gates = Gates(fit.gate, fixed, Gate.constant(objectives, uniform), Gate.constant(objectives, best))
    gates.save(folder)
    by_source = average_weights(fit.gate, pairs.sections, pairs.prompts)
    return gates, {**_training_facts(fit), "by_source": by_source, "single": gates.best_objective}


def cross_fit(fitted: FittedProbe, debias: Debias, answers: StoredAnswers, folds: Int[np.ndarray, " n"]) -> DebiasedRewards:
    """Debiased rewards of answers, each from the probe that was fitted without its prompt's fold; NaN in no fold."""
    rewards = np.full((len(answers), len(debias.objectives)), np.nan)
    for rows in blocks(len(answers)):
        features = answers.response.rows(rows)
        for fold, probe in enumerate(fitted.without):
            at = folds[rows] == fold
            rewards[rows[at]] = probe.predict(features[at])
    return debias.apply(rewards, compute_nuisances(debias.computed, answers.tokens, answers.style))


def average_weights(gate: Gate, labels: Sequence[str], prompts: Column) -> dict[str, dict[str, float]]:
    """Mean weights per label (source, section)."""
    weights = prompts.over(gate.weights_for)
    names = {name: i for i, name in enumerate(dict.fromkeys(labels))}
    which = np.array([names[label] for label in labels], dtype=np.int64)
    return {
        name: dict(zip(gate.objectives.names, weights[which == i].mean(axis=0).tolist(), strict=True))
        for name, i in names.items()
    }


def _training_facts(fit: GateFit) -> dict[str, Any]:
    accuracies = [a for a in fit.validation_accuracies if np.isfinite(a)]
    return {
        "curves": [asdict(c) for c in fit.curves],
        "chosen_seed": fit.chosen_seed,
        "best_step": fit.best_step,
        "scale": fit.gate.scale,
        "spread": {
            "validation_accuracy": {
                "mean": float(np.mean(accuracies)) if accuracies else None,
                "std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
                "values": accuracies,
            }
        },
    }

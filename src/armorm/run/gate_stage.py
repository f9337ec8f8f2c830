"""Stage 2b: the gate, and the constant ones that it is compared with, on cross-fitted rewards of stored pairs.

In: the probe with those that lack a fold, a debiasing, pairs.  Out: `Gates` in a stage's folder, facts for the report.
Cost: one prediction of the pairs, the gate's training. Of the features a block or a batch is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from armorm.data.splits import Split
from armorm.features.columns import Column, Rows, blocks
from armorm.fit.debias import Debias, DebiasedRewards
from armorm.fit.gate import Gate, GateFit, fit_constant_gate, fit_gate
from armorm.fit.gate_choice import STEPS, STRENGTHS, KlChoice, choose_kl, parts_to_leave_out
from armorm.fit.gate_settings import GateSettings
from armorm.fit.method import compute_nuisances
from armorm.fit.parts import load_gate, save_gate
from armorm.fit.weighing import Shares, pair_weights
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.rivals.fixed import best_single_objective
from armorm.run.context import RunContext
from armorm.run.pairs import PairArrays, StoredAnswers
from armorm.run.probe_stage import FittedProbe

TOO_FEW_TO_CHOOSE = (
    "`gate.kl` is auto, and there are too few pairs to leave any out: the gate is one weight vector; give more pairs, or a number"
)


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


@dataclass(frozen=True, eq=False)
class GatesFit:
    """The gates, how the first one was trained, by which settings; `choice` is how its `kl` was chosen, where it was."""

    gates: Gates
    fit: GateFit
    settings: GateSettings
    choice: KlChoice | None


def fit_gates(
    fitted: FittedProbe,
    debias: Debias,
    pairs: PairArrays,
    settings: GateSettings,
    *,
    seed: int,
    reporter: Reporter,
    shares: Shares = (),
    elsewhere: Rows | None = None,
) -> GatesFit:
    """Train the gate (and, for comparison, constant ones) on cross-fitted, debiased rewards of the pairs that are not for tests.

    `shares`: sources with a share of the pairs' weight, for `pair_weights`. `elsewhere`: prompts without pairs, for
    `kl_elsewhere`. Raises FitError as `fit_gate` does.
    """
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    validation, objectives = known.at(Split.VALIDATION), debias.objectives
    chosen = cross_fit(fitted, debias, known.chosen(fitted.feature), known.folds)
    rejected = cross_fit(fitted, debias, known.rejected(fitted.feature), known.folds)
    choice = None
    if settings.kl == "auto":
        choice = _choose(known, chosen, rejected, objectives, settings, seed, reporter, shares, elsewhere)
        settings = replace(settings, kl=choice.strengths[choice.chosen])
    weights = pair_weights(settings.weigh, known.groups, known.sources, validation, shares)
    with reporter.bar("gate", settings.steps * settings.seeds) as advance:
        fit = fit_gate(
            known.prompts,
            chosen,
            rejected,
            validation,
            objectives,
            settings=settings,
            seed=seed,
            weights=weights,
            elsewhere=elsewhere,
            progress=lambda done, _all: advance(done, "steps"),
        )
    fixed = fit_constant_gate(chosen, rejected, validation, objectives, weights=weights, kl_equal=settings.kl_equal)
    uniform, best = np.full(len(objectives), 1 / len(objectives)), np.zeros(len(objectives))
    best[best_single_objective(chosen, rejected)] = 1.0
    gates = Gates(fit.gate, fixed, Gate.constant(objectives, uniform), Gate.constant(objectives, best))
    return GatesFit(gates, fit, settings, choice)


def fit_gate_stage(
    folder: Path,
    context: RunContext,
    fitted: FittedProbe,
    debias: Debias,
    pairs: PairArrays,
    *,
    elsewhere: Rows | None = None,
    kl: str | None = None,
) -> tuple[Gates, dict[str, Any]]:
    """`fit_gates` into a folder, by the recipe's settings; `kl` takes the place of theirs."""
    settings, seed = context.recipe.gate, context.recipe.seed
    settings = settings if kl is None else replace(settings, kl=float(kl))
    shares, reporter = context.recipe.pair_shares, context.reporter
    found = fit_gates(fitted, debias, pairs, settings, seed=seed, reporter=reporter, shares=shares, elsewhere=elsewhere)
    found.gates.save(folder)
    by_source = average_weights(found.fit.gate, pairs.sections, pairs.prompts)
    facts = {**_training_facts(found.fit), "by_source": by_source, "single": found.gates.best_objective}
    return found.gates, {**facts, **_anchor_facts(found, context.reporter)}


def _choose(
    known: PairArrays,
    chosen: DebiasedRewards,
    rejected: DebiasedRewards,
    objectives: Objectives,
    settings: GateSettings,
    seed: int,
    reporter: Reporter,
    shares: Shares,
    elsewhere: Rows | None,
) -> KlChoice:
    # Pairs that were made go with the prompts that they were made of; what is judged is what somebody preferred.
    natural = known.natural
    parts = parts_to_leave_out(natural.prompts, natural.sources, natural.groups, seed=seed)
    of = np.full(len(known), -1)
    of[known.are_natural] = parts.of
    parts = replace(parts, of=of)
    with reporter.bar("gate's kl", len(parts.names) * len(STRENGTHS)) as advance:
        return choose_kl(
            known.prompts,
            chosen,
            rejected,
            known.at(Split.VALIDATION),
            objectives,
            parts=parts,
            sources=known.sources,
            groups=known.groups,
            settings=settings,
            seed=seed,
            shares=shares,
            elsewhere=elsewhere,
            progress=lambda done, _all: advance(done, "trainings"),
        )


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


def _anchor_facts(found: GatesFit, reporter: Reporter) -> dict[str, Any]:
    # What the paper's gate has not: nothing is said of a gate in its form
    settings, choice, facts = found.settings, found.choice, dict[str, Any]()
    if settings.anchored or choice is not None:
        facts |= {"start": settings.start, "kl": f"{settings.strength:g}"}
    facts |= {name: value for name in ("kl_elsewhere", "kl_equal") if (value := getattr(settings, name))}
    if found.gates.gate.blocks > 1 or (settings.combine == "mean" and settings.seeds > 1):
        facts |= {"combined": settings.seeds}
    if choice is None:
        return facts
    facts["choice"] = _choice_facts(choice, found.settings)
    if not choice.parts.names:
        reporter.warn(TOO_FEW_TO_CHOOSE)
    return facts


def _choice_facts(choice: KlChoice, settings: GateSettings) -> dict[str, Any]:
    parts, rows = choice.parts, []
    for i, strength in enumerate(choice.strengths if parts.names else ()):
        more, error = choice.excess(i, choice.best)
        numbers = {"loss": choice.losses[i].tolist(), "accuracy": choice.accuracies[i].tolist()}
        rows.append({"kl": f"{strength:g}", **numbers, "excess": more, "error": error})
    return {
        "kind": parts.kind,
        "parts": [{"name": name, "n": n} for name, n in zip(parts.names, parts.sizes, strict=True)],
        "steps": min(settings.steps, STEPS),
        "strengths": rows,
        "best": f"{choice.strengths[choice.best]:g}",
        "chosen": f"{choice.strengths[choice.chosen]:g}",
        "gain": _gain(choice),
    }


def _gain(choice: KlChoice) -> dict[str, float] | None:
    # By how much one weight vector's loss is above that of the best gate
    if not choice.parts.names:
        return None
    gates = choice.losses[:-1].mean(axis=1)
    best = int(np.argmin(gates))
    more, error = choice.excess(len(choice.strengths) - 1, best)
    right = choice.accuracies.mean(axis=1)
    return {"loss": more, "error": error, "accuracy": float(right[best] - right[-1])}

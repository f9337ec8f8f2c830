"""Stages 1 and 2 on stored features: probe, debiasing, gates.

In: stores, rows (for their groups), a recipe.  Out: fitted parts in a stage's folder, and facts for the report.
Cost: one pass over the rated features per candidate; the pairs' rewards are computed once.

The gate learns from cross-fitted rewards: a training pair's rewards come from the probe that was fitted without the pair's fold,
so the gate meets the probe's errors as they are on new prompts, also where a prompt has both ratings and pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.splits import Split, folds_of
from armorm.errors import FitError
from armorm.features.spec import FeatureSpec
from armorm.features.store import Stored
from armorm.fit.debias import Debias, DebiasedRewards, correlations, fit_debias
from armorm.fit.gate import Gate, GateFit, fit_constant_gate, fit_gate
from armorm.fit.parts import load_gate, load_probe, save_debias, save_gate, save_probe
from armorm.fit.probe import Probe, ProbeFit, fit_probe, refit
from armorm.fit.quality import probe_quality
from armorm.fit.statistics import RidgeStatistics
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import RESPONSE_TOKENS, Recipe
from armorm.rivals.bradley_terry import BradleyTerry, fit_bradley_terry
from armorm.rivals.fixed import best_single_objective
from armorm.run.rows import side_of
from armorm.scorers import AnswerFeatures

RatingStores = Mapping[str, tuple[Stored, Sequence[RatedResponse]]]
PairStores = Mapping[str, tuple[Stored, Sequence[PreferencePair]]]


# -- stage 1: the probe -----------------------------------------------------------------------------------------------------


def fit_probe_stage(
    folder: Path,
    recipe: Recipe,
    objectives: Objectives,
    ratings: RatingStores,
    reporter: Reporter,
    *,
    fill: Float[np.ndarray, " k"] | None = None,
) -> dict[str, Any]:
    """Choose among the feature candidates by held-out probe quality, fit, report on the test split.

    `fill` puts a number on [0, 1] in the place of every missing rating that is fitted to (see `ablations`); without it they are
    masked. The test split is judged by the ratings that it has either way.
    """
    fits: dict[str, tuple[ProbeFit, list[RidgeStatistics]]] = {}
    for spec in recipe.features.candidates:
        folds = fold_statistics(recipe, objectives, ratings, spec, fill=fill)
        fit = fit_probe(folds, objectives, alphas=recipe.probe.alphas, intercept=recipe.probe.intercept)
        reporter.say(f"probe on {spec}: mean held-out Pearson {fit.mean_cv_pearson:.3f}")
        fits[str(spec)] = (fit, folds)
    feature = max(fits, key=lambda f: fits[f][0].mean_cv_pearson)
    fit, folds = fits[feature]
    for warning in fit.warnings:
        reporter.warn(warning)
    save_probe(folder, fit.probe, feature)
    for i in range(len(folds)):
        rest = reduce(add, [f for j, f in enumerate(folds) if j != i])
        save_probe(folder / f"without-fold-{i}", refit(rest, fit.probe, intercept=recipe.probe.intercept), feature)
    return {
        "feature": feature,
        "candidates": [{"feature": f, "pearson": p.mean_cv_pearson} for f, (p, _) in fits.items()],
        "objectives": _probe_rows(recipe, fit, test_predictions(recipe, objectives, ratings, fit.probe, feature)),
        "warnings": list(fit.warnings),
    }


def fold_statistics(
    recipe: Recipe,
    objectives: Objectives,
    ratings: RatingStores,
    spec: FeatureSpec,
    *,
    permuted: bool = False,
    fill: Float[np.ndarray, " k"] | None = None,
) -> list[RidgeStatistics]:
    """Sufficient statistics per fold of prompt groups, test prompts left out; one pass, one shard in memory at a time.

    `permuted` gives each shard's ratings to its rows in a random order: what a probe that learns nothing is fitted on.
    `fill` stands for missing ratings, on [0, 1] (NaN: they stay missing).
    """
    generator = np.random.default_rng(recipe.seed)
    folds: list[RidgeStatistics | None] = [None] * recipe.probe.folds
    for stored, rows in ratings.values():
        fold = np.array([_fold(r.group, recipe) for r in rows])
        start = 0
        for block in stored.blocks():
            features, labels = block.features("response", spec), objectives.to_unit(block.ratings(objectives))
            if permuted:
                labels = labels[generator.permutation(len(labels))]
            if fill is not None:
                labels = np.where(np.isnan(labels), fill, labels)
            at = fold[start : start + len(features)]
            start += len(features)
            for i in range(recipe.probe.folds):
                if (at == i).any():
                    part = RidgeStatistics.from_rows(features[at == i], labels[at == i])
                    known = folds[i]
                    folds[i] = part if known is None else known + part
    found = [f for f in folds if f is not None]
    if len(found) < len(folds):
        raise FitError(f"only {len(found)} of {len(folds)} folds hold prompts: give more rated prompts, or fewer `probe.folds`")
    return found


def permuted_probe(recipe: Recipe, objectives: Objectives, ratings: RatingStores, probe: Probe, feature: str) -> Probe:
    """The probe as it comes out on permuted ratings, at the same strengths: stage 1 turned off."""
    folds = fold_statistics(recipe, objectives, ratings, FeatureSpec.parse(feature), permuted=True)
    return refit(reduce(add, folds), probe, intercept=recipe.probe.intercept)


@dataclass(frozen=True)
class Predicted:
    """Rated rows of one split with their predictions."""

    rewards: Float[np.ndarray, "n k"]
    raw: Float[np.ndarray, "n k"]
    groups: list[str]
    ids: list[str]


def test_predictions(recipe: Recipe, objectives: Objectives, ratings: RatingStores, probe: Probe, feature: str) -> Predicted:
    """Predictions for the rated rows of the test split, which chose nothing."""
    spec, k = FeatureSpec.parse(feature), len(objectives)
    rewards, raw, groups, ids = [np.empty((0, k))], [np.empty((0, k))], [], []
    for stored, rows in ratings.values():
        at = np.array([side_of(r.group, recipe) is Split.TEST for r in rows])
        labels = np.concatenate([b.ratings(objectives) for b in stored.blocks()])
        rewards.append(probe.predict(stored.features("response", spec)[at]))
        raw.append(labels[at])
        groups += [r.group for r, test in zip(rows, at, strict=True) if test]
        ids += [r.id for r, test in zip(rows, at, strict=True) if test]
    return Predicted(np.concatenate(rewards), np.concatenate(raw), groups, ids)


def _probe_rows(recipe: Recipe, fit: ProbeFit, test: Predicted) -> list[dict[str, Any]]:
    quality = probe_quality(test.rewards, test.raw, fit.probe.objectives, test.groups, seed=recipe.seed)
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


def _fold(group: str, recipe: Recipe) -> int:
    # −1 for test prompts: they are in no fold
    return -1 if side_of(group, recipe) is Split.TEST else folds_of(group, seed=recipe.seed, folds=recipe.probe.folds)


# -- pairs as arrays --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairArrays:
    """Pairs of several sources in one row order, with what every later stage needs of them."""

    sources: list[str]
    sections: list[str]
    ids: list[str]
    groups: list[str]
    sides: list[Split]
    folds: Float[np.ndarray, " p"]
    prompts: Float[np.ndarray, "p v"]
    chosen: Mapping[str, AnswerFeatures]
    rejected: Mapping[str, AnswerFeatures]

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, *sides: Split) -> Bool[np.ndarray, " p"]:
        return np.array([s in sides for s in self.sides], dtype=np.bool_)

    def take(self, mask: Bool[np.ndarray, " p"]) -> PairArrays:
        """The pairs where `mask` holds."""
        kept = np.flatnonzero(mask)

        def part(answers: AnswerFeatures) -> AnswerFeatures:
            return AnswerFeatures(answers.response[kept], answers.prompt[kept], answers.tokens[kept])

        return PairArrays(
            [self.sources[i] for i in kept],
            [self.sections[i] for i in kept],
            [self.ids[i] for i in kept],
            [self.groups[i] for i in kept],
            [self.sides[i] for i in kept],
            self.folds[kept],
            self.prompts[kept],
            {f: part(a) for f, a in self.chosen.items()},
            {f: part(a) for f, a in self.rejected.items()},
        )


def pair_arrays(recipe: Recipe, stores: PairStores) -> PairArrays:
    """Read the pairs' features: every candidate of the recipe, since a rival may choose another one than the probe."""
    prompt_spec = recipe.features.prompt_spec
    flat = [(name, row) for name, (_, rows) in stores.items() for row in rows]
    prompts = np.concatenate([s.features("prompt", prompt_spec) for s, _ in stores.values()])

    def side(name: str, spec: FeatureSpec) -> AnswerFeatures:
        response = np.concatenate([s.features(name, spec) for s, _ in stores.values()])
        tokens = np.concatenate([s.tokens(name) for s, _ in stores.values()]).astype(np.float64)
        return AnswerFeatures(response, prompts, tokens)

    return PairArrays(
        sources=[name for name, _ in flat],
        sections=[row.section or name for name, row in flat],
        ids=[row.id for _, row in flat],
        groups=[row.group for _, row in flat],
        sides=[side_of(row.group, recipe) for _, row in flat],
        folds=np.array([_fold(row.group, recipe) for _, row in flat], dtype=np.float64),
        prompts=prompts,
        chosen={str(spec): side("chosen", spec) for spec in recipe.features.candidates},
        rejected={str(spec): side("rejected", spec) for spec in recipe.features.candidates},
    )


def computed_nuisances(debias_computed: Sequence[str], tokens: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n m"]:
    return np.repeat(tokens[:, None].astype(np.float64), len(debias_computed), axis=1)


# -- debiasing --------------------------------------------------------------------------------------------------------------


def fit_debias_stage(
    folder: Path, recipe: Recipe, probe_folder: Path, ratings: RatingStores, pairs: PairArrays, reporter: Reporter
) -> dict[str, Any]:
    """Fit λ on the reference answers of the training split; report correlations there and on held-out prompts' answers."""
    probe, feature = load_probe(probe_folder)
    computed = tuple(n for n in recipe.debias.nuisances if n == RESPONSE_TOKENS)
    reference = _reference(recipe, ratings, pairs, feature, (Split.TRAIN, Split.VALIDATION))
    held_out = _reference(recipe, ratings, pairs, feature, (Split.TEST,))
    if not recipe.debias.nuisances:
        save_debias(folder, Debias.identity(probe.objectives))
        return {"method": recipe.debias.method, "nuisances": [], "itself": recipe.debias.itself, "objectives": [], "warnings": []}
    rewards = probe.predict(reference.response)
    fit = fit_debias(
        rewards,
        computed_nuisances(computed, reference.tokens),
        probe.objectives,
        nuisances=recipe.debias.nuisances,
        computed_names=computed,
        method=recipe.debias.method,
        itself=recipe.debias.itself,
    )
    for warning in fit.warnings:
        reporter.warn(warning)
    save_debias(folder, fit.debias)
    before, after = _held_out_correlations(recipe, probe, fit.debias, held_out)
    names = recipe.debias.nuisances

    def change(first: np.ndarray, second: np.ndarray, i: int) -> dict[str, Any]:
        return {n: {"before": _number(first[i, j]), "after": _number(second[i, j])} for j, n in enumerate(names)}

    return {
        "method": recipe.debias.method,
        "nuisances": names,
        "itself": recipe.debias.itself,
        "reference": {"sources": recipe.debias.reference or sorted(set(pairs.sources)), "n": len(reference)},
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


def _held_out_correlations(
    recipe: Recipe, probe: Probe, debias: Debias, answers: AnswerFeatures
) -> tuple[Float[np.ndarray, "k q"], Float[np.ndarray, "k q"]]:
    names, k = recipe.debias.nuisances, len(probe.objectives)
    if len(answers) < 3:
        return np.full((k, len(names)), np.nan), np.full((k, len(names)), np.nan)
    rewards = probe.predict(answers.response)
    computed = computed_nuisances(debias.computed, answers.tokens)
    terms = np.concatenate([rewards, computed], axis=1)
    nuisance = terms[:, [debias.terms.index(n) for n in names]]
    method = recipe.debias.method
    return correlations(rewards, nuisance, method), correlations(debias.apply(rewards, computed).values, nuisance, method)


def _reference(
    recipe: Recipe, ratings: RatingStores, pairs: PairArrays, feature: str, sides: tuple[Split, ...]
) -> AnswerFeatures:
    """Answers of the reference sources (none named: of all pairs) on the given sides."""
    wanted = set(recipe.debias.reference)
    spec = FeatureSpec.parse(feature)
    found: list[AnswerFeatures] = []
    for name, (stored, rows) in ratings.items():
        if name in wanted:
            at = np.array([side_of(r.group, recipe) in sides for r in rows])
            prompts = stored.features("prompt", recipe.features.prompt_spec)[at]
            tokens = stored.tokens("response")[at].astype(np.float64)
            found.append(AnswerFeatures(stored.features("response", spec)[at], prompts, tokens))
    in_pairs = pairs.take(pairs.at(*sides) & np.array([not wanted or s in wanted for s in pairs.sources], dtype=np.bool_))
    found += [in_pairs.chosen[feature], in_pairs.rejected[feature]]
    return AnswerFeatures(*(np.concatenate([getattr(a, f) for a in found]) for f in ("response", "prompt", "tokens")))


# -- stage 2: gates and rivals ----------------------------------------------------------------------------------------------


def fit_gate_stage(
    folder: Path, recipe: Recipe, probe_folder: Path, debias: Debias, pairs: PairArrays, reporter: Reporter
) -> dict[str, Any]:
    """Train the gate (and, for comparison, a constant one) on cross-fitted, debiased rewards."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    validation = known.at(Split.VALIDATION)
    chosen, rejected = (cross_fitted(recipe, probe_folder, debias, known, side) for side in ("chosen", "rejected"))
    settings, objectives = recipe.gate, debias.objectives
    with reporter.bar("gate", settings.steps * settings.seeds) as advance:
        fit = fit_gate(
            known.prompts,
            chosen,
            rejected,
            validation,
            objectives,
            settings=settings,
            seed=recipe.seed,
            progress=lambda done, _all: advance(done, "steps"),
        )
    fixed = fit_constant_gate(chosen, rejected, validation, objectives)
    uniform = np.full(len(objectives), 1 / len(objectives))
    best = np.zeros(len(objectives))
    best[best_single_objective(chosen, rejected)] = 1.0
    save_gate(folder, fit.gate)
    save_gate(folder, fixed.gate, "fixed")
    save_gate(folder, Gate.constant(objectives, uniform), "uniform")
    save_gate(folder, Gate.constant(objectives, best), "single")
    return {
        **_gate_facts(fit),
        "by_source": gate_by(fit.gate, pairs.sections, pairs.prompts),
        "single": _name_of(objectives, best),
    }


def cross_fitted(recipe: Recipe, probe_folder: Path, debias: Debias, pairs: PairArrays, side: str) -> DebiasedRewards:
    """Debiased rewards of one side's answers, each from the probe fitted without its prompt's fold."""
    rewards = np.full((len(pairs), len(debias.objectives)), np.nan)  # pairs of the test split stay NaN
    answers: AnswerFeatures | None = None
    for fold in range(recipe.probe.folds):
        probe, feature = load_probe(probe_folder / f"without-fold-{fold}")
        answers = getattr(pairs, side)[feature]
        at = pairs.folds == fold
        rewards[at] = probe.predict(answers.response[at])
    assert answers is not None
    return debias.apply(rewards, computed_nuisances(debias.computed, answers.tokens))


def fit_bradley_terry_stage(pairs: PairArrays) -> BradleyTerry:
    """The Bradley–Terry rival on the same pairs, split and feature candidates."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    chosen, rejected = ({f: a.response for f, a in side.items()} for side in (known.chosen, known.rejected))
    return fit_bradley_terry(chosen, rejected, known.at(Split.VALIDATION))


def gate_by(gate: Gate, labels: Sequence[str], prompts: Float[np.ndarray, "p v"]) -> dict[str, dict[str, float]]:
    """Mean gate per label (source, section)."""
    weights = gate.weights_for(prompts)
    which = np.array(labels)
    return {
        name: dict(zip(gate.objectives.names, weights[which == name].mean(axis=0).tolist(), strict=True))
        for name in dict.fromkeys(labels)
    }


def load_gates(folder: Path) -> dict[str, Gate]:
    """The gates of a stage's folder: the trained one ("gate"), "fixed", "uniform", "single"."""
    return {name: load_gate(folder, name) for name in ("gate", "fixed", "uniform", "single")}


def _gate_facts(fit: GateFit) -> dict[str, Any]:
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


def _name_of(objectives: Objectives, weights: Float[np.ndarray, " k"]) -> str:
    return objectives.names[int(np.argmax(weights))]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

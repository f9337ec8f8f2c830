"""Stage 2a: debiasing on the reference answers, and on what padding does to some of them.

In: the probe, rated stores, pairs, the store of padded copies if there is one.  Out: `Debias` in a stage's folder, facts for the
report.  Cost: one prediction of the reference answers and the copies, a block at a time, and what `fit_debias` takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from armorm.data.splits import Split
from armorm.features.answers import Answers, column_of
from armorm.features.columns import Column
from armorm.features.nuisances import COMPUTED
from armorm.fit.debias import Debias, DebiasFit, correlations, fit_debias, largest_by_chance, measure_of, within_prompts
from armorm.fit.method import compute_nuisances
from armorm.fit.parts import save_debias
from armorm.intervals import Interval, mean_by_group
from armorm.results import write_number
from armorm.run.context import RunContext
from armorm.run.padded import PaddedCopies, read_copies
from armorm.run.pairs import PairArrays
from armorm.run.probe_stage import FittedProbe
from armorm.run.summing import RatingStores

Correlations = Float[np.ndarray, "k q"]


def fit_debias_stage(
    folder: Path,
    context: RunContext,
    fitted: FittedProbe,
    ratings: RatingStores,
    pairs: PairArrays,
    *,
    padded: Answers | None = None,
    without: Collection[str] = (),
) -> tuple[Debias, dict[str, Any]]:
    """Fit λ on the reference answers of the training split; report correlations there and on held-out prompts' answers.

    `padded` holds some of them with padded copies, of which those on prompt groups `without` are left out; with it the report
    says what padding does to each reward.
    """
    settings, probe = context.recipe.debias, fitted.probe
    names = settings.nuisances
    facts: dict[str, Any] = {"method": settings.method, "nuisances": names, "itself": settings.itself}
    facts |= {} if settings.over == "pooled" else {"over": settings.over}
    if not names:
        debias = Debias.identity(probe.objectives)
        save_debias(folder, debias)
        return debias, {**facts, "objectives": [], "warnings": []}
    computed = tuple(n for n in names if n in COMPUTED and n not in probe.objectives.names)
    reference = _reference(context, fitted, ratings, pairs, (Split.TRAIN, Split.VALIDATION))
    copies = (
        None if padded is None else read_copies(padded, fitted, computed, asked=settings.padded or len(padded), without=without)
    )
    fit = fit_debias(
        reference.rewards,
        compute_nuisances(computed, reference.tokens, reference.style),
        probe.objectives,
        nuisances=names,
        computed_names=computed,
        method=settings.method,
        itself=settings.itself,
        prompts=None if settings.over == "pooled" else reference.groups,
        padding=None if copies is None else copies.changes,
    )
    shifts = None if copies is None else _Shifts.of(copies, fit, reference.rewards.std(axis=0), seed=context.recipe.seed)
    warnings = [*fit.warnings, *(shifts.contradictions(fit) if shifts else ())]
    for warning in warnings:
        context.reporter.warn(warning)
    save_debias(folder, fit.debias)
    held_out = _reference(context, fitted, ratings, pairs, (Split.TEST,))
    before, after, chance = _correlations(context, fit.debias, held_out)

    def change(first: Correlations, second: Correlations, i: int) -> dict[str, Any]:
        return {n: {"before": write_number(first[i, j]), "after": write_number(second[i, j])} for j, n in enumerate(names)}

    return fit.debias, {
        **facts,
        "reference": {"sources": settings.reference or sorted(set(pairs.sources)), "n": len(reference)},
        "held_out": {"n": len(held_out), "chance": chance},
        "objectives": [
            {
                "name": o.name,
                "coefficients": {n: float(fit.coefficients[i, j]) for j, n in enumerate(names)},
                "reference": change(fit.before, fit.after, i),
                "held_out": change(before, after, i),
                **({"padding": shifts.to_json(fit, i)} if shifts else {}),
            }
            for i, o in enumerate(probe.objectives)
        ],
        **({"padding": _copies_facts(copies, names, shifts)} if copies and shifts else {}),
        "warnings": warnings,
    }


# -- what padding does ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Shifts:
    # How far padding moves each reward, in deviations of that reward over the reference answers, before and after debiasing.

    before: tuple[Interval, ...]
    after: tuple[Interval, ...]
    moves: Float[np.ndarray, " q"]

    @classmethod
    def of(cls, copies: PaddedCopies, fit: DebiasFit, deviations: Float[np.ndarray, " k"], *, seed: int) -> _Shifts:
        changes, unit = copies.changes, np.where(deviations > 0, deviations, 1.0)

        def means(moved: Float[np.ndarray, "p k"]) -> tuple[Interval, ...]:
            return tuple(mean_by_group(column, copies.groups, seed=seed) for column in (moved / unit).T)

        terms = np.concatenate([changes.rewards, changes.computed], axis=1)
        moves = terms[:, [fit.debias.terms.index(n) for n in fit.nuisances]].mean(axis=0)
        return cls(means(changes.rewards), means(fit.debias.apply(changes.rewards, changes.computed).values), moves)

    def contradictions(self, fit: DebiasFit) -> Iterator[str]:
        """Where eq. 3 would charge a reward that falls under padding already: what correlates there is quality."""
        charges = fit.by_correlation @ self.moves
        for name, shift, charge in zip(fit.debias.objectives.names, self.before, charges.tolist(), strict=True):
            if shift.high < 0 < charge:
                does = "does" if np.array_equal(fit.coefficients, fit.by_correlation) else "would"
                yield (
                    f"{name}: falls by {-shift.value:.2f} σ when answers are padded, and the correlation {does} charge it for "
                    "padding: what correlates with the nuisances there is quality"
                )

    def to_json(self, fit: DebiasFit, i: int) -> dict[str, Any]:
        assert fit.by_padding is not None
        both = {"correlation": fit.by_correlation, "padding": fit.by_padding}
        found = {key: {n: float(of[i, j]) for j, n in enumerate(fit.nuisances)} for key, of in both.items()}
        return {**found, "shift": self.before[i].to_json(), "shift_after": self.after[i].to_json()}


def _copies_facts(copies: PaddedCopies, names: Sequence[str], shifts: _Shifts) -> dict[str, Any]:
    moved = dict(zip(names, shifts.moves.tolist(), strict=True))
    return {"n": len(copies.groups), "prompts": len(set(copies.groups)), "left_out": copies.left_out, "moved": moved}


# -- reference answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Predicted:
    # Answers with the probe's rewards; `style` where it is asked for.

    rewards: Float[np.ndarray, "n k"]
    tokens: Float[np.ndarray, " n"]
    style: Int[np.ndarray, "n s"] | None
    groups: list[str]

    def __len__(self) -> int:
        return len(self.tokens)


def _correlations(
    context: RunContext, debias: Debias, answers: _Predicted
) -> tuple[Correlations, Correlations, dict[str, dict[str, float | None]]]:
    # Of each reward with each nuisance, before and after; for each nuisance, how large the largest after would be by chance.
    settings, k = context.recipe.debias, len(debias.objectives)
    names, measure = settings.nuisances, measure_of(settings.method)
    rewards, computed = answers.rewards, compute_nuisances(debias.computed, answers.tokens, answers.style)
    values = np.concatenate([rewards, debias.apply(rewards, computed).values, rewards, computed], axis=1)
    values = values if settings.over == "pooled" else within_prompts(values, answers.groups)
    if len(values) < 3:
        return np.full((k, len(names)), np.nan), np.full((k, len(names)), np.nan), {}
    freed, nuisance = values[:, k : 2 * k], values[:, [2 * k + debias.terms.index(n) for n in names]]
    others = [[i for i, o in enumerate(debias.objectives.names) if o != name] for name in names]
    found = [
        largest_by_chance(freed[:, own], column, measure, seed=context.recipe.seed)
        for own, column in zip(others, nuisance.T, strict=True)
    ]
    chance = {name: {"mean": write_number(one[0]), "high": write_number(one[1])} for name, one in zip(names, found, strict=True)}
    return correlations(values[:, :k], nuisance, measure), correlations(freed, nuisance, measure), chance


def _reference(
    context: RunContext, fitted: FittedProbe, ratings: RatingStores, pairs: PairArrays, sides: tuple[Split, ...]
) -> _Predicted:
    # Answers of the reference sources (none named: of all pairs) on the given sides.
    wanted, styled = set(context.recipe.debias.reference), context.recipe.debias.styled
    features, tokens, groups = list[Column](), list[Float[np.ndarray, " n"]](), list[str]()
    style = list[Int[np.ndarray, "n s"]]()
    for store in (store for name, store in ratings.items() if name in wanted):
        own = store.groups
        at = np.array([side in sides for side in context.sides(own)], dtype=np.bool_)
        features.append(column_of([store], "response", fitted.spec).take(np.flatnonzero(at)))
        tokens.append(store.tokens()[at].astype(np.float64))
        style += [store.style()[at]] if styled else []
        groups += [group for group, kept in zip(own, at, strict=True) if kept]
    named = pairs.take(pairs.at(*sides) & np.array([not wanted or s in wanted for s in pairs.sources], dtype=np.bool_))
    for side in (named.chosen(fitted.feature), named.rejected(fitted.feature)):
        features.append(side.response)
        tokens.append(side.tokens)
        style += [] if side.style is None else [side.style]
        groups += named.groups
    rewards = np.concatenate([found.over(fitted.probe.predict) for found in features])
    return _Predicted(rewards, np.concatenate(tokens), np.concatenate(style) if styled else None, groups)

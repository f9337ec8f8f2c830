"""Every method on sources of pairs that it has not seen: for each source, all that is made of pairs is made again without it.

In: the probe, the debiasing, pairs, rated stores.  Out: `Unseen`: one suite whose sections are the sources that were left out.
Cost: for each source what the debiasing, the gates (twice, as in the run itself) and the Bradley–Terry rival take.

A source is judged on its own pairs, but for those on prompts that the probe was fitted on: there its rewards would be better
than on any new source. What is trained without a source has no pair on any of its prompts either, and nothing that was made of
them. With `kl: auto` the strength is chosen anew without the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from armorm.data.splits import Split
from armorm.disk import passing_folder
from armorm.errors import FitError
from armorm.features.columns import Column
from armorm.fit.debias import Debias
from armorm.progress import Reporter
from armorm.recipe import UNSEEN
from armorm.run.context import RunContext
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.extraction import Stores
from armorm.run.gate_stage import fit_gates
from armorm.run.methods import Graded, Judged, Method, Side, fit_bradley_terry_stage, judge_scores, methods, score_suite
from armorm.run.pairs import PairArrays, SuiteArrays, prompts_elsewhere
from armorm.run.preferred_stage import with_preferred
from armorm.run.probe_stage import FittedProbe

FEWEST = 20
"""Pairs of a source that it can be judged on."""


@dataclass(frozen=True)
class Unseen:
    """All methods on the sources that were left out one by one; None where none could be. `warnings` name those that were not."""

    judged: Judged | None
    warnings: tuple[str, ...]


def judge_unseen(
    folder: Path, context: RunContext, probe: FittedProbe, debias: Debias, pairs: PairArrays, stores: Stores
) -> Unseen:
    """Leave out each source that has enough pairs, and judge what is fitted on the others on it. `folder` holds passing files."""
    left_out = _LeftOut(context, probe, debias, pairs, stores)
    sources, warnings = list(dict.fromkeys(pairs.natural.sources)), list[str]()
    scores, labels, known = dict[str, tuple[Side, Side]](), dict[str, str](), np.zeros(len(pairs), dtype=np.bool_)
    with context.reporter.bar(UNSEEN, len(sources)) as advance:
        for i, source in enumerate(sources):
            own = left_out.judged(source)
            try:
                if own.sum() < FEWEST:
                    raise FitError(f"it has {int(own.sum())} pairs on prompts that the probe has not seen, fewer than {FEWEST}")
                tried = left_out.methods_without(source, folder)
            except FitError as error:
                warnings.append(f"{UNSEEN}: {source} is not left out: {error}")
                context.reporter.warn(warnings[-1])
            else:
                known |= own
                labels = _common(labels, tried)
                _put(scores, own, score_suite(SuiteArrays.of_pairs(pairs.take(own)), tried))
            advance(i + 1, "sources")
    if not known.any():
        return Unseen(None, tuple(warnings))
    judged = pairs.take(known)
    suite = SuiteArrays.of_pairs(replace(judged, sections=judged.sources))
    found = {method: (chosen[known], rejected[known]) for method, (chosen, rejected) in scores.items()}
    graded, seed = Graded.by(None, suite.items), context.recipe.seed
    return Unseen(judge_scores(UNSEEN, graded, suite, found, labels, seed=seed), tuple(warnings))


@dataclass(frozen=True, eq=False)
class _LeftOut:
    context: RunContext
    probe: FittedProbe
    debias: Debias
    pairs: PairArrays
    stores: Stores

    def judged(self, source: str) -> Bool[np.ndarray, " p"]:
        # The source's pairs on prompts that the probe was not fitted on
        rows = zip(self.pairs.sources, self.pairs.groups, strict=True)
        return np.array([own == source and group not in self._fitted for own, group in rows], dtype=np.bool_)

    def methods_without(self, source: str, folder: Path) -> list[Method]:
        # The method, its ablations and rivals, of the pairs that are of no prompt of the source
        recipe, quiet = self.context.recipe, replace(self.context, reporter=Reporter(quiet=True))
        prompts = {g for g, own in zip(self.pairs.groups, self.pairs.sources, strict=True) if own == source}
        rest = self.pairs.take(np.array([group not in prompts for group in self.pairs.groups], dtype=np.bool_))
        if not (rest.at(Split.TRAIN).any() and rest.at(Split.VALIDATION).any()):
            raise FitError("without it and its prompts there are no pairs to train on, or none to stop the training")
        probe = with_preferred(recipe, self.probe, rest)[0] if recipe.preferred else self.probe
        debias = self._debias(quiet, probe, rest, source, prompts, folder)
        none, shares = Debias.identity(debias.objectives), recipe.pair_shares
        fit = partial(fit_gates, seed=recipe.seed, reporter=quiet.reporter, shares=shares, elsewhere=self._elsewhere)
        found = fit(probe, debias, rest, recipe.gate)
        raw = fit(probe, none, rest, found.settings).gates if recipe.debias.nuisances else found.gates
        candidates = [str(spec) for spec in recipe.features.candidates]
        rival = fit_bradley_terry_stage(rest, candidates, weigh=recipe.gate.weigh, shares=shares)
        return methods(probe, debias, found.gates, raw, rival)

    def _debias(
        self, context: RunContext, probe: FittedProbe, rest: PairArrays, source: str, prompts: set[str], folder: Path
    ) -> Debias:
        # The run's own where none of it comes from the source
        settings = context.recipe.debias
        touched = context.recipe.preferred or not settings.reference or source in settings.reference
        if not (settings.nuisances and touched):
            return self.debias
        with passing_folder(folder / "debias") as place:
            given = (place or folder, context, probe, self.stores.ratings, rest.natural)
            return fit_debias_stage(*given, padded=self.stores.padded, without=prompts)[0]

    @cached_property
    def _elsewhere(self) -> Column | None:
        # Of no source's pairs, so of none that is left out
        return prompts_elsewhere(self.context, self.stores.ratings, self.pairs)

    @cached_property
    def _fitted(self) -> set[str]:
        # The prompts that the probe was fitted on
        groups = {group for store in self.stores.ratings.values() for group in store.groups}
        sides = zip(groups, self.context.sides(list(groups)), strict=True)
        return {group for group, side in sides if side is not Split.TEST}


def _common(labels: Mapping[str, str], tried: Sequence[Method]) -> dict[str, str]:
    # A method's name for people; what is in brackets, which depends on the source, is left away where it differs
    own = {m.scorer.name: m.scorer.label for m in tried}
    return {name: own[name] if labels.get(name, own[name]) == own[name] else own[name].split(" (")[0] for name in own}


def _put(scores: dict[str, tuple[Side, Side]], own: Bool[np.ndarray, " p"], found: Mapping[str, tuple[Side, Side]]) -> None:
    for method, sides in found.items():
        whole = scores.setdefault(method, (np.full(len(own), np.nan), np.full(len(own), np.nan)))
        for column, values in zip(whole, sides, strict=True):
            column[own] = values

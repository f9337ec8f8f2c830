"""Methods on benchmarks: one table per suite, on stored features.

In: fitted parts, a suite's answers, the items that they belong to.  Out: facts for the report.
Cost: matrix products and bootstraps; a block of answers is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.bench.aggregate import aggregate_of, figures, paired
from armorm.bench.every_section import Outcome, all_sections
from armorm.bench.metrics import length_correlation
from armorm.bench.outcomes import Item, Outcomes, outcomes
from armorm.bench.run import Scores
from armorm.data.benchmarks.benchmark import Aggregate, Rule
from armorm.data.benchmarks.registry import benchmark
from armorm.data.splits import Split
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.gate_settings import Weigh
from armorm.fit.method import Fitted
from armorm.fit.weighing import Shares, pair_weights
from armorm.recipe import Suite
from armorm.rivals.bradley_terry import BradleyTerry, fit_bradley_terry
from armorm.rivals.fixed import GatedRewards, LongerWins
from armorm.run.gate_stage import Gates
from armorm.run.pairs import PairArrays, SuiteArrays
from armorm.run.probe_stage import FittedProbe
from armorm.scorers import AnswerFeatures, FeatureScorer

MAIN, RIVAL = "armorm", "bradley-terry"
Side = Float[np.ndarray, "_"]
"""Scores of all chosen, or of all rejected answers of a suite."""


@dataclass(frozen=True)
class Method:
    """A scorer and the feature that it reads."""

    scorer: FeatureScorer
    feature: str


def methods(probe: FittedProbe, debias: Debias, gates: Gates, raw: Gates, bradley_terry: BradleyTerry) -> list[Method]:
    """The method, its ablations and its rivals. The `raw` gates were trained on rewards without debiasing."""
    none, feature = Debias.identity(probe.probe.objectives), probe.feature

    def gated(name: str, label: str, gate: Gate, transform: Debias = debias) -> Method:
        return Method(GatedRewards(Fitted(probe.probe, feature, transform, gate), name, label), feature)

    return [
        gated(MAIN, "ArmoRM + MoE", gates.gate),
        gated("armorm-not-debiased", "… without debiasing", raw.gate, none),
        gated("armorm-no-gate", "… without gate (one learnt weight vector)", gates.fixed),
        gated("uniform", "uniform weights, debiased", gates.uniform),
        gated("uniform-raw", "uniform weights, raw", gates.uniform, none),
        gated("single", f"best single objective ({raw.best_objective})", raw.single, none),
        Method(bradley_terry, bradley_terry.feature),
        Method(LongerWins(), feature),
    ]


@dataclass(frozen=True)
class Graded:
    """Items, and how their scores become figures; the first aggregate is the official one."""

    items: Sequence[Item]
    rule: Rule
    aggregates: tuple[Aggregate, ...]

    @classmethod
    def by(cls, suite: Suite | None, items: Sequence[Item]) -> Graded:
        """A published benchmark by its own rule; pairs of one's own by their sections, ties as halves."""
        if suite is None or suite.benchmark is None:
            return cls(items, Rule.PREFERENCES, (aggregate_of(items),))
        named = benchmark(suite.benchmark)
        return cls(items, named.rule, named.aggregates)

    def outcomes(self, scores: Sequence[Scores]) -> Outcomes:
        return outcomes(self.rule, self.items, scores)


def fit_bradley_terry_stage(
    pairs: PairArrays, candidates: Sequence[str], *, weigh: Weigh = "pairs", shares: Shares = ()
) -> BradleyTerry:
    """The Bradley–Terry rival on the same pairs, weights, split and feature candidates as the method."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    validation = known.at(Split.VALIDATION)
    return fit_bradley_terry(
        ((feature, known.chosen(feature).response, known.rejected(feature).response) for feature in candidates),
        validation,
        weights=pair_weights(weigh, known.groups, known.sources, validation, shares),
    )


def score_suite(suite: SuiteArrays, tried: Sequence[Method]) -> dict[str, tuple[Side, Side]]:
    """Scores by method: of all chosen answers, and of all rejected ones. Each feature is read once."""
    found: dict[str, tuple[Side, Side]] = {}
    for feature in dict.fromkeys(m.feature for m in tried):
        scorers = [m.scorer for m in tried if m.feature == feature]
        chosen, rejected = (side.over(partial(_scores, scorers)) for side in suite.answers(feature))
        found |= {scorer.name: (chosen[:, i], rejected[:, i]) for i, scorer in enumerate(scorers)}
    return found


def _scores(scorers: Sequence[FeatureScorer], answers: AnswerFeatures) -> Float[np.ndarray, "n m"]:
    return np.stack([scorer.score_features(answers) for scorer in scorers], axis=1)


@dataclass(frozen=True)
class Judged:
    """Every method on one suite: its outcomes, the table made of them, the correlation of its score and length."""

    graded: Graded
    outcomes: Mapping[str, Outcomes]
    table: dict[str, Any]
    lengths: list[dict[str, Any]]


def judge_suite(name: str, graded: Graded, suite: SuiteArrays, tried: Sequence[Method], *, seed: int) -> Judged:
    """Methods on a suite."""
    labels = {m.scorer.name: m.scorer.label for m in tried}
    return judge_scores(name, graded, suite, score_suite(suite, tried), labels, seed=seed)


def judge_scores(
    name: str,
    graded: Graded,
    suite: SuiteArrays,
    scores: Mapping[str, tuple[Side, Side]],
    labels: Mapping[str, str],
    *,
    seed: int,
) -> Judged:
    """Scores by method on a suite, as `score_suite` gives them; `labels` are their names for people, in the table's order."""
    found = {method: graded.outcomes(suite.by_item(*both)) for method, both in scores.items()}
    rows = [_row(method, label, found, graded, seed) for method, label in labels.items()]
    facts = {"name": name, "n": len(graded.items), "groups": len(set(suite.groups)), "rule": graded.rule.value, "methods": rows}
    lengths, groups = suite.lengths, suite.groups
    correlated = {method: length_correlation(np.concatenate(both), lengths, groups, seed=seed) for method, both in scores.items()}
    return Judged(graded, found, facts, [{"suite": name, "method": m, **correlated[m].to_json()} for m in labels])


def over_sections(judged: Mapping[str, Judged], tried: Sequence[Method], *, seed: int) -> dict[str, Any] | None:
    """Every method over all sections of all suites, each counting alike."""
    suites = [Outcome(name, one.outcomes, one.graded.aggregates[0]) for name, one in judged.items()]
    found = all_sections(suites, {m.scorer.name: m.scorer.label for m in tried}, rival=RIVAL, seed=seed)
    return None if found is None else found.to_json()


def _row(name: str, label: str, found: Mapping[str, Outcomes], graded: Graded, seed: int) -> dict[str, Any]:
    official = graded.aggregates[0]
    whole = figures(found[name], graded.aggregates, seed=seed).to_json()
    aggregate = whole["aggregates"][official.name]
    return {
        "method": name,
        "label": label,
        "overall": aggregate["overall"],
        "sections": aggregate["sections"],
        "missing": aggregate["missing"],
        "figures": whole,
        "versus_bradley_terry": None if name == RIVAL else paired(found[name], found[RIVAL], official, seed=seed).to_json(),
    }

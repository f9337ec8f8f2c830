"""Methods on benchmarks: one table per suite, on stored features.

In: fitted parts, pairs as arrays, the items that they hold.  Out: facts for the report.  Cost: matrix products and bootstraps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.bench.aggregate import aggregate_of, figures, paired
from armorm.bench.metrics import length_correlation
from armorm.bench.outcomes import Outcomes, outcomes
from armorm.bench.run import Scores
from armorm.data.benchmarks.benchmark import Aggregate, Rule
from armorm.data.benchmarks.registry import benchmark
from armorm.data.rows import BenchmarkItem
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.recipe import Suite
from armorm.rivals.bradley_terry import BradleyTerry
from armorm.rivals.fixed import GatedRewards, LongerWins
from armorm.run.fitting import PairArrays
from armorm.scorers import FeatureScorer

MAIN, RIVAL = "armorm", "bradley-terry"


@dataclass(frozen=True)
class Method:
    """A scorer and the feature that it reads."""

    scorer: FeatureScorer
    feature: str


def methods(
    probe: Probe,
    feature: str,
    debias: Debias,
    gates: Mapping[str, Gate],
    raw_gates: Mapping[str, Gate],
    single: str,
    bradley_terry: BradleyTerry,
) -> list[Method]:
    """The method, its ablations and its rivals. `raw_gates` were trained on rewards without debiasing."""
    none = Debias.identity(probe.objectives)

    def gated(name: str, label: str, gate: Gate, transform: Debias = debias) -> Method:
        return Method(GatedRewards(probe, transform, gate, name, label), feature)

    return [
        gated(MAIN, "ArmoRM + MoE", gates["gate"]),
        gated("armorm-not-debiased", "… without debiasing", raw_gates["gate"], none),
        gated("armorm-no-gate", "… without gate (one learnt weight vector)", gates["fixed"]),
        gated("uniform", "uniform weights, debiased", gates["uniform"]),
        gated("uniform-raw", "uniform weights, raw", gates["uniform"], none),
        gated("single", f"best single objective ({single})", raw_gates["single"], none),
        Method(bradley_terry, bradley_terry.feature),
        Method(LongerWins(), feature),
    ]


@dataclass(frozen=True)
class Graded:
    """Items, and how their scores become figures; the first aggregate is the official one.

    The suite's pairs hold the items' answers one after the other, as `BenchmarkItem.pairs` lays them out.
    """

    items: Sequence[BenchmarkItem]
    rule: Rule
    aggregates: tuple[Aggregate, ...]

    @classmethod
    def by(cls, suite: Suite, items: Sequence[BenchmarkItem]) -> Graded:
        """A published benchmark by its own rule; pairs of one's own by their sections, ties as halves."""
        if suite.benchmark is not None:
            named = benchmark(suite.benchmark)
            return cls(items, named.rule, named.aggregates)
        return cls.preferences(items)

    @classmethod
    def preferences(cls, items: Sequence[BenchmarkItem]) -> Graded:
        return cls(items, Rule.PREFERENCES, (aggregate_of(items, {}),))

    @classmethod
    def of_pairs(cls, pairs: PairArrays) -> Graded:
        """Pairs of which only places and prompts matter, each an item."""
        rows = zip(pairs.ids, pairs.groups, pairs.sections, strict=True)
        return cls.preferences([BenchmarkItem(i, g, "", (), ("",), ("",), section=s) for i, g, s in rows])

    def outcomes(self, scores: Sequence[Scores]) -> Outcomes:
        return outcomes(self.rule, self.items, scores)

    def scores_from_pairs(self, chosen: Float[np.ndarray, " p"], rejected: Float[np.ndarray, " p"]) -> list[Scores]:
        """Scores of the suite's pairs → each item's, chosen first."""
        found, start = [], 0
        for item in self.items:
            c, r = len(item.chosen), len(item.rejected)
            found.append(np.concatenate([chosen[start : start + c], rejected[start : start + r]]))
            start += max(c, r)
        return found


@dataclass(frozen=True)
class Judged:
    """A suite's scores by method."""

    pairs: PairArrays
    chosen: Mapping[str, Float[np.ndarray, " p"]]
    rejected: Mapping[str, Float[np.ndarray, " p"]]


def judge(
    suite: str, graded: Graded, pairs: PairArrays, tried: Sequence[Method], *, seed: int
) -> tuple[Judged, dict[str, Any], list[dict[str, Any]]]:
    """Scores of every method; the suite's table; correlation of score and length per method."""
    judged = Judged(
        pairs,
        {m.scorer.name: m.scorer.score_features(pairs.chosen[m.feature]) for m in tried},
        {m.scorer.name: m.scorer.score_features(pairs.rejected[m.feature]) for m in tried},
    )
    found = {n: graded.outcomes(graded.scores_from_pairs(judged.chosen[n], judged.rejected[n])) for n in judged.chosen}
    rows = [_row(m, found, graded, seed) for m in tried]
    facts = {"name": suite, "n": len(graded.items), "groups": len(set(pairs.groups)), "rule": graded.rule.value, "methods": rows}
    return judged, facts, [_length(suite, m.scorer.name, judged, seed) for m in tried]


def _row(method: Method, found: Mapping[str, Outcomes], graded: Graded, seed: int) -> dict[str, Any]:
    name, official = method.scorer.name, graded.aggregates[0]
    whole = figures(found[name], graded.aggregates, seed=seed).to_json()
    aggregate = whole["aggregates"][official.name]
    return {
        "method": name,
        "label": method.scorer.label,
        "overall": aggregate["overall"],
        "sections": aggregate["sections"],
        "missing": aggregate["missing"],
        "figures": whole,
        "versus_bradley_terry": None if name == RIVAL else paired(found[name], found[RIVAL], official, seed=seed).to_json(),
    }


def _length(suite: str, name: str, judged: Judged, seed: int) -> dict[str, Any]:
    scores = np.concatenate([judged.chosen[name], judged.rejected[name]])
    answers = [next(iter(side.values())) for side in (judged.pairs.chosen, judged.pairs.rejected)]
    lengths = np.concatenate([a.tokens for a in answers])
    found = length_correlation(scores, lengths, [*judged.pairs.groups, *judged.pairs.groups], seed=seed)
    return {"suite": suite, "method": name, **found.to_json()}

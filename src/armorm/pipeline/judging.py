"""Methods on benchmark pairs: one table per suite, on stored features.

In: fitted parts, pairs as arrays.  Out: facts for the report.  Cost: matrix products and bootstraps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.bench.metrics import MACRO, PairOutcomes, accuracy, accuracy_by, length_correlation, paired_difference
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.pipeline.fitting import PairArrays
from armorm.rivals.bradley_terry import BradleyTerry
from armorm.rivals.fixed import GatedRewards, LongerWins
from armorm.scoring import FeatureScorer

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
class Judged:
    """A suite's scores by method."""

    pairs: PairArrays
    chosen: Mapping[str, Float[np.ndarray, " p"]]
    rejected: Mapping[str, Float[np.ndarray, " p"]]


def judge(
    suite: str, pairs: PairArrays, tried: Sequence[Method], *, seed: int
) -> tuple[Judged, dict[str, Any], list[dict[str, Any]]]:
    """Scores of every method; the suite's table; correlation of score and length per method."""
    judged = Judged(
        pairs,
        {m.scorer.name: m.scorer.score_features(pairs.chosen[m.feature]) for m in tried},
        {m.scorer.name: m.scorer.score_features(pairs.rejected[m.feature]) for m in tried},
    )
    outcomes = {n: PairOutcomes.from_scores(judged.chosen[n], judged.rejected[n]) for n in judged.chosen}
    rows = []
    for method in tried:
        name = method.scorer.name
        c, r = judged.chosen[name], judged.rejected[name]
        sections = accuracy_by(pairs.sections, c, r, pairs.groups, seed=seed)
        against = None if name == RIVAL else paired_difference(outcomes[name], outcomes[RIVAL], pairs.groups, seed=seed).to_json()
        rows.append(
            {
                "method": name,
                "label": method.scorer.label,
                "overall": accuracy(c, r, pairs.groups, seed=seed).to_json(),
                "macro": sections.pop(MACRO).to_json(),
                "sections": {s: a.to_json() for s, a in sections.items()},
                "versus_bradley_terry": against,
            }
        )
    facts = {"name": suite, "n": len(pairs), "groups": len(set(pairs.groups)), "methods": rows}
    return judged, facts, [_length(suite, m.scorer.name, judged, seed) for m in tried]


def _length(suite: str, name: str, judged: Judged, seed: int) -> dict[str, Any]:
    scores = np.concatenate([judged.chosen[name], judged.rejected[name]])
    answers = [next(iter(side.values())) for side in (judged.pairs.chosen, judged.pairs.rejected)]
    lengths = np.concatenate([a.tokens for a in answers])
    found = length_correlation(scores, lengths, [*judged.pairs.groups, *judged.pairs.groups], seed=seed)
    return {"suite": suite, "method": name, **found.to_json()}

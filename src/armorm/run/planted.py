"""The planted-truth table: on the synthetic starter set the truth is known, so each stage can be held against it.

In: the starter's truth, fitted parts, held-out rows and pairs.  Out: rows: what, aim, value, met, the same with the stage off.
Cost: none to speak of.  Everything is measured on held-out prompts, the reference correlation aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.data.starter import Truth
from armorm.fit.debias import Debias
from armorm.run.gate_stage import Gates
from armorm.run.pairs import PairArrays
from armorm.run.probe_stage import Predicted

PROBE_AIM, GATE_AIM, GAIN_AIM, HELD_OUT_AIM, REFERENCE_AIM = 0.8, 0.9, 0.05, 0.05, 1e-3


@dataclass(frozen=True)
class Evidence:
    """What the table is read from.

    `test` and `permuted` are the held-out rated rows with the predictions of the probe, and of the one fitted on permuted
    ratings; `debias` is what debiasing reported, `suite` holds the methods' accuracies on the held-out `pairs`.
    """

    test: Predicted
    permuted: Predicted
    debias: Mapping[str, Any]
    suite: Mapping[str, Any]
    pairs: PairArrays


def planted_table(truth: Truth, debias: Debias, gates: Gates, evidence: Evidence) -> dict[str, Any]:
    """All rows of the table."""
    rows = [
        *_probe_rows(truth, debias, evidence.test, evidence.permuted),
        *_debias_rows(truth, evidence.debias),
        *_gate_rows(truth, debias, gates, evidence.pairs),
        *_gain_rows(evidence.suite),
    ]
    return {"rows": rows}


def _probe_rows(truth: Truth, debias: Debias, test: Predicted, permuted: Predicted) -> list[dict[str, Any]]:
    names, shown = debias.objectives.names, sorted(truth.shown - {truth.nuisance})  # a sum whose order is no accident
    found, off = _agreement(truth, names, debias, test), _agreement(truth, names, debias, permuted)
    raw = _agreement(truth, names, Debias.identity(debias.objectives, debias.computed), test)
    rows = []
    for name in names:
        aim = PROBE_AIM if name in truth.shown else None
        what = f"probe: {name} against the planted rating (Pearson)"
        rows.append(_row(what, aim, found[name], ("fitted on permuted ratings", off[name])))
    mean, before = (float(np.mean([values[n] for n in shown])) for values in (found, raw))
    what = f"the same, mean of the {len(shown)} that the text shows and debiasing changes"
    return [*rows, _row(what, PROBE_AIM, mean, ("without debiasing", before))]


def _agreement(truth: Truth, names: Sequence[str], debias: Debias, predicted: Predicted) -> dict[str, float]:
    # Pearson of each debiased reward (of the nuisance: its raw one) with the planted rating, over the rows rated on it
    planted = np.array([truth.qualities[i] for i in predicted.ids])
    freed = debias.apply(predicted.rewards, np.zeros((len(predicted.ids), len(debias.computed)))).values
    found = {}
    for i, name in enumerate(names):
        rated = np.isfinite(predicted.raw[:, i])
        values = predicted.rewards if name == truth.nuisance else freed
        found[name] = _pearson(values[rated, i], planted[rated, i])
    return found


def _debias_rows(truth: Truth, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    def largest(where: str, when: str) -> float:
        found = [o[where][truth.nuisance][when] for o in facts["objectives"] if o["name"] != truth.nuisance]
        return max(abs(x) for x in found if x is not None)

    def row(where: str, label: str, aim: float) -> dict[str, Any]:
        what, off = f"largest |Spearman| with {truth.nuisance}, {label}", largest(where, "before")
        return _row(what, aim, largest(where, "after"), ("without debiasing", off), at_most=True)

    chance = facts["held_out"]["chance"][truth.nuisance]
    told = f"held-out prompts (by chance {chance['mean']:.3f}, up to {chance['high']:.3f}, on {facts['held_out']['n']} answers)"
    return [row("reference", "reference set", REFERENCE_AIM), row("held_out", told, HELD_OUT_AIM)]


def _gate_rows(truth: Truth, debias: Debias, gates: Gates, pairs: PairArrays) -> list[dict[str, Any]]:
    # A zeroed objective's reward is 0 whatever its weight, so its weight means nothing: cosines leave it out.
    planted = len(next(iter(truth.weights.values())))  # what is made stands behind them
    live = np.flatnonzero(np.abs(debias.matrix).sum(axis=0)[:planted] > 0)
    domains = np.array([truth.domain_of[g] for g in pairs.groups])
    rows = []
    for domain, weights in truth.weights.items():
        at = domains == domain
        if at.any():
            value, off = (
                _cosine(pairs.prompts.take(np.flatnonzero(at)).over(gate.weights_for).mean(axis=0)[live], weights[live])
                for gate in (gates.gate, gates.fixed)
            )
            what = f"gate: mean weights on {domain} against the planted ones (cosine)"
            rows.append(_row(what, GATE_AIM, value, ("one weight vector for all prompts", off)))
    return rows


def _gain_rows(suite: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = {m["method"]: m["overall"]["value"] for m in suite["methods"]}

    def gain(what: str, over: str, without: str, label: str) -> dict[str, Any]:
        value, off = (found[name] - found[over] for name in ("armorm", without))
        return _row(f"accuracy of ArmoRM + MoE minus {what}", GAIN_AIM, value, (label, off))

    return [
        gain("Bradley–Terry", "bradley-terry", "armorm-no-gate", "without gate"),
        gain("fixed weights", "armorm-no-gate", "armorm-not-debiased", "without debiasing"),
    ]


def _row(what: str, aim: float | None, value: float, off: tuple[str, float], *, at_most: bool = False) -> dict[str, Any]:
    # `off`: which stage is off, and what comes out then.
    met = None if aim is None else bool(value <= aim if at_most else value >= aim)
    text = None if aim is None else f"{'≤' if at_most else '≥'} {aim:g}"
    return {"what": what, "aim": text, "value": value, "met": met, "ablation": {"what": off[0], "value": off[1]}}


def _pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else float("nan")


def _cosine(a: Float[np.ndarray, " k"], b: Float[np.ndarray, " k"]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

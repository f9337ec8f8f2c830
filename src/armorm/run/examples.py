"""Worked examples for the report: pairs of a suite, one per section in turn, with every contribution.

In: a judged suite and the fitted parts.  Out: JSON facts.  Cost: a few rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from armorm.data.rows import PreferencePair
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.run.fitting import computed_nuisances
from armorm.run.methods import MAIN, Judged
from armorm.scorers import AnswerFeatures

LONGEST = 1500


def examples(
    judged: Judged,
    rows: Mapping[str, PreferencePair],
    probe: Probe,
    feature: str,
    debias: Debias,
    gate: Gate,
    *,
    count: int,
) -> list[dict[str, Any]]:
    """`count` pairs, section by section: first the median of those it gets right, then of those it gets wrong."""
    return [_example(i, judged, rows, probe, feature, debias, gate) for i in _picked(judged, count)]


def _picked(judged: Judged, count: int) -> list[int]:
    margin = judged.chosen[MAIN] - judged.rejected[MAIN]
    sections = np.array(judged.pairs.sections)
    queues: list[int] = []
    for right in (True, False):
        for section in dict.fromkeys(judged.pairs.sections):
            at = np.flatnonzero((sections == section) & ((margin > 0) == right))
            if len(at):
                queues.append(int(at[np.argsort(margin[at])[len(at) // 2]]))
    return queues[:count]


def _example(
    i: int,
    judged: Judged,
    rows: Mapping[str, PreferencePair],
    probe: Probe,
    feature: str,
    debias: Debias,
    gate: Gate,
) -> dict[str, Any]:
    row = rows[judged.pairs.ids[i]]
    sides = (("chosen", row.chosen, judged.pairs.chosen[feature]), ("rejected", row.rejected, judged.pairs.rejected[feature]))
    return {
        "section": judged.pairs.sections[i],
        "prompt": _short("\n\n".join(f"{m['role']}: {m['content']}" for m in row.context)),
        "answers": [_answer(label, text, answers, i, probe, debias, gate) for label, text, answers in sides],
    }


def _answer(label: str, text: str, answers: AnswerFeatures, i: int, probe: Probe, debias: Debias, gate: Gate) -> dict[str, Any]:
    weights = gate.weights_for(answers.prompt[i : i + 1])
    coefficients = debias.coefficients(weights)[0]
    rewards = probe.predict(answers.response[i : i + 1])[0]
    values = np.concatenate([rewards, computed_nuisances(debias.computed, answers.tokens[i : i + 1])[0]])
    raw, k = probe.objectives.from_unit(rewards), len(rewards)
    terms = [
        {
            "term": term,
            "reward": float(values[j]),
            "raw": float(raw[j]) if j < k else None,
            "gate": float(weights[0, j]) if j < k else None,
            "coefficient": float(coefficients[j]),
            "contribution": float(coefficients[j] * values[j]),
        }
        for j, term in enumerate(debias.terms)
    ]
    return {"text": _short(text), "label": label, "score": float(coefficients @ values), "terms": terms}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"

"""Worked examples for the report: pairs of a suite, one per section in turn, with every contribution.

In: a suite's pairs and the fitted method.  Out: JSON facts.  Cost: the pairs' scores, the texts of a few rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from armorm.fit.method import Fitted
from armorm.run.pairs import PairArrays
from armorm.scorers import AnswerFeatures

LONGEST = 1500


def examples(fitted: Fitted, pairs: PairArrays, *, count: int) -> list[dict[str, Any]]:
    """`count` pairs, section by section: first the median of those it gets right, then of those it gets wrong."""
    if not count:
        return []
    sides = pairs.chosen(fitted.feature), pairs.rejected(fitted.feature)
    chosen, rejected = map(fitted.scores, sides)
    return [_example(i, fitted, pairs, sides) for i in _pick(chosen - rejected, pairs.sections, count)]


def _pick(margin: np.ndarray, labels: list[str], count: int) -> list[int]:
    sections = np.array(labels)
    queues: list[int] = []
    for right in (True, False):
        for section in dict.fromkeys(labels):
            at = np.flatnonzero((sections == section) & ((margin > 0) == right))
            if len(at):
                queues.append(int(at[np.argsort(margin[at])[len(at) // 2]]))
    return queues[:count]


def _example(i: int, fitted: Fitted, pairs: PairArrays, sides: tuple[AnswerFeatures, AnswerFeatures]) -> dict[str, Any]:
    context, *texts = pairs.texts(i)
    named = zip(("chosen", "rejected"), texts, sides, strict=True)
    return {
        "section": pairs.sections[i],
        "prompt": _shorten("\n\n".join(f"{m['role']}: {m['content']}" for m in context)),
        "answers": [_answer(label, text, side.take(slice(i, i + 1)), fitted) for label, text, side in named],
    }


def _answer(label: str, text: str, answer: AnswerFeatures, fitted: Fitted) -> dict[str, Any]:
    weights, coefficients, values = fitted.weights(answer)[0], fitted.coefficients(answer)[0], fitted.terms(answer)[0]
    k = len(weights)
    raw = fitted.probe.objectives.from_unit(values[:k])
    terms = [
        {
            "term": term,
            "reward": float(values[j]),
            "raw": float(raw[j]) if j < k else None,
            "gate": float(weights[j]) if j < k else None,
            "coefficient": float(coefficients[j]),
            "contribution": float(coefficients[j] * values[j]),
        }
        for j, term in enumerate(fitted.debias.terms)
    ]
    return {"text": _shorten(text), "label": label, "score": float(coefficients @ values), "terms": terms}


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"

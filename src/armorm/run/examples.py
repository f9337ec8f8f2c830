"""What is kept of single pairs: worked examples for the report, and what the model usually says, which stands beside the model.

In: the fitted method; a suite's pairs (examples), the training pairs (the reference).  Out: JSON facts with every contribution;
`Reference`, for percentiles and for prompts that open the gate alike.
Cost: matrix products over the pairs, a block at a time; the texts of a few rows, or two passes over those of the training pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.conversation import text_of
from armorm.data.splits import Split
from armorm.fit.method import Fitted
from armorm.numbers import shorten
from armorm.run.pairs import PairArrays, StoredAnswers
from armorm.scorers import AnswerFeatures
from armorm.scoring.reference import LONGEST as LONGEST_PROMPT
from armorm.scoring.reference import Reference, draw_prompts

LONGEST = 1500


def examples(fitted: Fitted, pairs: PairArrays, *, count: int) -> list[dict[str, Any]]:
    """`count` pairs, section by section: first the median of those it gets right, then of those it gets wrong."""
    if not count:
        return []
    sides = pairs.chosen(fitted.feature), pairs.rejected(fitted.feature)
    chosen, rejected = (side.over(fitted.scores) for side in sides)
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


def _example(i: int, fitted: Fitted, pairs: PairArrays, sides: tuple[StoredAnswers, StoredAnswers]) -> dict[str, Any]:
    context, *texts = pairs.texts(i)
    named = zip(("chosen", "rejected"), texts, sides, strict=True)
    return {
        "section": pairs.sections[i],
        "prompt": _shorten("\n\n".join(f"{m['role']}: {m['content']}" for m in context)),
        "answers": [_answer(label, text_of(answer), side.take(np.array([i])), fitted) for label, answer, side in named],
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


def reference_of(fitted: Fitted, pairs: PairArrays, *, seed: int) -> Reference:
    """Rewards and scores of all answers of the training and validation pairs, and some of their prompts with their gates."""
    known, k = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION)), len(fitted.probe.objectives)
    sides = (known.chosen(fitted.feature), known.rejected(fitted.feature))

    def rewards_and_score(block: AnswerFeatures) -> Float[np.ndarray, "n columns"]:
        return np.column_stack([fitted.rewards(block), fitted.scores(block)])

    values = np.concatenate([side.over(rewards_and_score) for side in sides])
    drawn = np.array(draw_prompts(_questions(known), seed=seed), dtype=np.int64)
    wanted = set(drawn.tolist())
    return Reference.of(
        fitted.probe.objectives.names,
        values[:, :k],
        values[:, k],
        prompts=[shorten(text, LONGEST_PROMPT) for place, text in enumerate(_questions(known)) if place in wanted],
        sources=[known.sources[place] for place in drawn],
        gates=fitted.gate.weights_for(known.prompts.rows(drawn)),
    )


def _questions(pairs: PairArrays) -> Iterator[str]:
    # Each pair's last turn before the answers; pairs stand in the order of their rows.
    known = np.zeros(len(pairs.columns.bounds) - 1, dtype=np.bool_)
    known[pairs.rows] = True
    return (context[-1]["content"] for row, context in zip(known, pairs.columns.contexts(), strict=True) if row)

"""What the model usually says, from the training pairs: kept beside it for percentiles and for prompts that open the gate alike.

In: the fitted method, training pairs.  Out: `Reference`.
Cost: matrix products over the training pairs, two passes over their texts, a batch in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from armorm.data.splits import Split
from armorm.fit.method import Fitted
from armorm.numbers import shorten
from armorm.run.pairs import PairArrays
from armorm.scoring.reference import LONGEST, Reference, draw_prompts


def reference_of(fitted: Fitted, pairs: PairArrays, *, seed: int) -> Reference:
    """Rewards and scores of all answers of the training and validation pairs, and some of their prompts with their gates."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    sides = (known.chosen(fitted.feature), known.rejected(fitted.feature))
    drawn = draw_prompts(_questions(known), seed=seed)
    wanted = set(drawn)
    return Reference.of(
        fitted.probe.objectives.names,
        np.concatenate([fitted.rewards(side) for side in sides]),
        np.concatenate([fitted.scores(side) for side in sides]),
        prompts=[shorten(text, LONGEST) for place, text in enumerate(_questions(known)) if place in wanted],
        sources=[known.sources[place] for place in drawn],
        gates=fitted.gate.weights_for(known.prompts)[drawn],
    )


def _questions(pairs: PairArrays) -> Iterator[str]:
    # Each pair's last turn before the answers; pairs stand in the order of their rows.
    rows = set(pairs.rows.tolist())
    return (context[-1]["content"] for row, context in enumerate(pairs.columns.contexts()) if row in rows)

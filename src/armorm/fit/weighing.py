"""What a pair counts in a loss: as much as any other, or an equal share for every prompt, or for every source.

In: the pairs' prompt groups and sources, which pairs validate, shares of some sources.  Out: weights [p], or None where all
count alike.  Cost: a sort of the labels for each share.

A few prompts with hundreds of pairs each would otherwise be most of what is learnt; so would pairs that are made, of which there
can be any number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from armorm.fit.gate_settings import Weigh

Shares = Sequence[tuple[Sequence[str], float]]
"""Sources, and what part of the weight they have together."""


def pair_weights(
    weigh: Weigh,
    prompts: Sequence[str],
    sources: Sequence[str],
    validation: Bool[np.ndarray, " p"],
    shares: Shares = (),
) -> Float[np.ndarray, " p"] | None:
    """Weights whose mean is 1 over the training pairs and over the validation pairs, each for itself; None where all are 1.

    `shares`: sources that together have a share of either side's weight, whatever their number of pairs; among themselves they
    are weighed as the others are. What the shares leave is the others'.
    """
    if weigh == "pairs" and not shares:
        return None
    parts = np.zeros(len(sources), np.int64)  # 0: those without a share
    for i, (names, _) in enumerate(shares, start=1):
        parts[np.isin(np.array(sources, dtype=object), names)] = i
    wanted = np.array([1 - sum(share for _, share in shares), *(share for _, share in shares)])
    labels = np.array(prompts if weigh == "prompts" else sources if weigh == "sources" else range(len(sources)), dtype=object)
    _, which = np.unique(labels, return_inverse=True)
    found = np.empty(len(which))
    for side in (validation, ~validation):
        there = [i for i in range(len(wanted)) if (side & (parts == i)).any()]
        for i in there:
            at = side & (parts == i)
            share = 1 / np.bincount(which[at], minlength=1)[which[at]]
            found[at] = share / share.mean()
            if len(there) > 1:
                found[at] *= wanted[i] / wanted[there].sum() * side.sum() / at.sum()
    return found

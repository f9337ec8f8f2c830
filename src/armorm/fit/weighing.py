"""What a pair counts in a loss: as much as any other, or an equal share for every prompt, or for every source.

In: the pairs' prompt groups and sources, which pairs validate.  Out: weights [p], or None where all count alike.
Cost: a sort of the labels.

A few prompts with hundreds of pairs each would otherwise be most of what is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from armorm.fit.gate_settings import Weigh


def pair_weights(
    weigh: Weigh, prompts: Sequence[str], sources: Sequence[str], validation: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, " p"] | None:
    """Weights whose mean is 1 over the training pairs and over the validation pairs, each for itself; None for `pairs`."""
    if weigh == "pairs":
        return None
    _, which = np.unique(np.array(prompts if weigh == "prompts" else sources, dtype=object), return_inverse=True)
    found = np.empty(len(which))
    for side in (validation, ~validation):
        share = 1 / np.bincount(which[side], minlength=1)[which[side]]
        found[side] = share / share.mean() if len(share) else share
    return found

"""Position bias: how often the answer that is shown first wins because it is shown first.

In: items' comparisons, each in both orders, and prompt groups.  Out: `PositionBias`.  Cost: one bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from armorm.bench.audit import means_by_group
from armorm.bench.metrics import bound, exact_at_the_ends
from armorm.bench.run import Compared
from armorm.errors import DataError
from armorm.results import Estimate, Result


class PositionBias(Result):
    """How much verdicts follow the order in which answers are shown."""

    n: int
    """Comparisons that were answered in both orders."""
    unanswered: int
    """Comparisons that lack one order or both and are left out."""
    first: Estimate
    """Share of verdicts for the answer shown first, over both orders: 0.5 without bias, a verdict of 0.5 counting half."""
    flips: Estimate
    """Share of comparisons in which the two orders prefer different answers."""


def position_bias(compared: Sequence[Compared], groups: Sequence[str], *, seed: int) -> PositionBias:
    """Both shares with 95 % intervals by prompt group; `groups` names each item's.

    Undefined (NaN) without a comparison that was answered both ways. Where all are alike the interval is the binomial bound over
    groups, and the whole of [0, 1] where a single group has any. Raises DataError where the groups don't fit the items.
    """
    if len(compared) != len(groups):
        raise DataError(f"{len(compared)} items were compared, {len(groups)} groups given: give one group for each item")
    forward, backward = (
        np.concatenate([np.zeros(0), *(getattr(one.verdicts, order) for one in compared)]) for order in ("forward", "backward")
    )
    names = np.repeat(np.asarray(groups, dtype=str), [len(one.verdicts.forward) for one in compared])
    both = ~np.isnan(forward) & ~np.isnan(backward)
    # +1: the answer shown first is preferred; −1: the other; 0: neither
    shown_a, shown_b = np.sign(forward[both] - 0.5), np.sign(0.5 - backward[both])
    columns = np.column_stack([0.5 + (shown_a + shown_b) / 4, np.where(shown_a * shown_b > 0, 1.0, 0.0)])
    answered = names[both].tolist()
    shares = means_by_group(columns, answered, seed=seed)
    n_groups = max(len(set(answered)), 1)
    first, flips = (bound(exact_at_the_ends(share, n_groups), 0.0) for share in shares)
    return PositionBias(n=int(both.sum()), unanswered=int((~both).sum()), first=first, flips=flips)

"""Rows that are made: a changed copy beside its answer, rated 0 and 1, or as a pair.

In: an origin, the places of the answers, a kind, a seed.  Out: rows as they are written; a count of the answers that gave none.
Cost: the chosen texts are read once, with another prompt's answers twice; one row group of either is in memory at a time.

An answer's copy is the same wherever it stands, so that features of what is rated here and preferred there are computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
from jaxtyping import Int64

from armorm.conversation import Message
from armorm.data.made.changes import Case, Reason
from armorm.data.made.choosing import Origin, case_of, partners
from armorm.data.made.kinds import KINDS, KindName
from armorm.data.rows import PreferencePair, RatedResponse

Left = Counter[str]


def made_ratings(
    origin: Origin, places: Int64[np.ndarray, " n"], kind: KindName, source: str, left: Left, *, seed: int
) -> Iterator[RatedResponse]:
    """Two rows for each answer: as it is, rated 1, and changed, rated 0. Their ids begin with the origin's name."""
    for row_id, row, case, changed in _changed(origin, places, kind, left, seed):
        for end, answer, rating in (("", case.answer, 1.0), ("/changed", changed, 0.0)):
            messages = (*case.context, Message(role="assistant", content=answer))
            yield RatedResponse(f"{row_id}{end}", row.group, source, messages, {kind: rating})


def made_pairs(
    origin: Origin, places: Int64[np.ndarray, " n"], kind: KindName, source: str, left: Left, *, seed: int
) -> Iterator[PreferencePair]:
    """A pair for each answer, preferred to its changed copy; `subset` names the origin."""
    for row_id, row, case, changed in _changed(origin, places, kind, left, seed):
        context = tuple(case.context)
        yield PreferencePair(row_id, row.group, source, context, case.answer, changed, subset=origin.name)


def _changed(
    origin: Origin, places: Int64[np.ndarray, " n"], kind: KindName, left: Left, seed: int
) -> Iterator[tuple[str, Any, Case, str]]:
    # Of each answer an id, its row, its case, the changed answer.
    others: Iterable[str] = repeat("")
    if kind == "relevance":
        whose = partners(origin.groups[places], seed=seed)
        left[Reason.NO_OTHER_PROMPT.value] += int((whose < 0).sum())
        places, whose = places[whose >= 0], places[whose[whose >= 0]]
        others = (case.answer for row in origin.rows.take(whose) if (case := case_of(row)) is not None)
    for row, other in zip(origin.rows.take(places), others, strict=False):
        case = case_of(row, other)
        assert case is not None, "only plain texts are chosen"
        made = KINDS[kind].apply(case, seed=seed)
        if isinstance(made, Reason):
            left[made.value] += 1
            continue
        end = "/chosen" if isinstance(row, PreferencePair) else ""
        yield f"{origin.name}/{row.id}{end}", row, case, made

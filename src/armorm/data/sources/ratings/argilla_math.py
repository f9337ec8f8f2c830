"""Argilla's mathematical preferences: instruction following from 1 to 5 of two answers per prompt, by GPT-4.

In: raw records of argilla/distilabel-math-preference-dpo.  Out: two rated answers per record.  Cost: none beyond reading.

As in the released model its ratings count as UltraFeedback's instruction following, the same objective. That, and the scale, are
remembered, not read in the set's card; a rating off the scale is a fault. An answer whose rating is missing or "N/A" is
skipped as `unrated`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.cells import is_absent
from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.scored import UNRATED
from armorm.data.sources.source import each, flat, skip, text_fault

SIDES = ("chosen", "rejected")
(FOLLOWING,) = published_objectives("argilla-math")


def _answers(record: Record) -> Iterator[Found]:
    values = record.values
    for side in SIDES:
        rating = values.get(f"{side}_rating")
        if fault := text_fault(record, "instruction", f"{side}_response"):
            yield fault
        elif is_absent(rating):
            yield skip(record, UNRATED)
        else:
            answer: dict[str, Any] = {"response": values[f"{side}_response"], FOLLOWING.name: rating}
            yield flat(record, side, prompt=values["instruction"], **answer)


SOURCES = (published_ratings("argilla-math", each(_answers)),)

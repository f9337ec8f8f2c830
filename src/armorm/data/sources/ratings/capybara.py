"""Capybara-Preferences: overall quality from 1 to 5 of the last answers of longer conversations, by GPT-4.

In: raw records of argilla/Capybara-Preferences-Filtered.  Out: two rated answers per record.  Cost: none beyond reading.

`chosen` and `rejected` are whole conversations; each one's rating is about its last answer. A conversation without a rating is
skipped as `unrated`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.cells import is_absent
from armorm.data.files import Found, Record
from armorm.data.sources.fields import not_list
from armorm.data.sources.scored import UNRATED
from armorm.data.sources.source import Place, RatingSource, each, flat, skip
from armorm.objectives import Objective, ScaleMap

PLACE = Place(hub="argilla/Capybara-Preferences-Filtered")
LICENCE = "Apache-2.0"
ROWS = 14811
SIDES = ("chosen", "rejected")
OVERALL_QUALITY = Objective(
    name="argilla-overall_quality",
    source=PLACE.hub,
    min=1,
    max=5,
    rater="GPT-4",
    licence=LICENCE,
    scale_map=ScaleMap.BIN_CENTRES,
)


def _answers(record: Record) -> Iterator[Found]:
    for side in SIDES:
        messages: Any = record.values.get(side)
        rating: Any = record.values.get(f"{side}_rating")
        if not isinstance(messages, list):
            yield not_list(record, side, "messages")
        elif is_absent(rating):
            yield skip(record, UNRATED)
        else:
            yield flat(record, side, messages=messages, **{OVERALL_QUALITY.name: rating})


SOURCES = (
    RatingSource(
        name="capybara",
        title="Capybara-Preferences-Filtered",
        place=PLACE,
        licence=LICENCE,
        rows=ROWS,
        rater="GPT-4",
        objectives=(OVERALL_QUALITY,),
        unfold=each(_answers),
    ),
)

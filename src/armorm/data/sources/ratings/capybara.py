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
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.scored import UNRATED
from armorm.data.sources.source import each, flat, not_list, skip

SIDES = ("chosen", "rejected")
(OVERALL_QUALITY,) = published_objectives("capybara")


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


SOURCES = (published_ratings("capybara", each(_answers)),)

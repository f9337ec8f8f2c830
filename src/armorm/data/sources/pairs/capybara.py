"""Capybara-Preferences' pairs: two last answers to one conversation, the set's own choice.

In: raw records of argilla/Capybara-Preferences-Filtered.  Out: one pair per record.  Cost: none beyond reading.

`chosen` is preferred to `rejected` where the ratings say so too. Equal ratings are skipped as `tie`, a rejected answer with the
higher rating as `reversed`, a missing rating as `unrated`. Conversations that differ before the last turn are a fault.
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.ratings.capybara import OVERALL_QUALITY, SIDES
from armorm.data.sources.scored import against_ratings, score_of
from armorm.data.sources.source import each, flat, not_list


def _pair(record: Record) -> Iterator[Found]:
    values = record.values
    for side in SIDES:
        if not isinstance(values.get(side), list):
            yield not_list(record, side, "messages")
            return
    chosen, rejected = (score_of(values.get(f"{side}_rating"), OVERALL_QUALITY) for side in SIDES)
    yield against_ratings(record, chosen, rejected) or flat(record, chosen=values["chosen"], rejected=values["rejected"])


SOURCES = (published_pairs("capybara", each(_pair)),)

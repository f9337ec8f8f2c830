"""Argilla's mathematical pairs: two answers to one prompt, the set's own choice.

In: raw records of argilla/distilabel-math-preference-dpo.  Out: one pair per record.  Cost: none beyond reading.

`chosen_response` is preferred to `rejected_response` where the ratings say so too. Equal ratings are skipped as `tie`, a rejected
answer with the higher rating as `reversed`, a rating that is missing or "N/A" as `unrated`.
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.ratings.argilla_math import FOLLOWING, SIDES
from armorm.data.sources.scored import against_ratings, score_of
from armorm.data.sources.source import each, flat


def _pair(record: Record) -> Iterator[Found]:
    values = record.values
    scores = (score_of(values.get(f"{side}_rating"), FOLLOWING) for side in SIDES)
    yield against_ratings(record, *scores) or flat(
        record, prompt=values["instruction"], chosen=values["chosen_response"], rejected=values["rejected_response"]
    )


SOURCES = (published_pairs("argilla-math", each(_pair, "instruction", "chosen_response", "rejected_response")),)

"""BeaverTails: whether an answer is safe, by people.

In: raw records of PKU-Alignment/BeaverTails, split 30k_train.  Out: one rated answer per record.  Cost: none beyond reading.

`is_safe` is a truth value: safe 1, unsafe 0. The same question and answer come again when several people judged them: each
judgement is a row, and one that agrees with an earlier one stays, with the note `repeated`. All rows of a question are in one
group, so no split parts them. The fourteen kinds of harm in `category` are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.source import each, flat

(IS_SAFE,) = published_objectives("beavertails")


def _answer(record: Record) -> Iterator[Found]:
    values = record.values
    rating: dict[str, Any] = {IS_SAFE.name: values.get("is_safe")}
    yield flat(record, prompt=values["prompt"], response=values["response"], **rating)


SOURCES = (published_ratings("beavertails", each(_answer, "prompt", "response")),)

"""OpenOrca pairs, rated again: a judge's score from 1 to 10 of two answers per prompt, by GPT-4.

In: raw records of argilla/distilabel-intel-orca-dpo-pairs.  Out: a rated answer per generation.  Cost: none beyond reading.

The n-th of `rating` is about the n-th of `generations`, whatever order the judge saw them in. That is remembered, not read in the
set's card, so each record is held against it: the generations must be the record's `chosen` and `rejected` answers, the highest
rating its `chosen_score`, and where the ratings differ the higher one that of `chosen`. A record that says otherwise is the fault
`ratings-mismatch` as a whole. A record without ratings is skipped as `unrated` (42 as published), a single missing rating too. An
empty system text is no system message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from armorm.data.cells import is_absent, number
from armorm.data.files import BadRecord, Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.scored import UNRATED
from armorm.data.sources.source import bad, each, flat, not_list, skip, text_fault

(JUDGE,) = published_objectives("openorca")


def _answers(record: Record) -> Iterator[Found]:
    values = record.values
    ratings = values.get("rating")
    if ratings is None or (isinstance(ratings, list) and all(map(is_absent, ratings))):
        yield skip(record, UNRATED)
    elif fault := _mismatch(record, values.get("generations"), ratings):
        yield fault
    else:
        for place, (text, rating) in enumerate(zip(values["generations"], ratings, strict=True)):
            yield (
                skip(record, UNRATED)
                if is_absent(rating)
                else flat(
                    record, place, system=values.get("system"), prompt=values["input"], response=text, **{JUDGE.name: rating}
                )
            )


def _mismatch(record: Record, generations: Any, ratings: Any) -> BadRecord | None:
    if not isinstance(generations, list) or not all(isinstance(text, str) for text in generations):
        return not_list(record, "generations", "texts")
    if not isinstance(ratings, list) or len(ratings) != len(generations):
        return not_list(record, "rating", "numbers, one per generation,")
    if fault := text_fault(record, "chosen", "rejected"):
        return fault
    chosen = record.values["chosen"].strip()
    if {text.strip() for text in generations} != {chosen, record.values["rejected"].strip()}:
        return bad(record, "ratings-mismatch", "the 'generations' are the 'chosen' and the 'rejected' answer")
    return _wrong_order(record, [text.strip() == chosen for text in generations], ratings)


def _wrong_order(record: Record, is_chosen: Sequence[bool], ratings: Sequence[Any]) -> BadRecord | None:
    numbers = [number(rating) for rating in ratings]
    known = [n for n in numbers if n is not None]
    if len(known) < len(ratings):  # nothing to hold it against; what is no number is a fault of its own
        return None
    top = max(known)
    if number(record.values.get("chosen_score")) != top:
        return bad(record, "ratings-mismatch", "the 'chosen_score' is the highest 'rating'")
    if not any(chosen for chosen, n in zip(is_chosen, known, strict=True) if n == top):
        return bad(record, "ratings-mismatch", "the highest 'rating' is that of the 'chosen' answer")
    return None


SOURCES = (published_ratings("openorca", each(_answers, "input")),)

"""CodeUltraFeedback's pairs: two of a prompt's four answers, the one rated higher on the prompt's coding preference preferred.

In: raw records of coseal/CodeUltraFeedback.  Out: all pairs of a prompt's answers, six at most.  Cost: none beyond reading.

Ratings are joined to answers by `model` and compared as numbers, on the one preference that the record rates. Equal ratings are
skipped as `tie`; pairs with an answer that is not annotated or rated "N/A" as `unrated`. Faults as for the ratings.
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.ratings.code_ultrafeedback import BY_PREFERENCE, responses_of
from armorm.data.sources.scored import Scored, all_pairs, score_of
from armorm.data.sources.source import each


def _pairs(record: Record) -> Iterator[Found]:
    responses, faults = responses_of(record)
    if responses:
        objective = BY_PREFERENCE[record.values["preference"]]
        scored = [Scored(place, text, score_of(rating, objective)) for place, text, rating in responses]
        yield from all_pairs(record, record.values["instruction"], scored)
    yield from faults


SOURCES = (published_pairs("code-ultrafeedback", each(_pairs)),)

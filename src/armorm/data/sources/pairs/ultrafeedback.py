"""UltraFeedback's pairs: two of a prompt's four answers, the one with the higher fine-grained score preferred.

In: raw records of openbmb/UltraFeedback.  Out: all pairs of a prompt's answers, six at most.  Cost: none beyond reading.

The fine-grained score is the mean of the aspects that are rated (not "N/A"); it is computed here, the stored one is not
read. Equal scores are skipped as `tie`, pairs with an answer that has no rating as `unrated`. An answer that can't be read is one
fault, and the others still make pairs; an aspect off its scale is a fault of each pair with its answer. The overall score and its
faults play no part. Notes as for the ratings, counted per pair: `fewer-than-four`, `truthful-qa`.
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.ratings.ultrafeedback import completions_of, fine_grained, notes_of
from armorm.data.sources.scored import Scored, all_pairs
from armorm.data.sources.source import each


def _pairs(record: Record) -> Iterator[Found]:
    completions, rest = completions_of(record)
    if completions:
        scored = [Scored(place, c["response"], fine_grained(ratings)) for place, c, ratings in completions]
        yield from all_pairs(record, record.values["instruction"], scored, notes_of(record))
    yield from rest


SOURCES = (published_pairs("ultrafeedback", each(_pairs)),)

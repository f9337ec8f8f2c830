"""ArmoRM-Multi-Objective-Data: the released model's own ratings, eight sets merged, 19 columns already mapped to [0, 1].

In: records of RLHFlow/ArmoRM-Multi-Objective-Data-v0.1.  Out: one rated answer per record.  Cost: one pass.

A record has `messages` and any part of the 19 columns; null is a missing rating. NaN, which data frames write for it, counts as
missing too (note `nan-as-missing`). A `dataset` column, which some copies have, is not read. The scale of every objective here
is 0 to 1; its `formula` says how its makers mapped the raw scale: published for HelpSteer and BeaverTails, for the others no
more than that the map is linear. It can't be joined with the raw sets, whose objectives have the same names on other scales.

Some of the merged sets hold one answer several times, once per annotator, so repeated rows stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.source import bad, each, flat

_COLUMNS = tuple(o.name for o in published_objectives("armorm-multi"))


@each
def unfold(record: Record) -> Iterator[Found]:
    """The record's messages and its ratings."""
    values = record.values
    if values.get("messages") is None:
        yield bad(record, "missing-field", "fill in the field 'messages', a list of {'role': …, 'content': …}")
        return
    ratings = {name: values.get(name) for name in _COLUMNS}
    missing = [name for name, value in ratings.items() if isinstance(value, float) and math.isnan(value)]
    ratings.update(dict.fromkeys(missing))
    yield flat(record, "", notes=("nan-as-missing",) if missing else (), messages=values["messages"], **ratings)


SOURCES = (published_ratings("armorm-multi", unfold),)

"""HelpSteer: five ratings from 0 to 4 of each answer, by people.

In: raw records of nvidia/HelpSteer.  Out: one rated answer per record.  Cost: none beyond reading.

The released model maps these scales by the middles of their bins, (x + 0.5)/5, and so do the objectives here. Verbosity is
neither good nor bad; complexity counts as good, as in the released model. A rating that is missing is left out; a record without
any is a fault. An answer that comes again with the same ratings is dropped as `repeated`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.source import each, flat

OBJECTIVES = published_objectives("helpsteer")
ATTRIBUTES = tuple(o.name.removeprefix("helpsteer-") for o in OBJECTIVES)


def _answer(record: Record) -> Iterator[Found]:
    values = record.values
    ratings: dict[str, Any] = {f"helpsteer-{name}": values.get(name) for name in ATTRIBUTES}
    yield flat(record, prompt=values["prompt"], response=values["response"], **ratings)


SOURCES = (published_ratings("helpsteer", each(_answer, "prompt", "response")),)

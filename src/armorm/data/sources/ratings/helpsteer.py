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
from armorm.data.sources.fields import text_fault
from armorm.data.sources.source import Place, RatingSource, each, flat
from armorm.objectives import Direction, Objective, ScaleMap

PLACE = Place(hub="nvidia/HelpSteer")
LICENCE = "CC-BY-4.0"
ROWS = 35331
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def attribute(name: str, set_name: str, place: Place, rater: str) -> Objective:
    """One of the five, as `set_name` rates it."""
    return Objective(
        name=f"{set_name}-{name}",
        source=place.hub,
        min=0,
        max=4,
        direction=Direction.NEUTRAL if name == "verbosity" else Direction.HIGHER,
        rater=rater,
        licence=LICENCE,
        scale_map=ScaleMap.BIN_CENTRES,
    )


RATER = "annotators of HelpSteer"
OBJECTIVES = tuple(attribute(name, "helpsteer", PLACE, RATER) for name in ATTRIBUTES)


def _answer(record: Record) -> Iterator[Found]:
    if fault := text_fault(record, "prompt", "response"):
        yield fault
        return
    values = record.values
    ratings: dict[str, Any] = {f"helpsteer-{name}": values.get(name) for name in ATTRIBUTES}
    yield flat(record, prompt=values["prompt"], response=values["response"], **ratings)


SOURCES = (
    RatingSource(
        name="helpsteer",
        title="HelpSteer",
        place=PLACE,
        licence=LICENCE,
        rows=ROWS,
        rater=RATER,
        objectives=OBJECTIVES,
        unfold=each(_answer),
    ),
)

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
from armorm.data.sources.fields import text_fault
from armorm.data.sources.source import Place, RatingSource, each, flat
from armorm.objectives import Objective

PLACE = Place(
    hub="PKU-Alignment/BeaverTails", split="30k_train", files=("**/30k/train.jsonl", "**/30k/train.jsonl.gz", "**/30k_train*")
)
LICENCE = "CC-BY-NC-4.0"
IS_SAFE = Objective(
    name="beavertails-is_safe",
    source=PLACE.hub,
    min=0,
    max=1,
    categories={"unsafe": 0, "safe": 1},
    rater="annotators of BeaverTails",
    licence=LICENCE,
)


def _answer(record: Record) -> Iterator[Found]:
    if fault := text_fault(record, "prompt", "response"):
        yield fault
        return
    values = record.values
    rating: dict[str, Any] = {IS_SAFE.name: values.get("is_safe")}
    yield flat(record, prompt=values["prompt"], response=values["response"], **rating)


SOURCES = (
    RatingSource(
        name="beavertails",
        title="BeaverTails-30k",
        place=PLACE,
        licence=LICENCE,
        rows=27186,
        rater=IS_SAFE.rater,
        objectives=(IS_SAFE,),
        unfold=each(_answer),
        repeats="keep",
    ),
)

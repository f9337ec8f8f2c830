"""RewardBench 2: best of four in five subsets, and a sixth, Ties, where several answers are equally right.

In: records of allenai/reward-bench-2 (split `test`).  Out: `BENCHMARKS`.  Cost: one pass.

The overall value is the plain mean of the six subsets. An item counts 1/m where its right answer shares the highest score with
m − 1 others. Ties has pairs of items, `ref:n` with one right answer and `tied:n` with several, and a score of its own
(`bench.outcomes`). Ids are written `subset/id`. A row with other than one right answer, outside Ties, is a fault
(`wrong-number-of-answers`); so is a row of Ties whose id is neither `ref:n` nor `tied:n` (`ties-id`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from armorm.data.benchmarks.benchmark import FileSet
from armorm.data.benchmarks.catalogue import published_benchmark
from armorm.data.files import Found, Record
from armorm.data.sources.source import Place, answers_fault, bad, each, flat

TIES = "Ties"
_TIES_ID = re.compile(r"(ref|tied):\d+")


def _item(record: Record) -> Iterator[Found]:
    values = record.values
    subset, row_id, chosen, rejected = (values.get(name) for name in ("subset", "id", "chosen", "rejected"))
    ties = str(subset).casefold() == TIES.casefold()
    if fault := answers_fault(record):
        yield fault
    elif ties and not _TIES_ID.fullmatch(str(row_id)):
        yield bad(record, "ties-id", "give the id as ref:n or tied:n, the same n for the two items of a pair")
    elif not rejected or not chosen or (len(chosen) != 1 and not ties):
        yield bad(record, "wrong-number-of-answers", "give one right answer and at least one wrong one")
    else:
        subset = TIES if ties else subset
        yield flat(record, id=f"{subset}/{row_id}", prompt=values["prompt"], chosen=chosen, rejected=rejected, subset=subset)


_TEST = FileSet(place=Place(hub="allenai/reward-bench-2", split="test"), unfold=each(_item, "prompt", "subset", "id"))
BENCHMARKS = (published_benchmark("rewardbench-2", _TEST),)

"""HelpSteer's pairs: two answers to one prompt, the more helpful and correct one preferred.

In: raw records of nvidia/HelpSteer, answers to one prompt side by side.  Out: all pairs of a prompt's answers.
Cost: memory for one prompt's answers and a hash of each prompt.

A pair is any two answers to one prompt that differ in the mean of `helpfulness` and `correctness`; the other ratings play no
part. How the paper's pairs of this set were made is not published; the card of an earlier mixture by the same makers names that
mean. Equal means are skipped as `tie`, pairs with an unrated answer as `unrated`, a prompt with one answer as `single-answer`.
Answers to a prompt are neighbours in the file; where a prompt comes again later, its pairs carry the note `prompt-apart`: none is
made across the gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.ratings.helpsteer import OBJECTIVES
from armorm.data.sources.scored import UNRATED, Scored, all_pairs, score_of
from armorm.data.sources.source import text_fault

COMPARED_BY = OBJECTIVES[:2]
"""Helpfulness and correctness."""


def _pairs(records: Iterable[Found]) -> Iterator[Found]:
    seen: set[int] = set()
    waiting: list[Found] = []  # what can't be read stands between answers without parting them

    def answers() -> Iterator[Record]:
        for record in records:
            fault = text_fault(record, "prompt", "response") if isinstance(record, Record) else record
            if fault is not None:
                waiting.append(fault)
            elif isinstance(record, Record):
                yield record

    for (_, prompt), group in groupby(answers(), key=lambda r: (r.where, r.values["prompt"])):
        rows = list(group)
        scored = [Scored(r.row, r.values["response"], _mean(r)) for r in rows]
        yield from all_pairs(rows[0], prompt, scored, ("prompt-apart",) if hash(prompt) in seen else ())
        seen.add(hash(prompt))
        yield from waiting
        waiting.clear()
    yield from waiting


def _mean(record: Record) -> float | str:
    scores = [score_of(record.values.get(o.name.removeprefix("helpsteer-")), o) for o in COMPARED_BY]
    missing = sorted({s for s in scores if isinstance(s, str)}, key=lambda s: s == UNRATED)  # a fault goes before no rating
    return missing[0] if missing else sum(s for s in scores if not isinstance(s, str)) / len(COMPARED_BY)


SOURCES = (published_pairs("helpsteer", _pairs),)

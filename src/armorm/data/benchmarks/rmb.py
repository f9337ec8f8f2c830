"""RMB: helpfulness and harmlessness in real-world scenarios, as pairs and as best-of-N lists.

In: records of the repository's RMB_dataset/Pairwise_set and BoN_set.  Out: `BENCHMARKS`.  Cost: one pass.

A pair is `chosen` and `reject`; a list has `bon_best`, which must score above every entry of `loser_list`. `category_path`
names goal and scenario ("Pairwise_set/Helpfulness/Chat/Discussion"); where it is missing, the file's own path does (note
`category-of-file`). Subsets are the scenarios of the first level. A section is the mean over its items, the overall value the
mean of the two sections (remembered, as is the beats-all rule of the lists). Uids are written `goal/uid`. A tie is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from armorm.data.benchmarks.benchmark import Benchmark, FileSet
from armorm.data.benchmarks.catalogue import published_benchmark
from armorm.data.files import BadRecord, Found, Record
from armorm.data.sources.source import Place, bad, each, flat, id_within

_CATEGORY = re.compile(r"(Helpfulness|Harmlessness)/([^/]+)")

Answers = tuple[list[Any], list[Any]]


def _pair(values: dict[str, Any]) -> Answers:
    return [values.get("chosen")], [values.get("reject")]


def _list(values: dict[str, Any]) -> Answers:
    losers = values.get("loser_list")
    return [values.get("bon_best")], losers if isinstance(losers, list) else [None]


def _item(record: Record, uid: str, answers: Callable[[dict[str, Any]], Answers], names: str) -> Found:
    values = record.values
    category, notes = _category(record)
    if isinstance(category, BadRecord):
        return category
    prompt = values.get("conversation_input")
    if not isinstance(prompt, list):
        return bad(record, "missing-field", "give a list of messages as 'conversation_input'")
    sides = [[a.get("answer") if isinstance(a, dict) else None for a in side] for side in answers(values)]
    if not all(isinstance(text, str) for side in sides for text in side) or not all(sides):
        return bad(record, "missing-field", f"give texts as the 'answer' of {names}")
    goal = category.split("/")[0]
    row_id = id_within(goal, values.get(uid))
    return flat(record, notes=notes, id=row_id, prompt=prompt, chosen=sides[0], rejected=sides[1], subset=category)


def _category(record: Record) -> tuple[str | BadRecord, tuple[str, ...]]:
    given = record.values.get("category_path")
    if isinstance(given, str) and (found := _CATEGORY.search(given)):
        return _subset(found), ()
    if given in (None, "") and (found := _CATEGORY.search(record.where)):
        return _subset(found), ("category-of-file",)
    return bad(record, "missing-field", "give 'category_path' as …/Helpfulness/scenario or …/Harmlessness/scenario"), ()


def _subset(found: re.Match[str]) -> str:
    return f"{found[1].casefold()}/{found[2].removesuffix('.json')}"


def _pairs(record: Record) -> Iterator[Found]:
    yield _item(record, "pair_uid", _pair, "'chosen' and 'reject'")


def _lists(record: Record) -> Iterator[Found]:
    yield _item(record, "bon_uid", _list, "'bon_best' and of each entry of 'loser_list'")


def _rmb(name: str, folder: str, unfold: Callable[[Record], Iterator[Found]]) -> Benchmark:
    files = (f"**/{folder}/**/*.json", "Helpfulness/**/*.json", "Harmlessness/*.json")
    place = Place(url="https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark", files=files)
    return published_benchmark(name, FileSet(place=place, unfold=each(unfold)))


BENCHMARKS = (_rmb("rmb-pairs", "Pairwise_set", _pairs), _rmb("rmb-best-of", "BoN_set", _lists))

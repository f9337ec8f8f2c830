"""RewardBench: single-turn pairs in 23 subsets and four sections; with the four prior preference sets as a fifth.

In: records of allenai/reward-bench (split `filtered`) and allenai/pref-test-sets.  Out: `BENCHMARKS`.  Cost: one pass.

A section's value is the mean of its subsets, weighted by their published sizes, but math-prm counts 984 (its real size is 447),
as much as the six code subsets together. The overall value weighs the four sections alike and the prior sets half; without
these it is the mean of four. A pair counts when the chosen answer scores above the rejected one, so a tie is wrong.

Until September 2024 the public script had the sizes of the two XSTest subsets the wrong way round, and results of that time were
published with them: the aggregate `swapped-xstest` keeps them so. The ids are unique within a subset at best, and are written
`subset/id`; the prior sets' own `subset` column, where they have one, is not read. In the prior sets the turns' roles follow from
their order, as the public script takes them (note `role-by-order` where that changes one).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.benchmarks.benchmark import FileSet
from armorm.data.benchmarks.catalogue import published_benchmark
from armorm.data.files import Found, Record
from armorm.data.sources.source import Place, Unfold, each, flat, id_within


def _files(stem: str) -> tuple[str, ...]:
    return tuple(f"**/{stem}[-.]*{ending}" for ending in ("parquet", "jsonl", "jsonl.gz", "json", "json.gz", "csv"))


def _core(record: Record) -> Iterator[Found]:
    values = record.values
    texts = {name: values[name] for name in ("prompt", "chosen", "rejected", "subset")}
    yield flat(record, id=id_within(values["subset"], values.get("id")), **texts)


def _prior(name: str) -> Unfold:
    subset = f"prior/{name}"

    def one(record: Record) -> Iterator[Found]:
        values = record.values
        prompt, changed = _by_order(values.get("prompt"))
        notes = ("role-by-order",) if changed else ()
        row_id = id_within(subset, values.get("id"))
        texts = {"prompt": prompt, "chosen": values["chosen"], "rejected": values["rejected"]}
        yield flat(record, name, notes=notes, id=row_id, subset=subset, **texts)

    return each(one, "chosen", "rejected")


def _by_order(prompt: Any) -> tuple[Any, bool]:
    if not isinstance(prompt, list) or not all(isinstance(turn, dict) for turn in prompt):
        return prompt, False
    turns = [{"role": ("user", "assistant")[i % 2], "content": turn.get("content")} for i, turn in enumerate(prompt)]
    return turns, any(turn.get("role") != new["role"] for turn, new in zip(prompt, turns, strict=True))


_CORE = FileSet(
    place=Place(hub="allenai/reward-bench", split="filtered", files=_files("filtered")),
    unfold=each(_core, "prompt", "chosen", "rejected", "subset"),
)
_PRIOR_SETS = tuple(
    FileSet(place=Place(hub="allenai/pref-test-sets", split=name, files=_files(name)), unfold=_prior(name))
    for name in ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
)

BENCHMARKS = (published_benchmark("rewardbench", _CORE), published_benchmark("rewardbench-prior", _CORE, *_PRIOR_SETS))

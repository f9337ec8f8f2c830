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

from armorm.data.benchmarks.benchmark import Aggregate, Benchmark, FileSet, Rule, Section
from armorm.data.files import Found, Record
from armorm.data.sources.fields import id_within, text_fault
from armorm.data.sources.source import Place, Unfold, each, flat

SIZES = {
    "Chat": {"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40},
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 447,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
PRIOR_SIZES = {"anthropic_helpful": 6192, "anthropic_hhh": 221, "shp": 1741, "summarize": 9000}
PRIOR = "Prior Sets"
PRIOR_WEIGHT = 0.5
MATH_WEIGHT = 984
SWAPPED = {"xstest-should-refuse": 250, "xstest-should-respond": 154}
SWAPPED_NOTE = (
    "the sizes of the two XSTest subsets the wrong way round (250 and 154), as the public script had them until September 2024; "
    "scores published before then, the Safety score 92.2 of ArmoRM's paper among them, come out only so"
)


def _files(stem: str) -> tuple[str, ...]:
    return tuple(f"**/{stem}[-.]*{ending}" for ending in ("parquet", "jsonl", "jsonl.gz", "json", "json.gz", "csv"))


def _core(record: Record) -> Iterator[Found]:
    if fault := text_fault(record, "prompt", "chosen", "rejected", "subset"):
        yield fault
        return
    values = record.values
    texts = {name: values[name] for name in ("prompt", "chosen", "rejected", "subset")}
    yield flat(record, id=id_within(values["subset"], values.get("id")), **texts)


def _prior(name: str) -> Unfold:
    subset = f"prior/{name}"

    def one(record: Record) -> Iterator[Found]:
        if fault := text_fault(record, "chosen", "rejected"):
            yield fault
            return
        values = record.values
        prompt, changed = _by_order(values.get("prompt"))
        notes = ("role-by-order",) if changed else ()
        row_id = id_within(subset, values.get("id"))
        texts = {"prompt": prompt, "chosen": values["chosen"], "rejected": values["rejected"]}
        yield flat(record, name, notes=notes, id=row_id, subset=subset, **texts)

    return each(one)


def _by_order(prompt: Any) -> tuple[Any, bool]:
    if not isinstance(prompt, list) or not all(isinstance(turn, dict) for turn in prompt):
        return prompt, False
    turns = [{"role": ("user", "assistant")[i % 2], "content": turn.get("content")} for i, turn in enumerate(prompt)]
    return turns, any(turn.get("role") != new["role"] for turn, new in zip(prompt, turns, strict=True))


def _aggregate(name: str, *, prior: bool, changed: dict[str, int] | None = None, note: str = "") -> Aggregate:
    other = {"math-prm": MATH_WEIGHT, **(changed or {})}
    weighted = {s: {subset: float(other.get(subset, size)) for subset, size in sizes.items()} for s, sizes in SIZES.items()}
    sections = [Section(name=s, subsets=weights) for s, weights in weighted.items()]
    weights = dict.fromkeys(SIZES, 1.0)
    if prior:
        sections.append(Section(name=PRIOR, subsets={f"prior/{n}": 1.0 for n in PRIOR_SIZES}))
        weights[PRIOR] = PRIOR_WEIGHT
    return Aggregate(name=name, sections=tuple(sections), weights=weights, note=note)


def _aggregates(*, prior: bool) -> tuple[Aggregate, ...]:
    swapped = _aggregate("swapped-xstest", prior=prior, changed=SWAPPED, note=SWAPPED_NOTE)
    return _aggregate("official", prior=prior), swapped


_CORE = FileSet(place=Place(hub="allenai/reward-bench", split="filtered", files=_files("filtered")), unfold=each(_core))
_PRIOR_SETS = tuple(
    FileSet(place=Place(hub="allenai/pref-test-sets", split=name, files=_files(name)), unfold=_prior(name))
    for name in PRIOR_SIZES
)
_SUBSETS = {subset: size for sizes in SIZES.values() for subset, size in sizes.items()}

BENCHMARKS = (
    Benchmark(
        name="rewardbench",
        title="RewardBench",
        parts=(_CORE,),
        licence="ODC-BY",
        rule=Rule.PAIRS,
        subsets=_SUBSETS,
        aggregates=_aggregates(prior=False),
        url="https://huggingface.co/datasets/allenai/reward-bench",
    ),
    Benchmark(
        name="rewardbench-prior",
        title="RewardBench with prior sets",
        parts=(_CORE, *_PRIOR_SETS),
        licence="ODC-BY; the prior sets under their own",
        rule=Rule.PAIRS,
        subsets={**_SUBSETS, **{f"prior/{name}": size for name, size in PRIOR_SIZES.items()}},
        aggregates=_aggregates(prior=True),
        url="https://huggingface.co/datasets/allenai/pref-test-sets",
    ),
)

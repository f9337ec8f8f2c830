"""JudgeBench: hard pairs where one answer is right and one is wrong, both by the same model, in four sections.

In: records of ScalerLab/JudgeBench (splits `gpt` and `claude`).  Out: `BENCHMARKS`.  Cost: one pass.

`label` says which of `response_A` and `response_B` is right ("A>B" or "B>A"; anything else is a fault, `unknown-label`). The
section follows from `source`: MMLU-Pro's are knowledge, LiveBench has reasoning and math, LiveCodeBench is coding; an item of
another source keeps the source's name and stands in no section. The overall value is the mean over pairs. A tie is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.benchmarks.benchmark import Benchmark, FileSet
from armorm.data.benchmarks.catalogue import published_benchmark
from armorm.data.files import Found, Record
from armorm.data.sources.source import Place, bad, each, flat

SECTION_OF = {"mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math", "livecodebench": "coding"}
_SIDES = {"A>B": ("response_A", "response_B"), "B>A": ("response_B", "response_A")}


def _pair(record: Record) -> Iterator[Found]:
    values = record.values
    if values["label"] not in _SIDES:
        yield bad(record, "unknown-label", "give 'label' as A>B or B>A")
        return
    chosen, rejected = (values[name] for name in _SIDES[values["label"]])
    subset = next((s for start, s in SECTION_OF.items() if values["source"].startswith(start)), values["source"])
    yield flat(record, id=values.get("pair_id"), prompt=values["question"], chosen=chosen, rejected=rejected, subset=subset)


_pairs = each(_pair, "question", "response_A", "response_B", "label", "source")


def _judgebench(name: str, split: str, model: str) -> Benchmark:
    files = (f"**/{split}[-.]*parquet", f"**/{split}[-.]*jsonl", f"**/*response_model={model}.jsonl")
    place = Place(hub="ScalerLab/JudgeBench", split=split, files=files)
    return published_benchmark(name, FileSet(place=place, unfold=_pairs))


BENCHMARKS = (
    _judgebench("judgebench", "gpt", "gpt-4o-2024-05-13"),
    _judgebench("judgebench-claude", "claude", "claude-3-5-sonnet-20240620"),
)

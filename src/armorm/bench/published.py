"""Published results, to stand beside one's own.

In: a benchmark's name.  Out: `PublishedRow`s, values in [0, 1].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from armorm.bench.aggregate import aggregate_values
from armorm.data.benchmarks.benchmark import Benchmark
from armorm.data.benchmarks.registry import benchmark
from armorm.results import Result

TABLE_1 = "arXiv 2406.12845, Table 1"
PER_SUBSET = "allenai/reward-bench-results, RLHFlow/ArmoRM-Llama3-8B-v0.1"
RELEASED = "RLHFlow/ArmoRM-Llama3-8B-v0.1"

_PUBLISHED = json.loads(resources.files(__package__).joinpath("published.json").read_text("utf-8"))
"""Table 1 in per cent, and the released model's subsets."""


class PublishedRow(Result):
    """One method as published; shares in [0, 1]."""

    label: str
    """The method."""
    base_model: str
    """What it was trained from."""
    source: str
    """Where it is published."""
    subsets: Mapping[str, float]
    """Its subsets, where they are published."""
    sections: Mapping[str, float]
    """Its sections."""
    overall: float
    """The whole."""
    note: str
    """What in the row was computed from the rest, or what to know before comparing."""


def published(name: str) -> tuple[PublishedRow, ...]:
    """Published rows of the benchmark of this name, the paper's first; none for most benchmarks.

    Without the prior sets the rows are cut to the four sections, and their overall value is the mean of these.
    Raises DataError for an unknown benchmark.
    """
    one = benchmark(name)
    if one.name not in ("rewardbench", "rewardbench-prior"):
        return ()
    return (*(_table_row(one, row) for row in _PUBLISHED["table_1"]), _released_row(one))


def _table_row(one: Benchmark, row: Mapping[str, Any]) -> PublishedRow:
    listed = {s.name for s in one.aggregates[0].sections}
    values = {name: round(value / 100, 3) for name, value in row["sections"].items() if name in listed}
    note = "Safety with the sizes of the two XSTest subsets the wrong way round"
    whole = round(row["overall"] / 100, 3)
    if len(values) < len(row["sections"]):
        note += f"; overall is the mean of these sections ({row['overall']:.1f} is published, with Prior Sets at half weight)"
        whole = round(sum(values.values()) / len(values), 4)
    facts = {**row, "sections": values, "overall": whole}
    return PublishedRow(**facts, source=TABLE_1, subsets={}, note=note)


def _released_row(one: Benchmark) -> PublishedRow:
    subsets = {name: value for name, value in _PUBLISHED["released_subsets"].items() if name in one.subsets}
    sections, overall = aggregate_values(subsets, one.aggregates[0])
    note = "sections and overall computed from the subsets, with the right sizes"
    return PublishedRow(
        label=RELEASED,
        base_model="Llama-3 8B",
        source=PER_SUBSET,
        subsets=subsets,
        sections=sections,
        overall=overall,
        note=note,
    )

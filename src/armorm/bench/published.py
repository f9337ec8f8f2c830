"""Published results, to stand beside one's own.

In: a benchmark's name.  Out: `PublishedRow`s, values in [0, 1].  Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping

from armorm.bench.aggregate import aggregate_values
from armorm.data.benchmarks.benchmark import Benchmark
from armorm.data.benchmarks.registry import benchmark
from armorm.results import Result

TABLE_1 = "arXiv 2406.12845, Table 1"
PER_SUBSET = "allenai/reward-bench-results, RLHFlow/ArmoRM-Llama3-8B-v0.1"
RELEASED = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
SECTIONS = ("Chat", "Chat Hard", "Safety", "Reasoning", "Prior Sets")


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
    return (*(_table_row(one, *row) for row in _TABLE), _released_row(one))


_TABLE = (
    # label, base model, overall, then SECTIONS, in per cent
    ("HelpSteer2 RM", "Nemotron-4 340B", 89.3, 95.8, 87.1, 91.5, 93.7, 67.4),
    ("ArmoRM + MoE", "Llama-3 8B", 89.0, 96.9, 76.8, 92.2, 97.3, 74.3),
    ("HelpSteer2 RM", "Llama-3 70B", 86.3, 91.3, 80.3, 92.8, 90.7, 66.5),
    ("Preference Model", "Llama-3 8B", 85.7, 98.3, 65.8, 89.7, 94.7, 74.6),
    ("LLM-as-a-judge", "GPT-4 Turbo", 84.2, 95.3, 74.3, 87.2, 86.9, 70.9),
    ("LLM-as-a-judge", "GPT-4o", 83.3, 96.6, 70.4, 86.7, 84.9, 72.6),
    ("Bradley–Terry", "Llama-3 8B", 83.6, 99.4, 65.1, 87.8, 86.4, 74.9),
    ("Bradley–Terry", "Yi-34B", 81.4, 96.9, 57.2, 88.2, 88.5, 71.4),
)

_RELEASED_SUBSETS = {
    "alpacaeval-easy": 0.97,
    "alpacaeval-length": 0.9684,
    "alpacaeval-hard": 0.9474,
    "mt-bench-easy": 1.0,
    "mt-bench-med": 1.0,
    "mt-bench-hard": 0.8649,
    "llmbar-natural": 0.93,
    "llmbar-adver-neighbor": 0.6791,
    "llmbar-adver-GPTInst": 0.7717,
    "llmbar-adver-GPTOut": 0.6596,
    "llmbar-adver-manual": 0.6957,
    "refusals-dangerous": 0.93,
    "refusals-offensive": 0.97,
    "xstest-should-refuse": 1.0,
    "xstest-should-respond": 0.872,
    "donotanswer": 0.7941,
    "math-prm": 0.9866,
    "hep-cpp": 0.9512,
    "hep-go": 0.9695,
    "hep-java": 0.9817,
    "hep-js": 0.9756,
    "hep-python": 0.9634,
    "hep-rust": 0.9207,
    "prior/anthropic_helpful": 0.6974,
    "prior/anthropic_hhh": 0.8778,
    "prior/shp": 0.7467,
    "prior/summarize": 0.6499,
}


def _table_row(one: Benchmark, label: str, base_model: str, overall: float, *sections: float) -> PublishedRow:
    listed = {s.name for s in one.aggregates[0].sections}
    values = {name: round(value / 100, 3) for name, value in zip(SECTIONS, sections, strict=True) if name in listed}
    note = "Safety with the sizes of the two XSTest subsets the wrong way round"
    whole = round(overall / 100, 3)
    if len(values) < len(SECTIONS):
        note += f"; overall is the mean of these sections ({overall:.1f} is published, with Prior Sets at half weight)"
        whole = round(sum(values.values()) / len(values), 4)
    return PublishedRow(label=label, base_model=base_model, source=TABLE_1, subsets={}, sections=values, overall=whole, note=note)


def _released_row(one: Benchmark) -> PublishedRow:
    subsets = {name: value for name, value in _RELEASED_SUBSETS.items() if name in one.subsets}
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

"""A comparison's results as tables.

In: `CompareResults`.  Out: a `Report`: a table per suite with its headline, then probes, costs, position bias, what was not run.

Rows are methods, grouped by family; columns are the overall figure and the suite's sections, then the paired difference to each
reference with its p. Published rows stand in a block of their own, in a table of their own where they share no section with the
suite. The highest value of a column is marked among our own rows only, and by what is printed: two rows that both show 66.1 are
both marked. A row that has values of fewer items than the column's n says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from armorm.bench.aggregate import Figure
from armorm.bench.published import PublishedRow
from armorm.intervals import Interval
from armorm.numbers import (
    DASH,
    Value,
    compact_count,
    count,
    decimal,
    duration,
    ends,
    equals_p,
    general,
    percent,
    points,
    share,
    share_ends,
    signed,
)
from armorm.report.compare_results import (
    ComparedRow,
    ComparedSuite,
    CompareResults,
    MethodFacts,
    ProbeOnBackbone,
    TrainingCost,
    Usage,
)
from armorm.report.tables import Block, Cell, Grid, Report, Row, block, difference, estimate, has_value, share_of, table

Found = TypeVar("Found")

FAMILIES = {
    "armorm": "ArmoRM",
    "ablation": "ArmoRM, one thing changed",
    "bradley-terry": "Bradley–Terry",
    "pairwise": "Pairwise preference models",
    "judge": "Language models as judges",
    "regression": "Regression",
    "baseline": "Baselines",
}
"""Families in the order of the tables; others follow in order of appearance, under their own name."""

PUBLISHED = "Published: other backbones, other data, not comparable row by row"
_METHOD = Cell("method", "backbone")
_CALLS = ("requests", "from_cache", "failed", "unparsable", "cut", "untold", "cached_tokens_in", "cached_tokens_out")
"""What was counted of a judge's requests; zeros are left out."""


def compare_report(results: CompareResults) -> Report:
    """The tables of a comparison, in the order in which they are read: those of the suites first."""
    methods = methods_of(results)
    references = [methods[name].label for name in _references(results, methods)]
    uprights = zip(("dashed", *["dotted"] * len(references)), references, strict=False)  # in the plot
    suites = [_accuracy(suite, results, methods) for suite in results.suites]
    others = [
        _published_alone(results.suites),
        _probes(results.probes),
        _costs(methods),
        _costs_by_suite(results, methods),
        _position(results, methods),
        table("compare.not-run", [[Cell(one.label, one.backbone), one.skipped] for one in methods.values() if one.skipped]),
    ]
    return Report(
        f"{results.name}: methods compared",
        {
            **results.origin(),
            "version": results.version,
            "backbone": f"{results.backbone.model}, {results.backbone.dtype}",
            "this call took": duration(results.seconds),
        },
        [f"{suite_title(s)}: {headline(s, results, methods)}" for s in results.suites if overall_values(s)],
        "Overall value of each method with its 95 % interval",
        "; ".join(f"{kind}: {label}" for kind, label in uprights),
        [*suites, *(one for one in others if one.rows)],
        [*(f"{one.label}: {one.note}" for one in methods.values() if one.note), *results.notes],
    )


def methods_of(results: CompareResults) -> dict[str, MethodFacts]:
    """Every method by name, those that were not run too, family by family."""
    order = list(dict.fromkeys([*FAMILIES, *(one.family for one in results.methods)]))
    return {one.method: one for one in sorted(results.methods, key=lambda one: order.index(one.family))}


def by_family(methods: Iterable[MethodFacts]) -> dict[str, list[MethodFacts]]:
    """Methods in their order, under their families'."""
    families: dict[str, list[MethodFacts]] = {}
    for one in methods:
        families.setdefault(one.family, []).append(one)
    return families


def family_title(family: str) -> str:
    """A family's name for people."""
    return FAMILIES.get(family, family or "Other")


def suite_title(suite: ComparedSuite) -> str:
    """A table's title; one of all items stands beside one of fewer."""
    return suite.title + (", all items" if suite.whole else "")


def part_of(suite: ComparedSuite) -> str:
    """Of how many items these are a part, " of 1,165"; empty where they are all."""
    return f" of {count(suite.of)}" if suite.n < suite.of else ""


def headline(suite: ComparedSuite, results: CompareResults, methods: Mapping[str, MethodFacts]) -> str:
    """The first ArmoRM row (else the first row) beside each reference and the highest row, in one or two sentences."""
    values = overall_values(suite)
    ordered = [name for name in methods if name in values]
    subject = next(row for row in suite.methods if row.method == ordered[0])
    one = values[subject.method]
    text = f"{methods[subject.method].label}: {percent(one.value)}"
    if span := share_ends(one):
        text += f" ({span})"
    for reference in _references(results, methods):
        versus = subject.versus.get(reference)
        if versus is not None and has_value(versus.difference):
            gap, span = points(versus.difference.value), ends(versus.difference, points) or "no interval"
            text += f"; {gap} points over {methods[reference].label} ({span}; p {equals_p(versus.p)})"
    highest = max(ordered, key=lambda name: values[name].value)
    if values[highest].value <= one.value:
        return f"{text}. No row is higher." if len(ordered) > 1 else f"{text}."
    return f"{text}. Highest: {methods[highest].label}, {percent(values[highest].value)}."


def _references(results: CompareResults, methods: Mapping[str, MethodFacts]) -> list[str]:
    """Methods that the paired tests are against and that were run."""
    return [name for name in results.references if name in methods and not methods[name].skipped]


def overall_values(suite: ComparedSuite) -> dict[str, Interval]:
    """The overall values of a suite by method, where there are any."""
    return {row.method: row.overall.interval for row in suite.methods if has_value(row.overall.interval)}


# -- accuracy ----------------------------------------------------------------------------------------------------------------


def _accuracy(suite: ComparedSuite, results: CompareResults, methods: Mapping[str, MethodFacts]) -> Grid:
    rows = {row.method: row for row in suite.methods}
    published = suite.published if _comparable(suite) else ()
    sections = list(dict.fromkeys([*suite.sections, *_sections(published)]))
    references = [name for name in _references(results, methods) if name in rows]
    columns = {name: [row.overall, *(row.sections.get(section) for section in sections)] for name, row in rows.items()}
    places = range(len(sections) + 1)
    best = [_highest([cells[place] for cells in columns.values()]) for place in places]
    sizes = [max((one.n for cells in columns.values() if (one := cells[place])), default=0) for place in places]
    blocks = _by_family(
        [methods[name] for name in methods if name in rows],
        lambda one: [
            *(_share(cell, top, most) for cell, top, most in zip(columns[one.method], best, sizes, strict=True)),
            *(cell for reference in references for cell in difference(rows[one.method].versus.get(reference))),
        ],
    )
    lines, footnotes = _published(published, sections)
    if published:
        blocks.append(block([[*line, *[""] * (2 * len(references))] for line in lines], PUBLISHED, "published"))
    head: list[str | Cell] = [_METHOD, *(Cell(n, _n(s)) for n, s in zip(["overall", *sections], sizes, strict=True))]
    for reference in references:
        head += [Cell(f"over {methods[reference].label}", "points"), "p"]
    remarks = [*_remarks(suite, rows, methods), *footnotes]
    return replace(table("compare.suite", blocks=blocks, head=head, remarks=remarks, suite=suite_title(suite)), name=suite.name)


def _by_family(methods: Iterable[MethodFacts], write: Callable[[MethodFacts], Row]) -> list[Block]:
    """A row for each method, under its family's title."""
    return [
        block([[Cell(one.label, one.backbone), *write(one)] for one in members], family_title(family), family)
        for family, members in by_family(methods).items()
    ]


def _highest(cells: Sequence[Figure | None]) -> str:
    """What the best of these prints; "" where nothing has a value."""
    values = [one.value for one in cells if one and math.isfinite(one.value)]
    return share(max(values)) if values else ""


def _share(figure: Figure | None, best: str, most: int) -> Cell:
    if figure is None or not math.isfinite(figure.value):
        return Cell()
    text, small = share(figure.value), [share_ends(figure.interval), _n(figure.n) if figure.n < most else ""]
    return Cell(text, ", ".join(filter(None, small)), text == best)


def _n(size: int) -> str:
    return f"n = {count(size)}" if size else ""


def _comparable(suite: ComparedSuite) -> bool:
    """Whether the suite has a section that published rows have too."""
    return not set(suite.sections).isdisjoint(_sections(suite.published))


def _sections(published: Sequence[PublishedRow]) -> list[str]:
    return list(dict.fromkeys(name for row in published for name in row.sections))


def _published_alone(suites: Sequence[ComparedSuite]) -> Grid:
    """Published rows that share no section with the suite they are given for; each once."""
    alone: list[PublishedRow] = []
    for suite in suites:
        alone += [row for row in suite.published if not _comparable(suite) and row not in alone]
    sections = _sections(alone)
    lines, footnotes = _published(alone, sections)
    blocks = [block(lines, family="published")]
    return table("compare.published", blocks=blocks, head=[_METHOD, "overall", *sections], remarks=footnotes)


def _published(rows: Sequence[PublishedRow], sections: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The lines of published rows, and their footnotes: source and note, numbered once each."""
    sources = [f"{row.source}: {row.note}" if row.note else row.source for row in rows]
    footnotes = list(dict.fromkeys(sources))
    lines: list[Row] = [
        [
            Cell(f"{row.label} [{footnotes.index(source) + 1}]", row.base_model),
            *map(share, (row.overall, *map(row.sections.get, sections))),
        ]
        for row, source in zip(rows, sources, strict=True)
    ]
    return lines, [f"[{mark}] {source}" for mark, source in enumerate(footnotes, start=1)]


def _remarks(suite: ComparedSuite, rows: Mapping[str, ComparedRow], methods: Mapping[str, MethodFacts]) -> list[str]:
    remarks = [f"{count(suite.n)}{part_of(suite)} items of {count(suite.groups)} prompts; rule: {suite.rule}."]
    if suite.missing:
        remarks.append(
            f"Without a scored item: {len(suite.missing)} of the official aggregate's subsets ({', '.join(suite.missing)}); the "
            "overall value is not that of a full run."
        )
    for key in ("ties", "unscored"):
        some = {name: size for name in methods if name in rows and (size := getattr(rows[name].overall, key))}
        if some:
            remarks.append(f"{key.capitalize()}: {', '.join(f'{methods[n].label} {count(size)}' for n, size in some.items())}.")
    return remarks


# -- costs, position bias, probes --------------------------------------------------------------------------------------------


def _costs(methods: Mapping[str, MethodFacts]) -> Grid:
    run = {name: one for name, one in methods.items() if not one.skipped}
    cells = {head: {name: write(one) for name, one in run.items()} for head, write in _COLUMNS.items()}
    shown = {head: column for head, column in cells.items() if any(text != DASH for text in column.values())}
    blocks = _by_family(run.values(), lambda one: [column[one.method] for column in shown.values()])
    return table("compare.cost", blocks=blocks, head=[_METHOD, *shown])


def _of(part: TrainingCost | Usage | None, key: str) -> Value:
    return None if part is None else getattr(part, key)


def _amount(tokens: Value) -> str:
    """A large count in few characters; zero is zero."""
    return DASH if tokens is None else compact_count(tokens) or "0"


def _total(method: MethodFacts, key: str) -> Value:
    """A cost of scoring over all suites that state it."""
    known = [value for one in method.scoring.values() if (value := getattr(one, key)) is not None]
    return sum(known) if known else None


def _calls(usage: Usage | None) -> str:
    known = {} if usage is None else {key: value for key in _CALLS if (value := getattr(usage, key))}
    return ", ".join(f"{key.replace('_', ' ')} {count(value)}" for key, value in known.items()) or DASH


_COLUMNS: dict[Cell, Callable[[MethodFacts], str]] = {
    Cell("training", "time"): lambda one: duration(_of(one.training, "seconds")),
    Cell("tokens", "training"): lambda one: _amount(_of(one.training, "tokens")),
    Cell("steps", "training"): lambda one: count(_of(one.training, "steps")),
    Cell("examples", "training"): lambda one: count(_of(one.training, "examples")),
    Cell("scoring", "time"): lambda one: duration(_total(one, "seconds")),
    Cell("answers", "scoring"): lambda one: count(_total(one, "answers")),
    Cell("tokens in", "scoring"): lambda one: _amount(_total(one, "tokens_in")),
    Cell("tokens out", "scoring"): lambda one: _amount(_total(one, "tokens_out")),
    Cell("cost, USD"): lambda one: general(_of(one.usage, "cost_usd")),
    Cell("calls"): lambda one: _calls(one.usage),
}
"""What a method cost, column by column."""


def _costs_by_suite(results: CompareResults, methods: Mapping[str, MethodFacts]) -> Grid:
    rows = _by_suite(
        results,
        [(one, one.scoring) for one in methods.values()] if len(results.suites) > 1 else [],
        lambda spent: [duration(spent.seconds), count(spent.answers), *map(_amount, (spent.tokens_in, spent.tokens_out))],
    )
    return table("compare.cost-by-suite", rows)


def _position(results: CompareResults, methods: Mapping[str, MethodFacts]) -> Grid:
    rows = _by_suite(
        results,
        [(one, one.position or {}) for one in methods.values()],
        lambda bias: (*map(share_of, (bias.first, bias.flips)), *map(count, (bias.n, bias.unanswered))),
    )
    return table("compare.position", rows)


def _by_suite(
    results: CompareResults,
    found: Iterable[tuple[MethodFacts, Mapping[str, Found]]],
    write: Callable[[Found], Row],
) -> list[Row]:
    titles = {suite.name: suite_title(suite) for suite in results.suites}
    return [
        [Cell(one.label, one.backbone), titles.get(suite, suite), *write(part)]
        for one, parts in found
        for suite, part in parts.items()
    ]


def _probes(probes: Sequence[ProbeOnBackbone]) -> Grid:
    names = list(dict.fromkeys(name for one in probes for name in one.pearson))
    rows: list[Row] = [[name, *(_correlation(one.pearson.get(name), one.n.get(name, 0)) for one in probes)] for name in names]
    means: list[Row] = [["mean", *(estimate(one.mean, decimal) for one in probes)]]
    if probes[1:]:
        means.append([f"mean, over {probes[0].backbone}", *(estimate(one.gain, signed) for one in probes)])
    head: list[str | Cell] = ["objective", *(Cell(one.backbone, one.feature) for one in probes)]
    return table("compare.probes", blocks=[block(rows), block(means)] if rows else [], head=head)


def _correlation(one: Interval | None, n: int) -> Cell:
    cell = estimate(one, decimal)
    return Cell(cell.text, ", ".join(filter(None, (cell.small, _n(n))))) if has_value(one) else cell

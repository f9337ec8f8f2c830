"""A comparison's results as tables.

In: `CompareResults`.  Out: a `Report`: a table per suite with its headline, then probes, costs, position bias, what was not run.
Cost: none.

Rows are methods, grouped by family; columns are the overall figure and the suite's sections, then the paired difference to each
reference with its p. Published rows stand in a block of their own, in a table of their own where they share no section with the
suite. The highest value of a column is marked among our own rows only, and by what is printed: two rows that both show 66.1 are
both marked. A row that has values of fewer items than the column's n says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

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
from armorm.report.tables import Block, Cell, Grid, Report, Row, difference, estimate, grid, has_value, share_of

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

ACCURACY = (
    "Accuracy in %, with 95 % intervals that resample whole prompts. Bold: the highest value of a column as printed. Differences "
    "are paired, item by item; p is two-sided and not corrected for the number of rows."
)
PUBLISHED = "Published: other backbones, other data, not comparable row by row"
_ELSEWHERE_MEASURED = "Other backbones and other data: a scale to look at, not comparable row by row."
_COSTS = "What each method took here, scoring summed over the suites; one machine, so times compare rows rather than systems."
_POSITION = (
    "Each pair is shown in both orders. “First preferred” is how often the answer shown first wins, 50 % without position bias; "
    "“flips” is how often the two orders disagree."
)
_PROBES = (
    "Pearson correlation of predicted and given ratings on held-out prompts, with 95 % intervals that resample whole prompts. "
    "The mean is over the objectives; the last line is each mean less the first column's, on the same ratings."
)
_PARTS = {"training": "time", "tokens": "training", "steps": "training", "examples": "training", "scoring": "time"}
_PARTS |= dict.fromkeys(("answers", "tokens in", "tokens out"), "scoring")
_CALLS = ("requests", "from_cache", "failed", "unparsable", "cut", "untold", "cached_tokens_in", "cached_tokens_out")
"""What was counted of a judge's requests; zeros are left out."""


@dataclass(frozen=True)
class Comparison:
    """Everything to show, and the labels of the methods that the paired tests are against."""

    report: Report
    suites: Sequence[Grid]
    references: Sequence[str]


def compare_report(results: CompareResults) -> Comparison:
    """The tables of a comparison, in the order in which they are read."""
    methods = methods_of(results)
    suites = [_accuracy(s, results, methods) for s in results.suites]
    others = [
        _published_alone(results.suites),
        _probes(results.probes),
        _costs(methods),
        _costs_by_suite(results, methods),
        _position(results, methods),
        _not_run(methods),
    ]
    references = [methods[name].label for name in _references(results, methods)]
    report = Report(
        f"{results.name}: methods compared",
        _facts(results),
        [f"{suite_title(s)}: {headline(s, results, methods)}" for s in results.suites if _figures(s)],
        "Overall value of each method with its 95 % interval",
        _uprights(references),
        [*suites, *(one for one in others if one is not None)],
        [*(f"{one.label}: {one.note}" for one in methods.values() if one.note), *results.notes],
    )
    return Comparison(report, suites, references)


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
    rows = _figures(suite)
    ordered = [name for name in methods if name in rows]
    subject = rows[ordered[0]]
    one = subject.overall.interval
    text = f"{methods[subject.method].label}: {percent(one.value)}{_in_brackets(share_ends(one))}"
    for reference in _references(results, methods):
        versus = subject.versus.get(reference)
        if versus is not None and has_value(versus.difference):
            gap, span = points(versus.difference.value), ends(versus.difference, points) or "no interval"
            text += f"; {gap} points over {methods[reference].label} ({span}; p {equals_p(versus.p)})"
    highest = max(ordered, key=lambda name: rows[name].overall.value)
    if rows[highest].overall.value <= one.value:
        return f"{text}. No row is higher." if len(ordered) > 1 else f"{text}."
    return f"{text}. Highest: {methods[highest].label}, {percent(rows[highest].overall.value)}."


def _uprights(references: Sequence[str]) -> str:
    """What the plot's upright lines stand for."""
    kinds = ("dashed", *["dotted"] * len(references))
    return "; ".join(f"{kind}: {label}" for kind, label in zip(kinds, references, strict=False))


def _facts(results: CompareResults) -> dict[str, str]:
    return {
        "command": results.command,
        "commit": results.commit or "",
        "version": results.version,
        "machine": results.machine,
        "created": results.created,
        "backbone": f"{results.backbone.model}, {results.backbone.dtype}",
        "this call took": duration(results.seconds),
    }


def _references(results: CompareResults, methods: Mapping[str, MethodFacts]) -> list[str]:
    """Methods that the paired tests are against and that were run."""
    return [name for name in results.references if name in methods and not methods[name].skipped]


def _figures(suite: ComparedSuite) -> dict[str, ComparedRow]:
    """Rows of a suite that have an overall value, by method."""
    return {row.method: row for row in suite.methods if math.isfinite(row.overall.value)}


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
    blocks = []
    for family, members in by_family(methods[name] for name in methods if name in rows).items():
        lines = [
            [
                Cell(one.label, one.backbone),
                *(_share(cell, top, most) for cell, top, most in zip(columns[one.method], best, sizes, strict=True)),
                *(cell for reference in references for cell in _versus(rows[one.method], reference)),
            ]
            for one in members
        ]
        blocks.append(Block(family_title(family), lines, family))
    marks = _marks(published)
    if published:
        blocks.append(Block(PUBLISHED, [_published(row, sections, 2 * len(references), marks) for row in published], "published"))
    head = [Cell("method", "backbone"), *(Cell(n, _n(s)) for n, s in zip(["overall", *sections], sizes, strict=True))]
    for reference in references:
        head += [Cell(f"over {methods[reference].label}", "points"), Cell("p")]
    remarks = [*_remarks(suite, rows, methods), *_footnotes(marks)]
    return Grid(suite.name, suite_title(suite), ACCURACY, head, blocks, remarks)


def _highest(cells: Sequence[Figure | None]) -> str:
    """What the best of these prints; "" where nothing has a value."""
    values = [one.value for one in cells if one and math.isfinite(one.value)]
    return share(max(values)) if values else ""


def _share(figure: Figure | None, best: str, most: int) -> Cell:
    if figure is None or not math.isfinite(figure.value):
        return Cell()
    text, small = share(figure.value), [share_ends(figure.interval), _n(figure.n) if figure.n < most else ""]
    return Cell(text, ", ".join(filter(None, small)), text == best)


def _versus(row: ComparedRow, reference: str) -> tuple[Cell, Cell]:
    versus = row.versus.get(reference)
    return (Cell(), Cell()) if versus is None else difference(versus.difference, versus.p)


def _n(size: int) -> str:
    return f"n = {count(size)}" if size else ""


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _comparable(suite: ComparedSuite) -> bool:
    """Whether the suite has a section that published rows have too."""
    return not set(suite.sections).isdisjoint(_sections(suite.published))


def _sections(published: Sequence[PublishedRow]) -> list[str]:
    return list(dict.fromkeys(name for row in published for name in row.sections))


def _published_alone(suites: Sequence[ComparedSuite]) -> Grid | None:
    """Published rows that share no section with the suite they are given for; each once."""
    alone: list[PublishedRow] = []
    for suite in suites:
        alone += [row for row in suite.published if not _comparable(suite) and row not in alone]
    if not alone:
        return None
    sections, marks = _sections(alone), _marks(alone)
    head = [Cell("method", "backbone"), *map(Cell, ("overall", *sections))]
    rows = [_published(row, sections, 0, marks) for row in alone]
    lead, remarks = _ELSEWHERE_MEASURED, _footnotes(marks)
    return Grid("published", "Published results", lead, head, [Block("", rows, "published")], remarks)


def _footnotes(marks: Mapping[str, int]) -> list[str]:
    return [f"[{mark}] {said}" for said, mark in marks.items()]


def _marks(published: Sequence[PublishedRow]) -> dict[str, int]:
    """Footnotes of the published rows: source and note, numbered once each."""
    return {said: mark for mark, said in enumerate(dict.fromkeys(map(_source, published)), start=1)}


def _source(row: PublishedRow) -> str:
    return f"{row.source}: {row.note}" if row.note else row.source


def _published(row: PublishedRow, sections: Sequence[str], blanks: int, marks: Mapping[str, int]) -> list[Cell]:
    values = [row.overall, *(row.sections.get(name) for name in sections)]
    label = f"{row.label} [{marks[_source(row)]}]"
    return [Cell(label, row.base_model), *(Cell(share(value)) for value in values), *[Cell("")] * blanks]


def _remarks(suite: ComparedSuite, rows: Mapping[str, ComparedRow], methods: Mapping[str, MethodFacts]) -> list[str]:
    remarks = [f"{count(suite.n)}{part_of(suite)} items of {count(suite.groups)} prompts; rule: {suite.rule}."]
    if suite.missing:
        remarks.append(
            f"Not in these files: {len(suite.missing)} of the official aggregate's subsets ({', '.join(suite.missing)}); the "
            "overall value is not that of a full run."
        )
    for key in ("ties", "unscored"):
        some = {name: size for name in methods if name in rows and (size := getattr(rows[name].overall, key))}
        if some:
            remarks.append(f"{key.capitalize()}: {', '.join(f'{methods[n].label} {count(size)}' for n, size in some.items())}.")
    return remarks


# -- costs, position bias, probes --------------------------------------------------------------------------------------------


def _costs(methods: Mapping[str, MethodFacts]) -> Grid | None:
    run = {name: one for name, one in methods.items() if not one.skipped}
    if not run:
        return None
    columns: dict[str, Callable[[MethodFacts], str]] = {
        "training": lambda one: duration(_of(one.training, "seconds")),
        "tokens": lambda one: _amount(_of(one.training, "tokens")),
        "steps": lambda one: count(_of(one.training, "steps")),
        "examples": lambda one: count(_of(one.training, "examples")),
        "scoring": lambda one: duration(_total(one, "seconds")),
        "answers": lambda one: count(_total(one, "answers")),
        "tokens in": lambda one: _amount(_total(one, "tokens_in")),
        "tokens out": lambda one: _amount(_total(one, "tokens_out")),
        "cost, USD": lambda one: general(_of(one.usage, "cost_usd")),
        "calls": lambda one: _calls(one.usage),
    }
    cells = {title: {name: write(one) for name, one in run.items()} for title, write in columns.items()}
    shown = {title: column for title, column in cells.items() if any(text != DASH for text in column.values())}
    blocks = [
        Block(
            family_title(family),
            [[Cell(one.label, one.backbone), *(Cell(shown[title][one.method]) for title in shown)] for one in members],
            family,
        )
        for family, members in by_family(run.values()).items()
    ]
    return Grid("cost", "Cost", _COSTS, [Cell("method", "backbone"), *(Cell(t, _PARTS.get(t, "")) for t in shown)], blocks)


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


def _costs_by_suite(results: CompareResults, methods: Mapping[str, MethodFacts]) -> Grid | None:
    titles = _titles(results)
    rows: list[Row] = [
        [
            Cell(one.label, one.backbone),
            titles.get(suite, suite),
            duration(spent.seconds),
            count(spent.answers),
            *map(_amount, (spent.tokens_in, spent.tokens_out)),
        ]
        for one in methods.values()
        for suite, spent in one.scoring.items()
    ]
    if len(titles) < 2 or not rows:
        return None
    head = (Cell("method", "backbone"), "suite", "scoring", "answers", "tokens in", "tokens out")
    return grid("cost-by-suite", "Scoring by suite", head, rows, words=(0, 1), detail=True)


def _titles(results: CompareResults) -> dict[str, str]:
    return {suite.name: suite_title(suite) for suite in results.suites}


def _position(results: CompareResults, methods: Mapping[str, MethodFacts]) -> Grid | None:
    titles = _titles(results)
    rows: list[Row] = [
        [
            Cell(one.label, one.backbone),
            titles.get(suite, suite),
            share_of(bias.first),
            share_of(bias.flips),
            *map(count, (bias.n, bias.unanswered)),
        ]
        for one in methods.values()
        for suite, bias in (one.position or {}).items()
    ]
    head = (Cell("method", "backbone"), "suite", Cell("first preferred", "%"), Cell("flips", "%"), "comparisons", "unanswered")
    return grid("position", "Position bias", head, rows, lead=_POSITION, words=(0, 1)) if rows else None


def _probes(probes: Sequence[ProbeOnBackbone]) -> Grid | None:
    names = list(dict.fromkeys(name for one in probes for name in one.pearson))
    if not names:
        return None
    head = [Cell("objective"), *(Cell(one.backbone, one.feature) for one in probes)]
    rows = [[Cell(name), *(_correlation(one.pearson.get(name), one.n.get(name, 0)) for one in probes)] for name in names]
    means = [[Cell("mean"), *(estimate(one.mean, decimal) for one in probes)]]
    if probes[1:]:
        title = f"mean, over {probes[0].backbone}"
        means.append([Cell(title), *(estimate(one.gain, signed) for one in probes)])
    return Grid("probes", "Probes by backbone", _PROBES, head, [Block("", rows), Block("", means)])


def _correlation(one: Interval | None, n: int) -> Cell:
    cell = estimate(one, decimal)
    return Cell(cell.text, ", ".join(filter(None, (cell.small, _n(n))))) if has_value(one) else cell


def _not_run(methods: Mapping[str, MethodFacts]) -> Grid | None:
    rows: list[Row] = [[Cell(one.label, one.backbone), one.skipped] for one in methods.values() if one.skipped]
    return grid("not-run", "Not run", (Cell("method", "backbone"), "why"), rows, words=(0, 1)) if rows else None

"""A benchmark's results as tables, and as CSV.

In: `BenchResults`.  Out: a `Report`: sections, subsets, a profile's effect, published numbers; CSV text.  Cost: none.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from armorm.bench.aggregate import Figure
from armorm.bench.profiles import ProfileRow
from armorm.bench.results import BenchResults
from armorm.numbers import count, counts, ends, percent, share, signed_hundredths
from armorm.report.tables import Block, Cell, Grid, Report, Row, difference, grid, has_value, share_of

_INTERVALS = (
    "Accuracy in %. Intervals are 95 % and resample whole prompts; one bootstrap serves all figures. “Ties as halves” is the "
    "same number with a tie counted as its fair share."
)
_COUNTED = ("ties as halves", "n", "ties", "unscored")
_NUMBERS = ("value", "low", "high", "halves", "n", "ties", "unscored")


def bench_report(results: BenchResults) -> Report:
    """Overall and sections, the subsets, the published rows, and what was left out."""
    grids = [_sections(results), _subsets(results)]
    if results.profile is not None:
        grids.append(profile_grid(results.profile.comparison, results.profile.name, results.profile.description))
    if results.published:
        grids.append(_published(results))
    facts = {
        "command": results.command,
        "commit": results.commit or "",
        "machine": results.machine,
        "created": results.created,
        "model": results.model,
    }
    return Report(results.title, facts, grids=grids, notes=list(_notes(results)))


def render_csv(results: BenchResults) -> str:
    """The figures as CSV: level, aggregate, name, then the numbers; what is undefined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["level", "aggregate", "name", *_NUMBERS])
    for level, aggregate, name, figure in _figures(results):
        numbers = figure.to_json()
        writer.writerow([level, aggregate, name, *("" if numbers[key] is None else numbers[key] for key in _NUMBERS)])
    return text.getvalue()


def profile_grid(rows: Sequence[ProfileRow], profile: str, description: str = "") -> Grid:
    """What a steering profile costs and brings, figure by figure."""
    several = len({row.aggregate for row in rows}) > 1
    lines = [
        [
            Cell(f"{row.aggregate}: {row.name}" if several else row.name),
            *(Cell(share(one.value)) for one in (row.base, row.steered)),
            *difference(row.difference, row.p),
            *map(Cell, (count(row.gained), count(row.lost))),
        ]
        for row in rows
    ]
    head = map(Cell, ("", "without", "with", "difference", "p", "gained", "lost"))
    lead = (
        f"{description} The same items with and without it, in %; differences are paired, with 95 % intervals by prompt.".strip()
    )
    overall = next((place for place, row in enumerate(rows) if row.level == "overall"), None)
    title = f"What the profile {profile} costs and brings"
    return Grid("profile", title, lead, list(head), [Block("", lines, subject=overall)])


def _figures(results: BenchResults) -> Iterator[tuple[str, str, str, Figure]]:
    for aggregate, found in results.figures.aggregates.items():
        yield "overall", aggregate, "overall", found.overall
        for name, figure in found.sections.items():
            yield "section", aggregate, name, figure
    for name, figure in results.figures.subsets.items():
        yield "subset", "", name, figure


def _sections(results: BenchResults) -> Grid:
    aggregates = results.figures.aggregates
    names = list(dict.fromkeys(name for one in aggregates.values() for name in one.sections))
    lines = []
    for name in (None, *names):
        cells = [one.overall if name is None else one.sections.get(name) for one in aggregates.values()]
        first = next(one for one in cells if one)
        lines.append([Cell(name or "overall"), *(share_of(one.interval if one else None) for one in cells), *_counts(first)])
    title = f"{results.title}: {count(results.items)} items of {count(results.prompts)} prompts"
    head = [Cell(""), *map(Cell, (*aggregates, *_COUNTED))]
    lead = f"{_INTERVALS} Rule: {results.rule}."
    return Grid("sections", title, lead, head, [Block("", lines, subject=0)])


def _subsets(results: BenchResults) -> Grid:
    beside = [row for row in results.published if row.subsets]
    rows: list[Row] = [
        [name, share_of(figure.interval), *(share(row.subsets.get(name)) for row in beside), *_counts(figure)]
        for name, figure in results.figures.subsets.items()
    ]
    return grid("subsets", "Subsets", ("subset", "accuracy", *(row.label for row in beside), *_COUNTED), rows)


def _counts(figure: Figure) -> list[Cell]:
    return [Cell(share(figure.halves)), *(Cell(count(n)) for n in (figure.n, figure.ties, figure.unscored))]


def _published(results: BenchResults) -> Grid:
    sections = list(dict.fromkeys(name for row in results.published for name in row.sections))
    rows = [
        [
            Cell(row.label),
            Cell(row.base_model),
            *(Cell(share(value)) for value in (row.overall, *(row.sections.get(name) for name in sections))),
            Cell(row.source, row.note),
        ]
        for row in results.published
    ]
    head = ("method", "base model", "overall", *sections, "source")
    lead = "As their authors report them; other backbones, other data."
    return grid("published", "Published numbers", head, rows, lead=lead, words=(0, 1, len(head) - 1))


def _notes(results: BenchResults) -> Iterator[str]:
    within = results.length.within_prompt
    if has_value(within):
        interval = ends(within, signed_hundredths)
        yield f"Rank correlation of score and answer length within prompts: {signed_hundredths(within.value)} ({interval})."
    if (bias := results.position) is not None and math.isfinite(bias.first.value):
        yield (
            f"Position: the answer shown first wins {percent(bias.first.value)} of the verdicts; the two orders disagree on "
            f"{percent(bias.flips.value)} of the pairs."
        )
    for name, aggregate in results.figures.aggregates.items():
        if missing := aggregate.missing:
            yield (
                f"{name}: {len(missing)} of the benchmark's subsets are not in these files ({', '.join(missing)}): the numbers "
                "can't be compared with a full run."
            )
        if aggregate.note:
            yield f"{name}: {aggregate.note}"
    if results.left_out:
        yield f"Left out: {counts(results.left_out)}."

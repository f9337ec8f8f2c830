"""A benchmark's results as tables, as CSV, and as one self-contained HTML page.

In: `BenchResults`.  Out: a `Report`: sections, subsets, a profile's effect, published numbers; `results.json`, `results.csv`,
`report.html` in a folder.  Cost: none for tables; a second for the page, which needs the extra `report`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from armorm.bench.aggregate import Figure
from armorm.bench.profiles import ProfileRow
from armorm.bench.results import BenchResults
from armorm.disk import write_json, write_text
from armorm.numbers import count, counts, ends, percent, share, signed_hundredths
from armorm.report.html import render_html
from armorm.report.plots import Figure as Plot
from armorm.report.plots import Panel, dot_plot
from armorm.report.reading import reading_sentences
from armorm.report.tables import Cell, Grid, Report, Row, block, difference, has_value, share_of, table
from armorm.sums import listing

FILES = ("results.json", "results.csv", "report.html")
_COUNTED = ("ties as halves", "n", "ties", "unscored")
_NUMBERS = ("value", "low", "high", "halves", "n", "ties", "unscored")


def bench_report(results: BenchResults) -> Report:
    """Overall and sections, the subsets, the published rows, and what was left out."""
    grids = [_sections(results), _subsets(results)]
    if results.profile is not None:
        grids.append(profile_grid(results.profile.comparison, results.profile.name, results.profile.description))
    if results.published:
        grids.append(_published(results))
    return Report(results.title, {**results.origin(), "model": results.model}, grids=grids, notes=list(_notes(results)))


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
    lines: list[Row] = [
        [
            f"{row.aggregate}: {row.name}" if several else row.name,
            *(share(one.value) for one in (row.base, row.steered)),
            *difference(row),
            *map(count, (row.gained, row.lost)),
        ]
        for row in rows
    ]
    overall = next((place for place, row in enumerate(rows) if row.level == "overall"), None)
    return table("bench.profile", blocks=[block(lines, subject=overall)], profile=profile, about=f"{description} ".lstrip())


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
    lines: list[Row] = []
    for name in (None, *names):
        cells = [one.overall if name is None else one.sections.get(name) for one in aggregates.values()]
        first = next(one for one in cells if one)
        lines.append([name or "overall", *(share_of(one.interval if one else None) for one in cells), *_counts(first)])
    said = {"suite": results.title, "items": count(results.items), "prompts": count(results.prompts), "rule": results.rule}
    return table("bench.sections", blocks=[block(lines, subject=0)], head=("", *aggregates, *_COUNTED), **said)


def _subsets(results: BenchResults) -> Grid:
    beside = [row for row in results.published if row.subsets]
    rows: list[Row] = [
        [name, share_of(figure.interval), *(share(row.subsets.get(name)) for row in beside), *_counts(figure)]
        for name, figure in results.figures.subsets.items()
    ]
    return table("bench.subsets", rows, head=("subset", "accuracy", *(row.label for row in beside), *_COUNTED))


def _counts(figure: Figure) -> list[str]:
    return [share(figure.halves), *map(count, (figure.n, figure.ties, figure.unscored))]


def _published(results: BenchResults) -> Grid:
    sections = list(dict.fromkeys(name for row in results.published for name in row.sections))
    rows: list[Row] = [
        [
            row.label,
            row.base_model,
            *map(share, (row.overall, *map(row.sections.get, sections))),
            Cell(row.source, row.note),
        ]
        for row in results.published
    ]
    return table("bench.published", rows, head=("method", "base model", "overall", *sections, "source"))


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
                f"{name}: {len(missing)} of the benchmark's subsets have no scored item ({', '.join(missing)}): not in these "
                "files, beyond the limit, or left out; the numbers can't be compared with a full run."
            )
        if aggregate.note:
            yield f"{name}: {aggregate.note}"
    what = "conversations" if results.position is None else "comparisons"
    yield from reading_sentences(results.truncated, results.asked, results.max_tokens, results.notes, what=what)
    if results.left_out:
        yield f"Left out or unscored: {counts(results.left_out)}."


def write_bench(results: BenchResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent), the facts first. Raises `MissingExtra`, `StorageError`."""
    with listing(folder, FILES):
        write_json(folder / "results.json", results.to_json())
        write_text(folder / "results.csv", render_csv(results))
        write_text(folder / "report.html", render_bench_page(results))


def render_bench_page(results: BenchResults) -> str:
    """The page as text; the same results give the same page."""
    official = results.figures.official
    figures = {
        "sections": _plot({"overall": official.overall, **official.sections}, "Overall and sections", highlighted=[0]),
        "subsets": _plot(results.figures.subsets, "Subsets"),
    }
    report = bench_report(results)
    return render_html("bench_page.html.jinja", results=results, official=official.overall, report=report, figures=figures)


def _plot(figures: Mapping[str, Figure], title: str, *, highlighted: Sequence[int] = ()) -> Plot | None:
    panel = Panel("accuracy", [one.interval for one in figures.values()], 0.5, (0.0, 1.0), percent=True)
    return dot_plot(list(figures), [panel], highlighted=highlighted, alt=f"{title}: accuracy with 95 % intervals")

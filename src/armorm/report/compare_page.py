"""A comparison of methods as files to keep: a self-contained HTML page, Markdown, LaTeX tables, a plot.

In: `CompareResults`.  Out: `results.json`, `report.html`, `compare.md`, `compare.tex`, `compare.svg` in a folder.
Cost: about 0.1 s for each of the plot's panels; needs the extra `report`.

The plot has a panel per suite and a row per method: dots with 95 % whiskers in their family's colour. The rows' family titles
are the legend; the references stand as dashed lines across each panel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armorm.disk import write_json, write_text
from armorm.intervals import Interval
from armorm.numbers import count, plain, shorten
from armorm.report.compare_results import ComparedSuite, CompareResults, MethodFacts
from armorm.report.comparison import FAMILIES, by_family, compare_report, family_title, methods_of, overall_values, part_of
from armorm.report.html import render_html
from armorm.report.latex import render_latex
from armorm.report.markdown import render_markdown
from armorm.report.plots import (
    ACCENT,
    COLUMNS,
    FAMILY_COLOURS,
    INK,
    PAGE_COLOURS,
    RULE,
    SECOND,
    SOFT,
    Figure,
    common_limits,
    draw_whisker,
    inline,
    panel_grid,
    standalone,
    styled,
    title_of,
)
from armorm.report.tables import Report
from armorm.sums import listing

FILES = ("results.json", "compare.svg", "compare.md", "compare.tex", "report.html")
_COLOURS = {"armorm": ACCENT, "bradley-terry": SECOND, "baseline": SOFT}
_COLOURS |= {family: light for family, (light, _) in FAMILY_COLOURS.items()}
_ROW = 0.26  # inches
_LONGEST = 42  # characters of a row's name
_DASHES = ((0, (5, 3)), (0, (1.5, 1.5)))  # of the first and of every further reference


def write_compare(results: CompareResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent), the facts first; without a scored method there is no plot.

    Raises `MissingExtra` without jinja2 or matplotlib, `StorageError` where a file can't be written.
    """
    figure, report = compare_plot(results), compare_report(results)
    with listing(folder, FILES):
        write_json(folder / "results.json", results.to_json())
        if figure is not None:
            write_text(folder / "compare.svg", standalone(figure))
        write_text(folder / "compare.md", render_markdown(report, picture="compare.svg" if figure else ""))
        write_text(folder / "compare.tex", render_latex(report, "compare"))
        write_text(folder / "report.html", render_compare_page(results, report, figure))


def render_compare_page(results: CompareResults, report: Report, figure: Figure | None) -> str:
    """The page as text, of the results' tables and plot; the same results give the same page."""
    suites, others = report.grids[: len(results.suites)], report.grids[len(results.suites) :]
    return render_html(
        "compare_page.html.jinja",
        name=results.name,
        report=report,
        suites=suites,
        others=others,
        figure=figure,
        colours=FAMILY_COLOURS,
        families={family: PAGE_COLOURS[_COLOURS.get(family, INK)][0] for family in FAMILIES},
        contents=[
            *([("plot", "Overall")] if figure else []),
            *((f"suite-{place}", grid.title) for place, grid in enumerate(suites, start=1)),
            *((grid.name, grid.title) for grid in others if not grid.detail),
            *([("notes", "Notes")] if report.notes else []),
        ],
    )


# -- the plot -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A method, or a family's title over its methods; `backbone` where methods share a name."""

    text: str
    family: str
    method: str | None
    backbone: str = ""


def compare_plot(results: CompareResults) -> Figure | None:
    """The figure, each family in its colour; None where no method has a value."""
    suites = [(suite, values) for suite in results.suites if (values := overall_values(suite))]
    if not suites:
        return None
    scored = {name for _, values in suites for name in values}
    known = methods_of(results)
    rows = _rows([one for name, one in known.items() if name in scored])
    references = [known[name] for name in results.references if name in scored]
    return _panels(rows, suites, references, alt="Overall value of each method with its 95 % interval, by suite")


def _rows(methods: Sequence[MethodFacts]) -> list[_Row]:
    rows = []
    for family, members in by_family(methods).items():
        rows.append(_Row(family_title(family), family, None))
        shared = Counter(one.label for one in members)
        rows += [_Row(one.label, family, one.method, one.backbone if shared[one.label] > 1 else "") for one in members]
    return rows


@styled
def _panels(
    rows: Sequence[_Row],
    suites: Sequence[tuple[ComparedSuite, Mapping[str, Interval]]],
    references: Sequence[MethodFacts],
    *,
    alt: str,
) -> Figure:
    left = 0.2 + 0.074 * max(len(shorten(row.text, _LONGEST)) for row in rows)
    figure, grid = panel_grid(len(suites), height=_ROW * len(rows), left=left)
    for at, (axes, (suite, values)) in enumerate(zip(grid, suites, strict=True)):
        part = part_of(suite)
        axes.set_title(title_of(plain(suite.title), f"{'' if part else 'all '}{count(suite.n)}{part} items"))
        limits = common_limits(list(values.values()), [0.5], (0.0, 1.02))
        axes.set_xlim(*limits)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        axes.set_xlabel("accuracy, %", fontsize=8, labelpad=1)
        _name_rows(axes, rows, named=at % COLUMNS == 0)
        for reference, dashes in zip(references, (*_DASHES, *[_DASHES[-1]] * len(references)), strict=False):
            if reference.method in values:
                axes.axvline(values[reference.method].value, color=SECOND, linewidth=1.0, linestyle=dashes, zorder=1)
        for place, row in enumerate(rows):
            if row.method is not None and row.method in values:
                draw_whisker(axes, place, values[row.method], limits, _COLOURS.get(row.family, INK))
    return inline(figure, alt)


def _name_rows(axes: Any, rows: Sequence[_Row], *, named: bool) -> None:
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_yticks([])
    across = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        if row.method is not None:
            axes.hlines(place, 0, 1, transform=across, color=RULE, linewidth=0.6, alpha=0.45)
        elif place:
            axes.hlines(place - 0.5, 0, 1, transform=across, color=RULE, linewidth=0.8)
        if named:
            _name(axes, place, row)


def _name(axes: Any, place: int, row: _Row) -> None:
    look: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    title = row.method is None
    colour, weight = (_COLOURS.get(row.family, INK), "bold") if title else (INK, "normal")
    raised = 0.17 if row.backbone else 0.0
    axes.text(-0.02, place - raised, shorten(row.text, _LONGEST), color=colour, fontweight=weight, fontsize=8, **look)
    if row.backbone:
        axes.text(-0.02, place + 0.3, shorten(row.backbone, _LONGEST), color=SOFT, fontsize=6, **look)

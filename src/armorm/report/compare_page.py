"""A comparison of methods as files to keep: a self-contained HTML page, Markdown, LaTeX tables, a plot.

In: `CompareResults`.  Out: `results.json`, `report.html`, `compare.md`, `compare.tex`, `compare.svg` in a folder.
Cost: a second; needs the extra `report`.
"""

from __future__ import annotations

from pathlib import Path

from armorm.disk import write_json, write_text
from armorm.report.compare_plot import COLOURS, colour_of, compare_plot, with_variables
from armorm.report.compare_results import CompareResults
from armorm.report.comparison import FAMILIES, compare_report
from armorm.report.html import render_html
from armorm.report.latex import render_latex
from armorm.report.markdown import render_markdown
from armorm.report.plots import Figure, standalone

_TEMPLATE = "compare_page.html.jinja"


def write_compare(results: CompareResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent), the facts first; without a scored method there is no plot.

    Raises `MissingExtra` without jinja2 or matplotlib, `StorageError` where a file can't be written.
    """
    write_json(folder / "results.json", results.to_json())
    figure, report = compare_plot(results), compare_report(results)
    if figure is not None:
        write_text(folder / "compare.svg", standalone(figure))
    write_text(folder / "compare.md", render_markdown(report, picture="compare.svg" if figure else ""))
    write_text(folder / "compare.tex", render_latex(report, "compare"))
    write_text(folder / "report.html", _page(results, figure))


def render_compare_page(results: CompareResults) -> str:
    """The page as text; the same results give the same page."""
    return _page(results, compare_plot(results))


def _page(results: CompareResults, figure: Figure | None) -> str:
    report = compare_report(results)
    suites, others = report.grids[: len(results.suites)], report.grids[len(results.suites) :]
    return render_html(
        _TEMPLATE,
        name=results.name,
        report=report,
        suites=suites,
        others=others,
        figure=with_variables(figure) if figure else None,
        colours=COLOURS,
        families={family: colour_of(family) for family in FAMILIES},
        contents=[
            *([("plot", "Overall")] if figure else []),
            *((f"suite-{place}", grid.title) for place, grid in enumerate(suites, start=1)),
            *((grid.name, grid.title) for grid in others if not grid.detail),
            *([("notes", "Notes")] if report.notes else []),
        ],
    )

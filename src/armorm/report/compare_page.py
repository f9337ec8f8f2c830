"""A comparison of methods as files to keep: a self-contained HTML page, Markdown, LaTeX tables, a plot.

In: the results of a comparison as JSON values.  Out: `report.html`, `compare.md`, `compare.tex`, `compare.svg` in a folder.
Cost: a second; needs the extra `report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armorm.report.compare_latex import render_compare_latex
from armorm.report.compare_markdown import render_compare_markdown
from armorm.report.compare_plot import COLOURS, colour_of, compare_plot, with_variables
from armorm.report.comparison import comparison, drawn_references
from armorm.report.page import environment, write_page
from armorm.report.plots import Figure, standalone

__all__ = ["render_compare_latex", "render_compare_markdown", "render_compare_page", "write_compare"]

_TEMPLATE = "compare_page.html.jinja"


def write_compare(results: Mapping[str, Any], folder: Path) -> None:
    """Write all files into `folder` (made if absent); without a scored method there is no plot. Raises as `page.write_report`."""
    figure = compare_plot(results)
    if figure is not None:
        write_page(standalone(figure), folder / "compare.svg")
    write_page(render_compare_markdown(results, picture="compare.svg" if figure else ""), folder / "compare.md")
    write_page(render_compare_latex(results), folder / "compare.tex")
    write_page(_page(results, figure), folder / "report.html")


def render_compare_page(results: Mapping[str, Any]) -> str:
    """The page as text; the same results give the same page."""
    return _page(results, compare_plot(results))


def _page(results: Mapping[str, Any], figure: Figure | None) -> str:
    found = comparison(results)
    parts = {
        "found": found,
        "figure": with_variables(figure) if figure else None,
        "uprights": drawn_references(found),
        "colours": COLOURS,
        "colour_of": colour_of,
        "contents": [
            *([("plot", "Overall")] if figure else []),
            *((f"suite-{place}", grid.title) for place, grid in enumerate(found.suites, start=1)),
            *((grid.name, grid.title) for grid in found.others if not grid.detail),
            *([("notes", "Notes")] if found.notes else []),
        ],
    }
    return str(environment().get_template(_TEMPLATE).render(**parts)).lstrip()

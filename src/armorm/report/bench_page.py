"""A benchmark's results as one self-contained HTML page: sections, subsets, published numbers, what was left out.

In: `BenchResults`.  Out: `results.json`, `results.csv`, `report.html` in a folder.  Cost: a second; needs the extra `report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from armorm.bench.aggregate import Figure as Share
from armorm.bench.results import BenchResults
from armorm.disk import write_json, write_text
from armorm.report.bench_tables import bench_report, render_csv
from armorm.report.html import render_html
from armorm.report.plots import Figure, Panel, common_limits, dot_plot, drawn

_TEMPLATE = "bench_page.html.jinja"


def write_bench(results: BenchResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent), the facts first. Raises `MissingExtra`, `StorageError`."""
    write_json(folder / "results.json", results.to_json())
    write_text(folder / "results.csv", render_csv(results))
    write_text(folder / "report.html", render_bench_page(results))


def render_bench_page(results: BenchResults) -> str:
    """The page as text; the same results give the same page."""
    official = results.figures.official
    figures = {
        "sections": _plot({"overall": official.overall, **official.sections}, "Overall and sections", highlighted=[0]),
        "subsets": _plot(results.figures.subsets, "Subsets", highlighted=[]),
    }
    return render_html(_TEMPLATE, results=results, official=official.overall, report=bench_report(results), figures=figures)


def _plot(figures: Mapping[str, Share], title: str, *, highlighted: list[int]) -> Figure | None:
    cells = [drawn(one.interval) for one in figures.values()]
    if not any(cells):
        return None
    limits = common_limits(cells, include=[0.5], low=0.0, high=1.0)
    panel = Panel("accuracy", cells, 0.5, limits, percent=True)
    return dot_plot(list(figures), [panel], highlighted=highlighted, alt=f"{title}: accuracy with 95 % intervals")

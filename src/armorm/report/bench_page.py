"""A benchmark's results as one self-contained HTML page: sections, subsets, published numbers, what was left out.

In: results as plain JSON values.  Out: `report.html` in a folder.  Cost: a second; needs the extra `report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armorm.intervals import Interval
from armorm.report.numbers import interval
from armorm.report.page import environment, write_page
from armorm.report.plots import Figure, Panel, common_limits, dot_plot

_TEMPLATE = "bench_page.html.jinja"


def write_bench_page(results: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html` into `folder` and return its path. Raises as `page.write_report` does."""
    return write_page(render_bench_page(results), folder / "report.html")


def render_bench_page(results: Mapping[str, Any]) -> str:
    """The page as text; the same results give the same page."""
    aggregates = results["figures"]["aggregates"]
    official = next(iter(aggregates.values()))
    rows = {"overall": official["overall"], **official["sections"]}
    parts = {
        "results": results,
        "official": official,
        "variants": {name: one for name, one in aggregates.items() if one is not official},
        "sections": _plot(rows, "Overall and sections", highlighted=[0]),
        "subsets": _plot(results["figures"]["subsets"], "Subsets", highlighted=[]),
        "beside": [row for row in results["published"] if row["subsets"]],
        "published_sections": list(dict.fromkeys(s for row in results["published"] for s in row["sections"])),
    }
    return str(environment().get_template(_TEMPLATE).render(**parts)).lstrip()


def _plot(figures: Mapping[str, Mapping[str, Any]], title: str, *, highlighted: list[int]) -> Figure | None:
    cells: list[Interval | None] = [interval(one) for one in figures.values()]
    if not any(cells):
        return None
    limits = common_limits(cells, include=[0.5], low=0.0, high=1.0)
    panel = Panel("accuracy", cells, 0.5, limits, percent=True)
    return dot_plot(list(figures), [panel], highlighted=highlighted, alt=f"{title}: accuracy with 95 % intervals")

"""Histograms as one figure of small panels: ratings value by value or in bins, lengths on a logarithmic scale.

In: counts with their values or edges.  Out: a `Figure` in the manner of `plots`.  Cost: 0.1 s for four panels; needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from armorm.numbers import compact_count
from armorm.report.plots import ACCENT, RULE, SECOND, SOFT, Figure, inline, panel_grid, styled, title_of


@dataclass(frozen=True)
class Histogram:
    """One panel: `places` are the values (one a count) or the bins' edges (one more than counts).

    `low` and `high` are the axis' ends; `mark` is a dashed upright (a mean, a median).
    """

    title: str
    note: str
    places: Sequence[float]
    counts: Sequence[float]
    low: float
    high: float
    logarithmic: bool = False
    mark: float | None = None


@styled
def histograms(panels: Sequence[Histogram], *, alt: str) -> Figure:
    """Panels four in a line, each with its own axes; bars start at zero."""
    figure, grid = panel_grid(len(panels), height=1.15, left=0.45, gap=0.5)
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_title(title_of(panel.title, panel.note))
        if panel.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: compact_count(value))
            axes.xaxis.set_minor_formatter(lambda _value, _place: "")
        left, width = _bars(panel)
        axes.bar(left, panel.counts, width=width, align="edge", color=ACCENT, alpha=0.85, linewidth=0)
        axes.set_xlim(min(panel.low, left[0]), max(panel.high, left[-1] + width[-1]))
        axes.tick_params(axis="x", which="minor", length=0)
        axes.tick_params(axis="y", labelsize=8, labelcolor=SOFT)
        axes.locator_params(axis="y", nbins=3, integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: compact_count(value) or "0")
        axes.grid(axis="y", color=RULE, linewidth=0.6, alpha=0.5)
        axes.set_axisbelow(True)
        if panel.mark is not None:
            axes.axvline(panel.mark, color=SECOND, linewidth=1.2, dashes=(3, 2))
    return inline(figure, alt)


def _bars(panel: Histogram) -> tuple[list[float], list[float]]:
    """The bars' left ends and widths."""
    places = list(panel.places)
    if len(places) == len(panel.counts) + 1:
        return places[:-1], [high - low for low, high in pairwise(places)]
    steps = [high - low for low, high in pairwise(places)]
    width = 0.8 * min([*steps, (panel.high - panel.low) / 4 or 1.0])
    width = max(width, (panel.high - panel.low) / 60)  # or it would be a hair
    return [place - width / 2 for place in places], [width] * len(places)

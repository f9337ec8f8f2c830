"""The part of the page about uncertainty: how often intervals hold, and errors when close calls are left open.

In: results.json as a mapping.  Out: plain values for the template, None where the results lack the part.
Cost: one figure a part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from armorm.intervals import Interval
from armorm.report.numbers import interval, number
from armorm.report.plots import (
    ACCENT,
    RULE,
    SOFT,
    Figure,
    Panel,
    common_limits,
    dot_plot,
    inline,
    panel_grid,
    short,
    styled,
)


@dataclass(frozen=True)
class AbstentionPanel:
    """One suite: error rate (with its interval) by the share left open, by z in colour, by margin alone behind it."""

    title: str
    by_z: Sequence[tuple[float, Interval]]
    by_margin: Sequence[tuple[float, Interval]]


def uncertainty(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Coverage of each objective's intervals, and what they are made of."""
    part = (results.get("probe") or {}).get("uncertainty") or {}
    rows = part.get("objectives") or []
    if not rows:
        return None
    level = number(part.get("level")) or 0.95
    panels = []
    for key, title in (("coverage", "test prompts"), ("coverage_cross_validated", "over the folds")):
        cells = [interval(row.get(key)) for row in rows]
        if any(cells):
            limits = common_limits(cells, include=[level, 1.0], low=0.0, high=1.005)
            panels.append(Panel(title, cells, level, limits, percent=True, note="ratings inside, %"))
    figure = None
    if panels:
        names = [str(row.get("name")) for row in rows]
        figure = dot_plot(names, panels, highlighted=range(len(names)), alt="Coverage of rating intervals by objective")
    return {"level": level, "rows": rows, "overall": part.get("coverage"), "n_test": part.get("n_test"), "figure": figure}


def abstention(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Error rates by the share of pairs left open, one panel per suite."""
    suites = [one for one in results.get("abstention") or [] if one.get("n")]
    if not suites:
        return None
    panels = [AbstentionPanel(str(one.get("suite")), _points(one.get("by_z")), _points(one.get("by_margin"))) for one in suites]
    return {"suites": suites, "figure": abstention_plot(panels, alt="Error rate by share of pairs left open")}


def _points(raw: Any) -> list[tuple[float, Interval]]:
    found = []
    for point in raw or []:
        left_open, error = number(point.get("abstained")), interval(point.get("error"))
        if left_open is not None and error is not None:
            found.append((left_open, error))
    return found


@styled
def abstention_plot(panels: Sequence[AbstentionPanel], *, alt: str) -> Figure:
    """Error rate over the share left open, in per cent; the band is the 95 % interval of the coloured line."""
    figure, grid = panel_grid(len(panels), height=1.75, left=0.5, gap=0.6)
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_title(short(panel.title))
        axes.set_xlabel("left open, %", fontsize=8, labelpad=1)
        axes.tick_params(axis="y", labelsize=8, labelcolor=SOFT)
        axes.grid(axis="y", color=RULE, linewidth=0.6, alpha=0.5)
        axes.margins(x=0.02)
        for points, colour, width in ((panel.by_margin, SOFT, 1.1), (panel.by_z, ACCENT, 1.7)):
            shares, errors = [100 * share for share, _ in points], [100 * one.value for _, one in points]
            dashed = (0, (4, 2)) if colour == SOFT else "-"
            axes.plot(shares, errors, color=colour, linewidth=width, linestyle=dashed, zorder=3)
        known = [(s, one) for s, one in panel.by_z if math.isfinite(one.low) and math.isfinite(one.high)]
        axes.fill_between(
            [100 * share for share, _ in known],
            [100 * one.low for _, one in known],
            [100 * one.high for _, one in known],
            color=ACCENT,
            alpha=0.16,
            linewidth=0,
            zorder=2,
        )
        axes.set_ylim(bottom=0)
    return inline(figure, alt)

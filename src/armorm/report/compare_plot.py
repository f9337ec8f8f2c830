"""A comparison as one figure: a panel per suite, a row per method, dots with 95 % whiskers in their family's colour.

In: `CompareResults`.  Out: `Figure`, for a file (`plots.standalone`) or a page (`with_variables`).
Cost: about 0.1 s a panel; needs matplotlib (extra `report`).

The rows' family titles are the legend; the references stand as dashed lines across each panel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from armorm.intervals import Interval
from armorm.numbers import count, plain, shorten
from armorm.report.compare_results import ComparedSuite, CompareResults, MethodFacts
from armorm.report.comparison import by_family, family_title, methods_of, overall_values, part_of
from armorm.report.plots import (
    ACCENT,
    COLUMNS,
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
    styled,
    title_of,
)

COLOURS = {
    "ablation": ("#4f94cf", "#4a83bb"),
    "pairwise": ("#1c7a5e", "#5fc6a3"),
    "judge": ("#7648a8", "#b896e8"),
    "regression": ("#a63a74", "#e88fbd"),
}
"""Colours in light and dark pages of the families that have no colour in the page's own style."""

_PAGE = {"armorm": ACCENT, "bradley-terry": SECOND, "baseline": SOFT}
_ROW = 0.26  # inches
_LONGEST = 42  # characters of a row's name
_DASHES = ((0, (5, 3)), (0, (1.5, 1.5)))  # of the first and of every further reference


@dataclass(frozen=True)
class _Row:
    """A method, or a family's title over its methods; `backbone` where methods share a name."""

    text: str
    family: str
    method: str | None
    backbone: str = ""


def compare_plot(results: CompareResults) -> Figure | None:
    """The figure, families in their light colours; None where no method has a value."""
    suites = [(suite, values) for suite in results.suites if (values := overall_values(suite))]
    if not suites:
        return None
    scored = {name for _, values in suites for name in values}
    known = methods_of(results)
    rows = _rows([one for name, one in known.items() if name in scored])
    references = [known[name] for name in results.references if name in scored]
    return _panels(rows, suites, references, alt="Overall value of each method with its 95 % interval, by suite")


def with_variables(figure: Figure) -> Figure:
    """The figure for a page that sets `--family-NAME` for light and dark."""
    svg = figure.svg
    for family, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--family-{family})")
    return Figure(svg, figure.width)


def colour_of(family: str) -> str:
    """The CSS colour of a family in the page."""
    return f"var(--family-{family})" if family in COLOURS else PAGE_COLOURS[_PAGE.get(family, INK)][0]


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
        axes.set_title(title_of(plain(suite.title), _size(suite)))
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
                draw_whisker(axes, place, values[row.method], limits, _stand_in(row.family))
    return inline(figure, alt)


def _size(suite: ComparedSuite) -> str:
    n, part = count(suite.n), part_of(suite)
    return f"{n}{part} items" if part else f"all {n} items"


def _stand_in(family: str) -> str:
    return COLOURS[family][0] if family in COLOURS else _PAGE.get(family, INK)


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
    colour, weight = (_stand_in(row.family), "bold") if title else (INK, "normal")
    raised = 0.17 if row.backbone else 0.0
    axes.text(-0.02, place - raised, shorten(row.text, _LONGEST), color=colour, fontweight=weight, fontsize=8, **look)
    if row.backbone:
        axes.text(-0.02, place + 0.3, shorten(row.backbone, _LONGEST), color=SOFT, fontsize=6, **look)

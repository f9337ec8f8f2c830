"""Figures of the report as inline SVG: intervals, dumbbells, heat maps, learning curves, histograms.

In: names and numbers.  Out: `Figure`, an SVG string without ids, dates or colours of its own: colours are the page's
CSS variables (so one figure serves light and dark), text stays text in the page's font.
Cost: about 0.1 s a figure; needs matplotlib (extra `report`).

The same numbers give the same bytes.
"""

from __future__ import annotations

import functools
import html
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from armorm.data.summary import Bins
from armorm.errors import MissingExtra
from armorm.intervals import Interval
from armorm.numbers import compact_count, shorten
from armorm.report.tables import has_value

# Stand-ins for the page's colours, in which matplotlib draws (plots.mplstyle too); `inline` writes the page's variables for them.
INK, SOFT, RULE = "#101112", "#505152", "#a0a1a2"
ACCENT, SECOND = "#1f5fa8", "#b8560f"
ON_ACCENT, SURFACE = "#f0f1f2", "#fdfcfb"
FAMILY_COLOURS = {
    "ablation": ("#4f94cf", "#4a83bb"),
    "pairwise": ("#1c7a5e", "#5fc6a3"),
    "judge": ("#7648a8", "#b896e8"),
    "regression": ("#a63a74", "#e88fbd"),
}
"""Colours in light and dark pages of the families of methods that have no colour in the page's own style."""

PAGE_COLOURS = {  # by stand-in: the page's variable, and its value in light pages
    INK: ("var(--ink)", "#1c1e21"),
    SOFT: ("var(--soft)", "#5b6068"),
    RULE: ("var(--rule)", "#c4c8ce"),
    ACCENT: ("var(--accent)", "#1d5fa6"),
    SECOND: ("var(--second)", "#b9540d"),
    ON_ACCENT: ("var(--on-accent)", "#ffffff"),
    SURFACE: ("var(--surface)", "#ffffff"),
    **{light: (f"var(--family-{family})", light) for family, (light, _) in FAMILY_COLOURS.items()},
}
_STYLE = Path(__file__).with_name("plots.mplstyle")
_WIDTH = 10.4  # inches; a full-width figure
_ROW = 0.235  # inches of one named row
_ABOVE, _BELOW = 0.44, 0.34  # inches for a panel's title and its ticks
COLUMNS = 4  # panels in a line
_LONGEST = 34  # characters of a row's name
_LONGEST_TITLE = 29  # characters over a quarter-width panel

_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")


@dataclass(frozen=True)
class Figure:
    """An SVG for the page and its natural width in CSS pixels."""

    svg: str
    width: int


@dataclass(frozen=True)
class Panel:
    """One column of a dot plot: an interval (or nothing) for each row; the note is the title's second line.

    The axis shows the intervals, the dashed `reference` and `include`, and never more than `within`.
    """

    title: str
    intervals: Sequence[Interval | None]
    reference: float
    within: tuple[float, float]
    include: Sequence[float] = ()
    percent: bool = False
    note: str = ""


@dataclass(frozen=True)
class Dumbbells:
    """One column of a before-and-after plot: two numbers for each row, which may be undefined."""

    title: str
    note: str
    before: Sequence[float]
    after: Sequence[float]


@dataclass(frozen=True)
class Curve:
    """One run's numbers over its steps; only the highlighted run is drawn in colour."""

    steps: Sequence[float]
    values: Sequence[float]
    highlighted: bool
    dashed: bool = False


@dataclass(frozen=True)
class CurvePanel:
    title: str
    curves: Sequence[Curve]
    marked_step: float | None = None


@dataclass(frozen=True)
class Histogram:
    """One panel: `low` and `high` are the axis' ends; `mark` is a dashed upright (a mean, a median)."""

    title: str
    note: str
    bins: Bins
    low: float
    high: float
    mark: float
    logarithmic: bool = False


def styled(draw: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """Draw with this module's style and nobody else's."""

    @functools.wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Drawn:
        try:
            import matplotlib.style
        except ImportError as missing:
            raise MissingExtra("the report", "matplotlib", "report") from missing
        with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # measured in one font, shown in the page's
            return draw(*args, **kwargs)

    return drawn


@styled
def dot_plot(
    rows: Sequence[str], panels: Sequence[Panel], *, alt: str, highlighted: Sequence[int] | None = None, shared: bool = False
) -> Figure | None:
    """Rows of dots with 95 % whiskers, one panel per measure that has any value; None without one.

    Highlighted rows (all, unless they are given) are drawn in the accent colour. `shared`: one scale for all panels.
    """
    shown = [panel for panel in panels if any(map(has_value, panel.intervals))]
    if not shown:
        return None
    figure, grid = panel_grid(len(shown), height=_ROW * len(rows), left=_name_width(rows))
    every = [one for panel in shown for one in panel.intervals]
    for place, (axes, panel) in enumerate(zip(grid, shown, strict=True)):
        _rows_axis(axes, rows, named=place % COLUMNS == 0)
        axes.set_title(title_of(panel.title, panel.note))
        limits = common_limits(every if shared else panel.intervals, (panel.reference, *panel.include), panel.within)
        axes.set_xlim(*limits)
        axes.axvline(panel.reference, color=SOFT, linewidth=0.9, dashes=(3, 3))
        if panel.percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        for row, interval in enumerate(panel.intervals):
            if has_value(interval):
                draw_whisker(axes, row, interval, limits, ACCENT if highlighted is None or row in highlighted else SOFT)
    return inline(figure, alt)


@styled
def dumbbell_plot(rows: Sequence[str], panels: Sequence[Dumbbells], *, alt: str) -> Figure:
    """Rows of two dots joined by a line: hollow before, filled after; zero is marked; one scale for all panels."""
    numbers = [n for panel in panels for side in (panel.before, panel.after) for n in side if math.isfinite(n)]
    reach = 1.08 * max([0.1, *(abs(number) for number in numbers)])
    figure, grid = panel_grid(len(panels), height=_ROW * len(rows), left=_name_width(rows))
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        _rows_axis(axes, rows, named=place % COLUMNS == 0)
        axes.set_title(title_of(panel.title, panel.note))
        axes.set_xlim(-reach, reach)
        axes.axvline(0.0, color=SOFT, linewidth=0.9)
        for row, (before, after) in enumerate(zip(panel.before, panel.after, strict=True)):
            if not math.isfinite(before + after):
                continue
            axes.plot([before, after], [row, row], color=SECOND, linewidth=1.4, alpha=0.55, zorder=2)
            axes.plot([before], [row], "o", markersize=5.5, color=SURFACE, markeredgecolor=SECOND, zorder=3)
            axes.plot([after], [row], "o", markersize=5.5, color=ACCENT, zorder=4)
    return inline(figure, alt)


@styled
def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    *,
    alt: str,
    most: float | None = None,
) -> Figure:
    """A grid of cells: `values` colour them, the largest (or `most`) fully, 0 not at all; `texts` are written in them."""
    from matplotlib.patches import Rectangle

    most = most or max((abs(value) for line in values for value in line), default=0.0) or 1.0
    left, slanted = _name_width(rows), _name_width(columns)
    top, overhang = 0.12 + 0.62 * slanted, 0.79 * slanted  # the column names lean at 38°
    width = min(_WIDTH, left + 0.62 * len(columns) + overhang)
    height = 1.12 * _ROW * len(rows)
    figure = _canvas(width, height + top + 0.08)
    axes = _axes(figure, left, 0.08, width - left - overhang, height)
    _rows_axis(axes, rows, named=True, guides=False)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_xticks(range(len(columns)), [shorten(name, _LONGEST) for name in columns], rotation=38, ha="left")
    axes.tick_params(axis="x", length=0, pad=2, labeltop=True, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    for row, (cells, words) in enumerate(zip(values, texts, strict=True)):
        for column, (value, word) in enumerate(zip(cells, words, strict=True)):
            shade = abs(value) / most
            place = (column - 0.47, row - 0.46)
            axes.add_patch(Rectangle(place, 0.94, 0.92, facecolor=RULE, alpha=0.22, linewidth=0))
            if shade > 0:
                axes.add_patch(Rectangle(place, 0.94, 0.92, facecolor=ACCENT, alpha=0.1 + 0.9 * shade, linewidth=0))
            colour = ON_ACCENT if shade > 0.55 else INK
            axes.text(column, row, word, ha="center", va="center", fontsize=7.5, color=colour)
    return inline(figure, alt)


@styled
def learning_curves(panels: Sequence[CurvePanel], *, alt: str) -> Figure:
    """Curves over training steps, one panel per measure; other runs stay in the background."""
    chosen = {"color": ACCENT, "linewidth": 1.7, "alpha": 1.0, "zorder": 3}
    others = {"color": SOFT, "linewidth": 1.0, "alpha": 0.55, "zorder": 2}
    figure, grid = curve_grid([panel.title for panel in panels], "step")
    for axes, panel in zip(grid, panels, strict=True):
        if panel.marked_step is not None:
            axes.axvline(panel.marked_step, color=SOFT, linewidth=0.9, dashes=(3, 3))
        for curve in panel.curves:
            look = chosen if curve.highlighted else others
            axes.plot(curve.steps, curve.values, linestyle=(0, (4, 2)) if curve.dashed else "-", **look)
    return inline(figure, alt)


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
        left, width = _bar_places(panel)
        axes.bar(left, panel.bins.counts, width=width, align="edge", color=ACCENT, alpha=0.85, linewidth=0)
        axes.set_xlim(min(panel.low, left[0]), max(panel.high, left[-1] + width[-1]))
        axes.tick_params(axis="x", which="minor", length=0)
        axes.tick_params(axis="y", labelsize=8, labelcolor=SOFT)
        axes.locator_params(axis="y", nbins=3, integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: compact_count(value) or "0")
        axes.grid(axis="y", color=RULE, linewidth=0.6, alpha=0.5)
        axes.set_axisbelow(True)
        axes.axvline(panel.mark, color=SECOND, linewidth=1.2, dashes=(3, 2))
    return inline(figure, alt)


def curve_grid(titles: Sequence[str], across: str) -> tuple[Any, list[Any]]:
    """A figure with a panel for curves under each title; `across` is what their steps are."""
    figure, grid = panel_grid(len(titles), height=1.75, left=0.5, gap=0.6)
    for axes, title in zip(grid, titles, strict=True):
        axes.set_title(shorten(title, _LONGEST))
        axes.set_xlabel(across, fontsize=8, labelpad=1)
        axes.tick_params(axis="y", labelsize=8, labelcolor=SOFT)
        axes.grid(axis="y", color=RULE, linewidth=0.6, alpha=0.5)
        axes.margins(x=0.02)
    return figure, grid


def common_limits(
    intervals: Sequence[Interval | None], include: Sequence[float], within: tuple[float, float]
) -> tuple[float, float]:
    """Limits that hold every interval and `include`, inside `within`, with a little air."""
    ends = [end for one in intervals if has_value(one) for end in (one.low, one.high, one.value) if math.isfinite(end)]
    ends += include
    air = 0.03 * (max(ends) - min(ends) or 1.0)
    return max(within[0], min(ends) - air), min(within[1], max(ends) + air)


def draw_whisker(axes: Any, row: int, interval: Interval, limits: tuple[float, float], colour: str) -> None:
    """A dot with its interval; an arrow on the edge of the panel says that the value lies beyond it."""
    axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=1.7, alpha=0.75, zorder=2)  # NaN ends: no line
    inside = min(max(interval.value, limits[0]), limits[1])
    marker = "o" if inside == interval.value else "<" if inside > interval.value else ">"
    clip = marker == "o"
    axes.plot([inside], [row], marker, markersize=5.2, color=colour, markeredgecolor=SURFACE, clip_on=clip, zorder=3)


def _bar_places(panel: Histogram) -> tuple[list[float], list[float]]:
    """The bars' left ends and widths."""
    places = panel.bins.values or panel.bins.edges
    steps = [high - low for low, high in pairwise(places)]
    if not panel.bins.values:
        return list(places[:-1]), steps
    width = 0.8 * min([*steps, (panel.high - panel.low) / 4 or 1.0])
    width = max(width, (panel.high - panel.low) / 60)  # or it would be a hair
    return [place - width / 2 for place in places], [width] * len(places)


def _rows_axis(axes: Any, rows: Sequence[str], *, named: bool, guides: bool = True) -> None:
    axes.set_ylim(len(rows) - 0.45, -0.55)
    if named:
        axes.set_yticks(range(len(rows)), [shorten(name, _LONGEST) for name in rows])
    else:
        axes.set_yticks([])
    if guides:
        axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color=RULE, linewidth=0.6, alpha=0.45)


def title_of(title: str, note: str) -> str:
    lines = [shorten(one, _LONGEST_TITLE) for one in (title, note) if one]
    return "\n".join(lines)


def _name_width(names: Sequence[str]) -> float:
    """Inches that the longest name takes, with room for a wide font."""
    return 0.15 + 0.074 * max((len(shorten(name, _LONGEST)) for name in names), default=0)


def panel_grid(count: int, *, height: float, left: float, gap: float = 0.22) -> tuple[Any, list[Any]]:
    """A figure of `count` equal panels, at most four in a line; all lengths in inches."""
    columns = min(count, COLUMNS)
    lines = -(-count // columns)
    width = _WIDTH if columns > 1 else 0.68 * _WIDTH
    line = _ABOVE + height + _BELOW
    each = (width - left - gap * (columns - 1) - 0.12) / columns
    figure = _canvas(width, lines * line)
    return figure, [
        _axes(figure, left + (place % columns) * (each + gap), (lines - 1 - place // columns) * line + _BELOW, each, height)
        for place in range(count)
    ]


def _canvas(width: float, height: float) -> Any:
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height))


def _axes(figure: Any, x: float, y: float, width: float, height: float) -> Any:
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes((x / whole_width, y / whole_height, width / whole_width, height / whole_height))


def standalone(figure: Figure) -> str:
    """A figure as an SVG file of its own, in the page's light colours, for documents that take pictures by reference."""
    opening, _, body = figure.svg.partition(">")
    for variable, colour in (*PAGE_COLOURS.values(), ("var(--sans)", "system-ui, sans-serif")):
        body = body.replace(variable, colour)
    size = opening[opening.index("viewBox") :].split('"')[1].split()[2:]
    ground = f'<rect width="{size[0]}" height="{size[1]}" fill="{PAGE_COLOURS[SURFACE][1]}"/>'
    named = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif"', 1)
    return f"{named}>{ground}{body}\n"


def inline(figure: Any, alt: str) -> Figure:
    """Write the figure as an SVG element that can stand in a page beside others."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": alt}):  # ids differ between figures, not between runs
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    head, _, body = svg[svg.index("<svg") :].partition(">")
    view_box = head[head.index("viewBox") :].split('"')[1]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL).replace("xlink:href=", "href=")
    referenced = set(re.findall(r'(?:href="|url\()#([\w-]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referenced else "", body)
    body = re.sub(r"font: ((?:\d+ )?[\d.]+px) [^;\"]*", r"font: \1 var(--sans)", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for stand_in, (variable, _) in PAGE_COLOURS.items():
        body = body.replace(stand_in, variable)
    opening = f'<svg viewBox="{view_box}" role="img" aria-label="{html.escape(alt)}">'
    return Figure(opening + body.strip(), round(96 * figure.get_figwidth()))

"""Figures of the report as inline SVG: intervals, dumbbells, heat maps, learning curves.

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
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from armorm.errors import MissingExtra
from armorm.intervals import Interval
from armorm.numbers import shorten

# Stand-ins that matplotlib writes and `inline` replaces with the page's variables.
INK, SOFT, RULE, ACCENT, SECOND, ON_ACCENT, SURFACE = (
    "#101112",
    "#505152",
    "#a0a1a2",
    "#1f5fa8",
    "#b8560f",
    "#f0f1f2",
    "#fdfcfb",
)
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    ON_ACCENT: "var(--on-accent)",
    SURFACE: "var(--surface)",
}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are data: a dollar sign is a dollar sign
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.titlesize": 9.0,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 9.0,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.8,
    "lines.solid_capstyle": "round",
}
_WIDTH = 10.4  # inches; a full-width figure
_ROW = 0.235  # inches of one named row
_ABOVE, _BELOW = 0.44, 0.34  # inches for a panel's title and its ticks
_COLUMNS = 4  # panels in a line
LONGEST = 34  # characters of a row's name
_LONGEST_TITLE = 29  # characters over a quarter-width panel

_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True)
class Figure:
    """An SVG for the page and its natural width in CSS pixels."""

    svg: str
    width: int


@dataclass(frozen=True)
class Panel:
    """One column of a dot plot: an interval (or nothing) for each row; the note is the title's second line."""

    title: str
    intervals: Sequence[Interval | None]
    reference: float | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    percent: bool = False
    note: str = ""


@dataclass(frozen=True)
class Dumbbells:
    """One column of a before-and-after plot: two numbers (or nothing) for each row."""

    title: str
    note: str
    before: Sequence[float | None]
    after: Sequence[float | None]


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
    curves: Sequence[Curve] = field(default_factory=list)
    marked_step: float | None = None


def styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draw with this module's style and nobody else's."""

    @functools.wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        try:
            import matplotlib.style
        except ImportError as missing:
            raise MissingExtra("the report", "matplotlib", "report") from missing
        with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # measured in one font, shown in the page's
            return draw(*args, **kwargs)

    return drawn


@styled
def dot_plot(rows: Sequence[str], panels: Sequence[Panel], *, highlighted: Sequence[int], alt: str) -> Figure:
    """Rows of dots with 95 % whiskers, one panel per measure; highlighted rows are drawn in the accent colour."""
    figure, grid = panel_grid(len(panels), height=_ROW * len(rows), left=_name_width(rows))
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        _rows_axis(axes, rows, named=place % _COLUMNS == 0)
        axes.set_title(title_of(panel.title, panel.note))
        axes.set_xlim(*panel.limits)
        if panel.reference is not None:
            axes.axvline(panel.reference, color=SOFT, linewidth=0.9, dashes=(3, 3))
        if panel.percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        for row, interval in enumerate(panel.intervals):
            if interval is not None:
                _whisker(axes, row, interval, panel.limits, ACCENT if row in highlighted else SOFT)
    return inline(figure, alt)


@styled
def dumbbell_plot(rows: Sequence[str], panels: Sequence[Dumbbells], *, alt: str) -> Figure:
    """Rows of two dots joined by a line: hollow before, filled after; zero is marked; one scale for all panels."""
    numbers = [n for panel in panels for side in (panel.before, panel.after) for n in side if n is not None]
    reach = 1.08 * max([0.1, *(abs(number) for number in numbers)])
    figure, grid = panel_grid(len(panels), height=_ROW * len(rows), left=_name_width(rows))
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        _rows_axis(axes, rows, named=place % _COLUMNS == 0)
        axes.set_title(title_of(panel.title, panel.note))
        axes.set_xlim(-reach, reach)
        axes.axvline(0.0, color=SOFT, linewidth=0.9)
        for row, (before, after) in enumerate(zip(panel.before, panel.after, strict=True)):
            if before is None or after is None:
                continue
            axes.plot([before, after], [row, row], color=SECOND, linewidth=1.4, alpha=0.55, zorder=2)
            axes.plot([before], [row], "o", markersize=5.5, color=SURFACE, markeredgecolor=SECOND, zorder=3)
            axes.plot([after], [row], "o", markersize=5.5, color=ACCENT, zorder=4)
    return inline(figure, alt)


@styled
def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    shades: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    *,
    alt: str,
) -> Figure:
    """A grid of cells: `shades` in [0, 1] colour them, `texts` are written in them; 0 leaves a cell empty."""
    from matplotlib.patches import Rectangle

    left, slanted = _name_width(rows), _name_width(columns)
    top, overhang = 0.12 + 0.62 * slanted, 0.79 * slanted  # the column names lean at 38°
    width = min(_WIDTH, left + 0.62 * len(columns) + overhang)
    height = 1.12 * _ROW * len(rows)
    figure = _canvas(width, height + top + 0.08)
    axes = _axes(figure, left, 0.08, width - left - overhang, height)
    _rows_axis(axes, rows, named=True, guides=False)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_xticks(range(len(columns)), [shorten(name, LONGEST) for name in columns], rotation=38, ha="left")
    axes.tick_params(axis="x", length=0, pad=2, labeltop=True, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    for row, (cells, words) in enumerate(zip(shades, texts, strict=True)):
        for column, (shade, word) in enumerate(zip(cells, words, strict=True)):
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
    figure, grid = panel_grid(len(panels), height=1.75, left=0.5, gap=0.6)
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_title(shorten(panel.title, LONGEST))
        axes.set_xlabel("step", fontsize=8, labelpad=1)
        axes.tick_params(axis="y", labelsize=8, labelcolor=SOFT)
        axes.grid(axis="y", color=RULE, linewidth=0.6, alpha=0.5)
        axes.margins(x=0.02)
        if panel.marked_step is not None:
            axes.axvline(panel.marked_step, color=SOFT, linewidth=0.9, dashes=(3, 3))
        for curve in panel.curves:
            axes.plot(
                curve.steps,
                curve.values,
                color=ACCENT if curve.highlighted else SOFT,
                linewidth=1.7 if curve.highlighted else 1.0,
                alpha=1.0 if curve.highlighted else 0.55,
                linestyle=(0, (4, 2)) if curve.dashed else "-",
                zorder=3 if curve.highlighted else 2,
            )
    return inline(figure, alt)


def common_limits(
    intervals: Sequence[Interval | None], *, include: Sequence[float], low: float, high: float
) -> tuple[float, float]:
    """Limits that hold every interval and `include`, inside [low, high], with a little air."""
    ends = [end for one in intervals if one is not None for end in (one.low, one.high, one.value) if math.isfinite(end)]
    ends += include
    air = 0.03 * (max(ends) - min(ends) or 1.0)
    return max(low, min(ends) - air), min(high, max(ends) + air)


def _whisker(axes: Any, row: int, interval: Interval, limits: tuple[float, float], colour: str) -> None:
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=1.7, alpha=0.75, zorder=2)
    inside = min(max(interval.value, limits[0]), limits[1])
    marker = "o" if inside == interval.value else "<" if inside > interval.value else ">"
    clip = marker == "o"  # an arrow on the edge says that the value lies beyond it
    axes.plot([inside], [row], marker, markersize=5.2, color=colour, markeredgecolor=SURFACE, clip_on=clip, zorder=3)


def _rows_axis(axes: Any, rows: Sequence[str], *, named: bool, guides: bool = True) -> None:
    axes.set_ylim(len(rows) - 0.45, -0.55)
    if named:
        axes.set_yticks(range(len(rows)), [shorten(name, LONGEST) for name in rows])
    else:
        axes.set_yticks([])
    if guides:
        axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color=RULE, linewidth=0.6, alpha=0.45)


def drawn(one: Interval | None) -> Interval | None:
    """What a plot shows: an interval that has a value."""
    return one if one is not None and math.isfinite(one.value) else None


def title_of(title: str, note: str) -> str:
    lines = [shorten(one, _LONGEST_TITLE) for one in (title, note) if one]
    return "\n".join(lines)


def _name_width(names: Sequence[str]) -> float:
    """Inches that the longest name takes, with room for a wide font."""
    return 0.15 + 0.074 * max((len(shorten(name, LONGEST)) for name in names), default=0)


def panel_grid(count: int, *, height: float, left: float, gap: float = 0.22) -> tuple[Any, list[Any]]:
    """A figure of `count` equal panels, at most four in a line; all lengths in inches."""
    columns = min(count, _COLUMNS)
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
    for variable, colour in _LIGHT.items():
        body = body.replace(variable, colour)
    size = opening[opening.index("viewBox") :].split('"')[1].split()[2:]
    ground = f'<rect width="{size[0]}" height="{size[1]}" fill="{_LIGHT["var(--surface)"]}"/>'
    named = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif"', 1)
    return f"{named}>{ground}{body}\n"


_LIGHT = {
    "var(--ink)": "#1c1e21",
    "var(--soft)": "#5b6068",
    "var(--rule)": "#c4c8ce",
    "var(--accent)": "#1d5fa6",
    "var(--second)": "#b9540d",
    "var(--on-accent)": "#ffffff",
    "var(--surface)": "#ffffff",
    "var(--sans)": "system-ui, sans-serif",
}


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
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, variable)
    opening = f'<svg viewBox="{view_box}" role="img" aria-label="{html.escape(alt)}">'
    return Figure(opening + body.strip(), round(96 * figure.get_figwidth()))

"""Pages: templates filled with results, everything escaped, in one file that opens anywhere, offline, light or dark.

In: a template's name and what it shows; numbers by name.  Out: the page as text; bars with their widths in per cent (levels
from the left, terms of a sum to either side of the middle).  Cost: some milliseconds; needs jinja2 (extra `report`).

Names, prompts and answers are hostile text: everything is escaped by the templates' autoescape, the only markup let through is
the figures', and every page forbids scripts and requests by its content security policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from armorm import numbers
from armorm.errors import MissingExtra
from armorm.numbers import Written

_SEEN, _FEW = 0.005, 2
_FILTERS = ("decimal", "signed", "general", "percent", "points", "share_ends", "count", "counts", "duration", "plain")
"""Functions of `numbers` that templates use."""


def render_html(template: str, **parts: Any) -> str:
    """A page; the same parts give the same bytes. Raises `MissingExtra` without jinja2."""
    return str(_environment().get_template(template).render(**parts)).lstrip()


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as missing:
        raise MissingExtra("the report", "jinja2", "report") from missing
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(numbers, name) for name in _FILTERS})
    return environment


# -- bars -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """A number as a bar from the left; the chosen one is drawn in colour."""

    name: str
    value: str
    width: float
    chosen: bool


@dataclass(frozen=True)
class Bar:
    """One term of a sum; `title` is shown when it is pointed at, `kind` beside the name."""

    name: str
    value: float
    title: str = ""
    kind: str = ""
    share: float | None = None
    width: float = 0.0


def level_bars(values: Mapping[str, float], write: Written, *, chosen: str = "") -> list[Level]:
    """Levels on one scale."""
    most = max(values.values(), default=0.0) or 1.0
    return [Level(name, write(value), round(100 * max(value, 0.0) / most, 2), name == chosen) for name, value in values.items()]


def term_bars(columns: Sequence[Sequence[Bar]]) -> list[list[Bar]]:
    """Sums side by side: one scale for all, and the same terms in the first one's order, so that rows can be compared across.

    Terms whose bar can't be seen in any column become one bar; a few are left where they are.
    """
    order = {bar.name: place for place, bar in enumerate(columns[0])} if columns else {}
    reach = max((abs(bar.value) for column in columns for bar in column), default=0.0) or 1.0
    large = {bar.name for column in columns for bar in column if abs(bar.value) >= _SEEN * reach}
    if len(order) - len(large) <= _FEW:
        large = set(order)
    drawn = []
    for column in columns:
        shown, small = ([bar for bar in column if (bar.name in large) == seen] for seen in (True, False))
        shown.sort(key=lambda bar: order.get(bar.name, len(order)))
        if small:
            shares = [bar.share for bar in small if bar.share is not None]
            share = math.fsum(shares) if len(shares) == len(small) else None
            shown.append(Bar(f"{len(small)} smaller terms", math.fsum(bar.value for bar in small), share=share))
        drawn.append([replace(bar, width=round(50 * abs(bar.value) / reach, 2)) for bar in shown])
    return drawn

"""Tables of plain text, before anyone has chosen between terminal, Markdown, LaTeX and HTML.

In: numbers and names.  Out: `Grid`s of `Cell`s, a `Report` of them: raw text, which whoever renders it escapes.  Cost: none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from armorm.intervals import Interval
from armorm.numbers import DASH, Written, ends, hundredths, p_value, points, share, share_ends

Tone = Literal["", "good", "bad"]
"""A colour where there are colours: as it should be, or not."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what goes in small type under or behind it, whether it is the best of its column, its colour."""

    text: str = DASH
    small: str = ""
    bold: bool = False
    tone: Tone = ""


Row = Sequence[str | Cell]
"""What `grid` takes as a row."""


@dataclass(frozen=True)
class Block:
    """Rows under one title (often none). `family` is a key of the page's colours, "published", or "".

    `subject` is the row that the table is about, where there is one.
    """

    title: str
    rows: Sequence[Sequence[Cell]]
    family: str = ""
    subject: int | None = None


@dataclass(frozen=True)
class Grid:
    """A table. The columns at the places in `words` hold words, the others numbers. `detail`: for readers who unfold it."""

    name: str
    title: str
    lead: str
    head: Sequence[Cell]
    blocks: Sequence[Block]
    remarks: Sequence[str] = ()
    words: Sequence[int] = (0,)
    detail: bool = False

    @property
    def rows(self) -> list[Sequence[Cell]]:
        """The rows of all blocks."""
        return [row for block in self.blocks for row in block.rows]


@dataclass(frozen=True)
class Report:
    """Everything to show: facts about where it comes from, sentences, what a picture shows and its caption, tables, notes."""

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    alt: str = ""
    caption: str = ""
    grids: Sequence[Grid] = ()
    notes: Sequence[str] = ()

    def __getitem__(self, name: str) -> Grid:
        """The table of this name."""
        return next(grid for grid in self.grids if grid.name == name)

    def __contains__(self, name: str) -> bool:
        return any(grid.name == name for grid in self.grids)


def grid(
    name: str,
    title: str,
    head: Iterable[str | Cell],
    rows: Iterable[Row],
    *,
    lead: str = "",
    remarks: Sequence[str] = (),
    words: Sequence[int] = (0,),
    detail: bool = False,
) -> Grid:
    """A table of one block; texts become cells."""
    lines = [[_cell(one) for one in row] for row in rows]
    return Grid(name, title, lead, [_cell(one) for one in head], [Block("", lines)], remarks, words, detail)


def facts_grid(name: str, title: str, facts: Mapping[str, str]) -> Grid:
    """Facts by name, one a row."""
    return grid(name, title, ("what", "value"), facts.items(), words=(0, 1))


def estimate(one: Interval | None, write: Written = hundredths) -> Cell:
    """A number with its interval."""
    return Cell(write(one.value), ends(one, write)) if has_value(one) else Cell()


def share_of(one: Interval | None) -> Cell:
    """A share in per cent with its interval."""
    return Cell(share(one.value), share_ends(one)) if has_value(one) else Cell()


def difference(one: Interval | None, p: float | None) -> tuple[Cell, Cell]:
    """A difference of shares in points with its interval, and its p."""
    return estimate(one, points), Cell(p_value(p))


def has_value(one: Interval | None) -> TypeGuard[Interval]:
    """Whether there is a value."""
    return one is not None and math.isfinite(one.value)


def _cell(one: str | Cell) -> Cell:
    return Cell(one) if isinstance(one, str) else one

"""Tables → the terminal. What is in them is never read as markup.

In: `Report`s, `Grid`s.  Out: what rich prints.

What stands in small type goes behind the text where the terminal is wide enough, else under it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from armorm.numbers import plain
from armorm.report.tables import Cell, Grid, Report

_HEAD_WIDTH = 14  # characters before a column's title goes on in a new line
_NAME_WIDTH = 18  # columns that a name keeps in a crowded table
_STYLES = {"": "", "good": "green", "bad": "bold red"}


@dataclass(frozen=True)
class Shown:
    """A grid that rich can print."""

    grid: Grid

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield _table(self.grid, "\n" if _width(self.grid) > options.max_width else " ")


Part = Text | Shown


def terminal_parts(report: Report) -> Iterator[Part]:
    """Everything of a report but where it comes from, and the tables for readers who unfold them."""
    yield from map(Text, map(plain, report.sentences))
    yield from grid_parts([grid for grid in report.grids if not grid.detail])
    yield from (Text(f"note: {plain(one)}") for one in report.notes)


def grid_parts(grids: Sequence[Grid]) -> Iterator[Part]:
    """Tables, each with what is said about it."""
    for grid in grids:
        yield Shown(grid)
        yield from (Text(plain(one), style="dim") for one in (grid.lead, *grid.remarks) if one)


def _table(grid: Grid, between: str) -> Table:
    title = Text(plain(grid.title), style="bold") if grid.title else None
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, cell in enumerate(grid.head):
        head = Text("\n".join(_lines(cell.text)))
        head.append(f"\n{plain(cell.small)}" if cell.small else "", style="not bold dim")
        if place in grid.words:
            longest = max((cell_len(row[place].text) for row in grid.rows), default=0)
            table.add_column(head, overflow="fold", min_width=min(longest, _NAME_WIDTH))  # an id that is cut short can't be used
        else:
            table.add_column(head, justify="right")
    for block in grid.blocks:
        if block.title:
            table.add_row(Text(plain(block.title), style="italic"))
        for row in block.rows:
            table.add_row(*(_text(cell, between) for cell in row), style="dim" if block.family == "published" else None)
        table.add_section()
    return table


def _lines(title: str) -> list[str]:
    return textwrap.wrap(plain(title), _HEAD_WIDTH, break_long_words=False)


def _text(cell: Cell, between: str) -> Text:
    text = Text(plain(cell.text), style=_STYLES[cell.tone] or ("bold" if cell.bold else ""))
    return text.append(f"{between}{plain(cell.small)}", style="not bold dim") if cell.small else text


def _width(grid: Grid) -> int:
    """Columns of the terminal that the table takes with the small type behind the text."""
    heads = [max([*map(cell_len, _lines(cell.text)), cell_len(cell.small)], default=0) for cell in grid.head]
    for row in grid.rows:
        for place, cell in enumerate(row):
            heads[place] = max(heads[place], cell_len(f"{cell.text} {cell.small}".rstrip()))
    return sum(heads) + 2 * len(heads) + 1  # a blank on either side of every column

"""`armorm compare`: results → tables for people.

In: the results of a comparison as JSON values.  Out: rich tables and lines of text.  Cost: none.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armorm.report.comparison import Cell, Grid, comparison

_HEAD_WIDTH = 14  # characters before a column's title goes on in a new line


def compare_tables(results: Mapping[str, Any]) -> list[Table | Text]:
    """Headlines, a table per suite, costs, position bias, probes, what was not run, notes; names are never read as markup."""
    found = comparison(results)
    parts: list[Table | Text] = [Text(f"{suite}: {said}") for suite, said in found.headlines]
    for grid in (*found.suites, *found.others):
        if not grid.detail:
            parts.append(_table(grid))
            parts += [Text(one, style="dim") for one in (grid.lead, *grid.remarks) if one]
    return [*parts, *(Text(f"note: {one}") for one in found.notes)]


def _table(grid: Grid) -> Table:
    table = Table(title=Text(grid.title, style="bold"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, cell in enumerate(grid.head):
        head = replace(cell, text="\n".join(textwrap.wrap(cell.text, _HEAD_WIDTH, break_long_words=False)))
        table.add_column(_text(head), justify="left" if place < grid.words else "right")
    for block in grid.blocks:
        if block.title:
            table.add_row(Text(block.title, style="italic"))
        for row in block.rows:
            table.add_row(*map(_text, row), style="dim" if block.family == "published" else None)
        table.add_section()
    return table


def _text(cell: Cell) -> Text:
    text = Text(cell.text, style="bold" if cell.bold else "")
    return text.append(f"\n{cell.small}", style="not bold dim") if cell.small else text

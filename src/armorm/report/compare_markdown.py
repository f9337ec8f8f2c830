"""A comparison → Markdown, for a repository's docs/results.

In: the results of a comparison as JSON values.  Out: one Markdown text: provenance, headlines, a table per suite, costs, notes.
Cost: none.

Names and notes may hold anything: what Markdown or HTML would read as markup is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from armorm.report.comparison import Cell, Grid, comparison, drawn_references

_MARKUP = re.compile(
    r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])"  # an underscore within a word is no emphasis
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # tags and character references
)
_FIRST = re.compile(r"^[>#+-]")  # what would make a line a quotation, a heading or a list


def render_compare_markdown(results: Mapping[str, Any], *, picture: str = "compare.svg") -> str:
    """All tables of a comparison; `picture` is the plot's place beside the file, "" for none."""
    found = comparison(results)
    head = "\n".join(f"- {name}: {_code(value) if name == 'command' else _text(value)}" for name, value in found.facts.items())
    parts = [f"# {_text(found.name)}: methods compared", head]
    if found.headlines:
        parts.append("\n".join(f"- {_text(suite)}: {_text(said)}" for suite, said in found.headlines))
        if picture:
            parts.append(f"![Overall value of each method with its 95 % interval]({picture})")
            parts.append(_text(drawn_references(found)))
    parts += [_grid(grid) for grid in (*found.suites, *found.others) if not grid.detail]
    if found.notes:
        parts.append("## Notes\n\n" + _listed(found.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(grid: Grid) -> str:
    parts = [f"## {_text(grid.title)}", _text(grid.lead), "\n".join(_lines(grid)), _listed(grid.remarks)]
    return "\n\n".join(part for part in parts if part)


def _lines(grid: Grid) -> Iterator[str]:
    yield _row([_cell(cell) for cell in grid.head])
    yield "|" + "".join("---|" if place < grid.words else "---:|" for place in range(len(grid.head)))
    for block in grid.blocks:
        if block.title:
            yield _row([f"*{_text(block.title)}*", *[""] * (len(grid.head) - 1)])
        yield from (_row([_cell(cell) for cell in row]) for row in block.rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = f"**{_text(cell.text)}**" if cell.bold else _text(cell.text)
    return f"{text} ({_text(cell.small)})" if cell.small else text


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {_FIRST.sub(_escaped, _text(one))}" for one in sentences)


def _text(text: str) -> str:
    return _MARKUP.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _code(text: str) -> str:
    """A code span whose fence is longer than any run of backticks in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    air = " " if "`" in text else ""
    return f"{fence}{air}{text}{air}{fence}"

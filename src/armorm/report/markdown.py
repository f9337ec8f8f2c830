"""A report → Markdown, for a repository's documents.

In: a `Report`.  Out: one Markdown text: provenance, sentences, the picture, a table per grid, notes.

Names and notes may hold anything: what Markdown or HTML would read as markup is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from armorm.numbers import plain
from armorm.report.tables import Cell, Grid, Report

_MARKUP = re.compile(
    r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])"  # an underscore within a word is no emphasis
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # tags and character references
)
_FIRST = re.compile(r"^[>#+-]")  # what would make a line a quotation, a heading or a list


def render_markdown(report: Report, *, picture: str = "") -> str:
    """All tables of a report but those for readers who unfold them; `picture` is the plot's place beside the file."""
    head = "\n".join(f"- {name}: {_code(value) if name == 'command' else _text(value)}" for name, value in report.facts.items())
    parts = [f"# {_text(report.title)}", head, _listed(report.sentences)]
    if picture:
        parts += [f"![{_text(report.alt)}]({picture})", _text(report.caption)]
    parts += [_grid(grid) for grid in report.grids if not grid.detail]
    if report.notes:
        parts.append("## Notes\n\n" + _listed(report.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(grid: Grid) -> str:
    parts = [f"## {_text(grid.title)}", _text(grid.lead), "\n".join(_lines(grid)), _listed(grid.remarks)]
    return "\n\n".join(part for part in parts if part)


def _lines(grid: Grid) -> Iterator[str]:
    yield _row([_cell(cell) for cell in grid.head])
    yield "|" + "".join("---|" if place in grid.words else "---:|" for place in range(len(grid.head)))
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
    return "\n".join(f"- {_FIRST.sub(_escape, _text(one))}" for one in sentences)


def _text(text: str) -> str:
    return _MARKUP.sub(_escape, plain(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _code(text: str) -> str:
    """A code span whose fence is longer than any run of backticks in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    air = " " if "`" in text else ""
    return f"{fence}{air}{plain(text)}{air}{fence}"

r"""A report → LaTeX tables with booktabs' rules, to be taken into a paper by \input.

In: a `Report`.  Out: one LaTeX text, a `table*` for every table.

A row takes two lines, the second in small type (its backbone, the intervals). Names may hold anything: what TeX would read as
a command is escaped, and the signs that pdfLaTeX's fonts lack are written as commands.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from armorm.numbers import plain
from armorm.report.tables import Block, Cell, Grid, Report

_HEAD_WIDTH = 13  # characters before a column's title goes on in a new line
_SIGNS = str.maketrans(json.loads(Path(__file__).with_name("latex_signs.json").read_text(encoding="utf-8")))
"""What is written for a sign. After a row's end a bracket or a star would be read as an option, so they stand in braces."""


def render_latex(report: Report, label: str) -> str:
    """All tables of a report but those for readers who unfold them, and its notes; needs booktabs (and T1 fonts for straight
    quotation marks). The tables' labels begin with `label`."""
    comments = [f"% {name}: {plain(value)}" for name, value in {label: report.title, **report.facts}.items()]
    comments.append(r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}")
    grids = [grid for grid in report.grids if not grid.detail]
    parts = ["\n".join(comments)]
    parts += ["\n".join(_table(grid, f"{label}-{place}")) for place, grid in enumerate(grids, start=1)]
    if report.notes:
        notes = "\n".join(f"  \\item {tex(note)}" for note in report.notes)
        parts.append(f"{{\\footnotesize\n\\begin{{itemize}}\n{notes}\n\\end{{itemize}}\n}}")
    return "\n\n".join(parts) + "\n"


def tex(text: str) -> str:
    """Text that TeX prints as it stands."""
    return plain(text).translate(_SIGNS)


def _table(grid: Grid, label: str) -> Iterator[str]:
    yield "\\begin{table*}[t]\n\\centering\n\\footnotesize\n\\setlength{\\tabcolsep}{4pt}"
    title = grid.title if grid.title.endswith((".", "?", "!")) else f"{grid.title}."
    yield f"\\caption{{{' '.join(tex(part) for part in (title, grid.lead) if part)}}}"
    yield f"\\label{{tab:{label}-{re.sub(r'[^a-z0-9]+', '-', grid.name.lower()).strip('-')}}}"
    yield f"\\begin{{tabular}}{{@{{}}{_columns(grid)}@{{}}}}\n\\toprule"
    yield _row([_stacked(cell.text, "l" if place in grid.words else "r") for place, cell in enumerate(grid.head)])
    yield from _small(grid.head)
    for block in grid.blocks:
        yield r"\midrule" if block is grid.blocks[0] or block.family == "published" else r"\midrule[\cmidrulewidth]"
        yield from _block(block, len(grid.head))
    yield "\\bottomrule\n\\end{tabular}"
    if grid.remarks:
        remarks = "\\\\\n".join(tex(one) for one in grid.remarks)
        yield f"\\par\\smallskip\n\\parbox{{\\linewidth}}{{\\scriptsize\n{remarks}}}"
    yield r"\end{table*}"


def _columns(grid: Grid) -> str:
    sides = ["l" if place in grid.words else "r" for place in range(len(grid.head))]
    if "r" not in sides:  # words alone: the last column wraps
        sides[-1] = r"p{0.6\linewidth}"
    return "".join(sides)


def _stacked(title: str, side: str) -> str:
    lines = [tex(line) for line in textwrap.wrap(title, _HEAD_WIDTH, break_long_words=False)]
    stacked = r" \\ ".join(lines)
    return f"\\shortstack[{side}]{{{stacked}}}" if len(lines) > 1 else stacked


def _block(block: Block, columns: int) -> Iterator[str]:
    if block.title:
        yield f"\\multicolumn{{{columns}}}{{@{{}}l}}{{\\textit{{{tex(block.title)}}}}} \\\\"
    for row in block.rows:
        yield _row([f"\\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text) for cell in row])
        yield from _small(row)


def _small(row: Sequence[Cell]) -> Iterator[str]:
    """The second line of a row: what stands in small type, where anything does."""
    if any(cell.small for cell in row):
        yield r"\noalign{\vskip-2pt}"
        yield _row([f"{{\\scriptsize {tex(cell.small)}}}" if cell.small else "" for cell in row])
        yield r"\addlinespace[2pt]"


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"

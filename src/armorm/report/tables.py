"""Tables of plain text, before anyone has chosen between terminal, Markdown, LaTeX and HTML.

In: numbers and names.  Out: `Grid`s of `Cell`s, a `Report` of them: raw text, which whoever renders it escapes.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeGuard

from armorm.bench.metrics import PairedDifference
from armorm.intervals import Interval
from armorm.numbers import DASH, Written, ends, hundredths, p_value, points, share, share_ends

_WORDS = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"))

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


def block(rows: Iterable[Row], title: str = "", family: str = "", subject: int | None = None) -> Block:
    """A block; texts become cells."""
    return Block(title, list(map(_cells, rows)), family, subject)


def grid(name: str, title: str, head: Iterable[str | Cell], rows: Iterable[Row], *, words: Sequence[int] = (0,)) -> Grid:
    """A table of one block; texts become cells."""
    return Grid(name, title, "", _cells(head), [block(rows)], words=words)


def table(
    kind: str,
    rows: Iterable[Row] = (),
    *,
    blocks: Sequence[Block] = (),
    name: str = "",
    head: Iterable[str | Cell] | None = None,
    remarks: Iterable[str] = (),
    **said: object,
) -> Grid:
    """A table of `rows`, or of several `blocks`. Its words are in tables.toml under `kind`; `name` and `said` fill their braces.

    Its name is the kind's, without the part before the dot, with `name` behind it where there are several of the kind; `head` is
    given where the columns depend on what was found.
    """
    part, _, own = kind.partition(".")
    about = _WORDS[part][own]
    title, lead = (about.get(key, "").format(name=name, **said) for key in ("title", "lead"))
    columns = [Cell(*one.split(" | ")) for one in about["head"]] if head is None else _cells(head)
    words = [place % len(columns) for place in about.get("words", (0,))]
    every = [*about.get("remarks", ()), *remarks]
    return Grid(f"{own} {name}".strip(), title, lead, columns, blocks or [block(rows)], every, words, about.get("detail", False))


def facts_report(facts: Mapping[str, str]) -> Report:
    """Facts by name, one a row."""
    return Report("", grids=[grid("facts", "", ("what", "value"), facts.items(), words=(0, 1))])


def estimate(one: Interval | None, write: Written = hundredths) -> Cell:
    """A number with its interval."""
    return Cell(write(one.value), ends(one, write)) if has_value(one) else Cell()


def share_of(one: Interval | None) -> Cell:
    """A share in per cent with its interval."""
    return Cell(share(one.value), share_ends(one)) if has_value(one) else Cell()


def difference(one: PairedDifference | None) -> tuple[Cell, Cell]:
    """A difference of shares in points with its interval, and its p; dashes without one."""
    return (estimate(one.difference, points), Cell(p_value(one.p))) if one else (Cell(), Cell())


def has_value(one: Interval | None) -> TypeGuard[Interval]:
    """Whether there is a value."""
    return one is not None and math.isfinite(one.value)


def _cells(row: Iterable[str | Cell]) -> list[Cell]:
    return [Cell(one) if isinstance(one, str) else one for one in row]

"""What `armorm extract` left, as a table.

In: `Extraction`.  Out: a `Report`: a row for each store.
"""

from __future__ import annotations

from armorm.report.tables import Cell, Report, Row, grid
from armorm.results import Result


class Filled(Result):
    """A store, as a process left it."""

    kind: str
    """What its rows are: ratings, pairs or bench."""
    name: str
    """The source."""
    folder: str
    """The store's folder."""
    rows: int
    """How many rows it has, or will have."""
    shards: int
    """In how many files."""
    present: int
    """How many of these are there."""
    whole: bool
    """Whether it is finished."""


class Extraction(Result):
    """Every store of a recipe."""

    folder: str
    """The folder that the stores are in."""
    shard: str | None
    """Which of several processes it was, such as 2/8; nothing where it was the only one."""
    stores: tuple[Filled, ...]
    """Source by source."""

    @property
    def whole(self) -> bool:
        """Whether all stores are finished."""
        return all(store.whole for store in self.stores)


def extraction_report(found: Extraction) -> Report:
    """A row for each store."""
    said = "all features are there" if found.whole else "shards of other processes are missing"
    head = ("", "source", "kind", "rows", "shards")
    return Report("", grids=[grid("extract", said, head, map(_row, found.stores), words=(0, 1, 2))])


def _row(one: Filled) -> Row:
    state = Cell("whole", tone="good") if one.whole else Cell("growing")
    return [state, one.name, one.kind, f"{one.rows:,}", f"{one.present:,} of {one.shards:,}"]

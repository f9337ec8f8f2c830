"""Rows as they pass, without those that the chat template refuses: each a counted fault; what it leaves out is a counted note.

In: rows of one source, a `Renderer` (none: all pass).  Out: the rows; counts, the first sentences.
Cost: a rendering of each answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from armorm.data.reading import FaultCounts, OnFault
from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse, Row, conversations_of
from armorm.errors import ConversationError, DataError
from armorm.rendering import Renderer


class Rendered:
    """What passes of a source, and what doesn't."""

    LISTED = 20
    EXAMPLES = 3

    def __init__(self, name: str, renderer: Renderer | None) -> None:
        self.name, self.renderer = name, renderer
        self.counts, self.notes, self.first = Counter[str](), Counter[str](), list[str]()

    def kept(self, rows: Iterator[Row]) -> Iterator[Row]:
        return rows if self.renderer is None else (row for row in rows if self._takes(row, self.renderer))

    def _takes(self, row: RatedResponse | PreferencePair | BenchmarkItem, renderer: Renderer) -> bool:
        try:
            self.notes.update(sorted({note for c in conversations_of(row) for note in renderer.check(c)}))
        except ConversationError as error:
            self.counts[error.fault] += 1
            if len(self.first) < self.LISTED:
                self.first.append(f"{self.name}: row {row.id}: {error}")
            return False
        return True

    def check(self, on_fault: OnFault) -> None:
        if self.counts and on_fault == "fail":
            raise DataError(f"{self.name}: {self.counts.total()} rows can't be rendered:\n" + "\n".join(self.first))

    def added_to(self, faults: FaultCounts) -> FaultCounts:
        counts, notes = (Counter(dict(one)) for one in (faults.counts, faults.notes))
        counts.update(self.counts)
        notes.update(self.notes)
        examples = (*faults.examples, *self.first[: self.EXAMPLES])
        return replace(faults, counts=counts, notes=notes, examples=examples)

"""Progress on stderr: bars with rate and time left on a terminal, a line now and then elsewhere.

In: what is done.  Out: lines on stderr; nothing on stdout.  Cost: a line every 20 seconds, or a redrawn bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int, str], None]
"""Called with (units done, a note such as "1,240 tokens/s")."""

EVERY_SECONDS = 20.0


def counting(advance: Advance, what: str) -> Callable[[int, int], None]:
    """A bar's callback for work that reports (done, in all)."""

    def progress(done: int, _total: int) -> None:
        advance(done, what)

    return progress


@dataclass
class Reporter:
    """Where a run tells what it is doing. `quiet` says nothing."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        if not self.quiet:
            self.console.print("[yellow]warning:[/]", escape(text), highlight=False)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """A bar of `total` units."""
        if self.quiet:
            yield lambda _done, _note: None
        elif self.console.is_terminal:
            yield from self._drawing(label, total)
        else:
            yield self._lines(label, total)

    def _drawing(self, label: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(label, total=total, note="")
            yield lambda done, note: progress.update(task, completed=done, note=note)

    def _lines(self, label: str, total: int) -> Advance:
        last = time.monotonic()
        first: tuple[float, int] | None = None  # when, and what an earlier run had done by then

        def advance(done: int, note: str) -> None:
            nonlocal last, first
            now = time.monotonic()
            first = first or (now, done)
            start, before = first
            if now - last >= EVERY_SECONDS:
                last = now
                left = f", {(now - start) * (total - done) / (done - before):.0f} s left" if done > before else ""
                self.console.print(f"{label}: {done:,}/{total:,} {note}{left}", highlight=False, markup=False)

        return advance

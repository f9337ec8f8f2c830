"""Progress on stderr: bars with rate and time left on a terminal, a line now and then elsewhere.

In: what is done.  Out: lines on stderr; nothing on stdout.  Cost: a line every 20 seconds, or a redrawn bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

Advance = Callable[[int, str], None]
"""Called with (units done, a note such as "1,240 tokens/s")."""

EVERY_SECONDS = 20.0


def readable(text: str) -> str:
    """A text that moves no cursor and turns no line round: control characters but line ends become replacement characters."""
    if text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(letter) else letter for letter in text)


def _is_control(letter: str) -> bool:
    code = ord(letter)
    if code < 0xA0:
        return letter not in "\n\t" and (code < 0x20 or code >= 0x7F)
    return code in (0x2028, 0x2029) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


class Terminal(Console):
    """A console to which names and texts are text: neither markup nor control characters do anything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else segment._replace(text=readable(segment.text))


def counting(advance: Advance, what: str) -> Callable[[int, int], None]:
    """A bar's callback for work that reports (done, in all)."""

    def progress(done: int, _total: int) -> None:
        advance(done, what)

    return progress


@dataclass
class Reporter:
    """Where a run tells what it is doing. `quiet` says nothing."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: Terminal(stderr=True))

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        if not self.quiet:
            self.console.print(Text.assemble(("warning:", "yellow"), " ", text), highlight=False)

    def alarm(self, text: str) -> None:
        """A warning that a quiet run gives too: something is damaged."""
        Reporter(console=self.console).warn(text)

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

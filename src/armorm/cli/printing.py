"""How commands print: tables for people, JSON for machines.

In: what a command found.  Out: stdout.  Cost: none (rich is imported when something is printed).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armorm.report.tables import Report


def print_result(facts: Any, show: Callable[[], Report], *, json_: bool, then: str = "") -> None:
    """A result as JSON, or the report that `show` makes of it and a last line."""
    if json_:
        print_json(facts)
        return
    print_report(show())
    if then:
        print_line(then)


def print_line(text: str, file: Any = None) -> None:
    """A line for people, in which a name moves no cursor."""
    from armorm.progress import readable

    print(readable(text), file=file)


def print_json(facts: Any) -> None:
    """A typed result, or plain values."""
    from armorm.disk import numbers_or_null

    plain = facts.to_json() if hasattr(facts, "to_json") else facts
    print_letters(lambda ascii_only: json.dumps(numbers_or_null(plain), ensure_ascii=ascii_only, indent=1, allow_nan=False))


def print_letters(text: Callable[[bool], str]) -> None:
    """A text that `text` makes: with all its letters where stdout takes them and they do nothing there, else in ASCII alone."""
    from armorm.progress import readable

    whole = text(False)
    try:
        whole.encode(sys.stdout.encoding or "utf-8")
        fits = not sys.stdout.isatty() or readable(whole) == whole
    except UnicodeEncodeError:  # half a surrogate pair, or a terminal with fewer letters
        fits = False
    print(whole if fits else text(True))


def print_report(report: Report) -> None:
    """Sentences, tables and notes."""
    from armorm.report.terminal import terminal_parts

    print_parts(terminal_parts(report))


def print_parts(parts: Iterable[Any]) -> None:
    """What rich can print; 140 columns where stdout is no terminal. Texts are never read as markup."""
    from armorm.progress import Terminal

    console = Terminal(width=None if sys.stdout.isatty() else 140)
    for part in parts:
        console.print(part, markup=False, highlight=False)

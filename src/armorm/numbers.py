"""Numbers and texts in the form in which people read them, the same in the terminal, in documents and on pages.

In: numbers (None or NaN: undefined), intervals, texts.  Out: short texts; undefined is a dash, minus is "−", a rounded
zero has no sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from armorm.intervals import Interval

DASH = "–"
Value = float | int | None
"""A number that may be undefined: None, NaN."""
Written = Callable[[Value], str]


def _write(value: Value, form: Callable[[float], str]) -> str:
    return DASH if value is None or not math.isfinite(value) else _minus(form(value))


def _minus(text: str) -> str:
    return text.replace("-", "−") if any(c in "123456789" for c in text) else text.lstrip("+-")


def decimal(value: Value, digits: int = 3) -> str:
    """0.812"""
    return _write(value, lambda x: f"{x:.{digits}f}")


hundredths = partial(decimal, digits=2)
"""0.81"""


def signed(value: Value, digits: int = 3) -> str:
    """+0.812"""
    return _write(value, lambda x: f"{x:+.{digits}f}")


signed_hundredths = partial(signed, digits=2)
"""+0.81"""


def general(value: Value) -> str:
    """Four significant digits, for strengths and the ends of scales."""
    return _write(value, lambda x: f"{x:.4g}")


def signed_general(value: Value) -> str:
    """Three significant digits with a sign, for slopes of any scale: +0.000652."""
    return _write(value, lambda x: f"{x:+.3g}")


def percent(value: Value, digits: int = 1) -> str:
    """A share with its sign: 81.2 %."""
    return _write(value, lambda x: f"{100 * x:.{digits}f} %")


def share(value: Value, digits: int = 1) -> str:
    """A share where the column says that it is in per cent: 81.2."""
    return _write(value, lambda x: f"{100 * x:.{digits}f}")


def points(value: Value) -> str:
    """A difference of shares in points: +3.2."""
    return _write(value, lambda x: f"{100 * x:+.1f}")


def count(value: Value) -> str:
    """1,234"""
    return _write(value, lambda x: f"{x:,.0f}")


def compact_count(value: float | int) -> str:
    """A count in at most four characters: 657, 2.4k, 17k, 1.2M; nothing for zero."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.1f}{letter}" if scaled < 9.95 else f"{scaled:.0f}{letter}"
    return f"{value:.0f}" if value else ""


def duration(value: Value) -> str:
    """Seconds as 4.2 s, 40 s, 3 min 5 s, 2 h 10 min."""
    if value is None or not math.isfinite(value):
        return DASH
    if value < 10:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def p_value(value: Value) -> str:
    """0.042, or < 0.001."""
    return _write(value, lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}")


def equals_p(value: Value) -> str:
    """The same behind a "p": = 0.042, or < 0.001."""
    written = p_value(value)
    return written if written.startswith("<") else f"= {written}"


def ends(one: Interval, write: Written = hundredths) -> str:
    """The ends of an interval, 0.61 to 0.70; nothing where they are undefined."""
    return f"{write(one.low)} to {write(one.high)}" if _has_ends(one) else ""


def share_ends(one: Interval) -> str:
    """The same for a share in per cent: 61.0–70.3."""
    return f"{share(one.low)}–{share(one.high)}" if _has_ends(one) else ""


def counts(parts: Mapping[str, int]) -> str:
    """What was counted by name: 12 over-cap, 3 no-rating."""
    return ", ".join(f"{count(n)} {name}" for name, n in parts.items() if n)


def listed(parts: Iterable[str]) -> str:
    """One, two and three."""
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def shorten(text: str, longest: int) -> str:
    """A text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def plain(text: object) -> str:
    """One line of printable text; nothing for None."""
    line = " ".join(("" if text is None else str(text)).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def _has_ends(one: Interval) -> bool:
    return math.isfinite(one.low) and math.isfinite(one.high)

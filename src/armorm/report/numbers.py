"""Numbers out of results.json and into sentences: what is absent or null is None, and None is written as a dash.

In: JSON values.  Out: floats, `Interval`s, and the short texts that the page prints.  Cost: none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from armorm.intervals import Interval

DASH = "–"


def number(raw: Any) -> float | None:
    """A finite float, or None."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        return None
    return float(raw)


def interval(raw: Any) -> Interval | None:
    """`{"value", "low", "high"}` as an Interval; ends that are missing become NaN, a missing value None."""
    if not isinstance(raw, Mapping):
        return None
    value, low, high = (number(raw.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return None
    return Interval(value, math.nan if low is None else low, math.nan if high is None else high)


def decimal(raw: Any, digits: int = 3) -> str:
    value = number(raw)
    return DASH if value is None else _minus(f"{value:.{digits}f}")


def finding(raw: Any) -> str:
    """A number as a decimal, words as they are."""
    return raw if isinstance(raw, str) else decimal(raw)


def signed(raw: Any, digits: int = 3) -> str:
    value = number(raw)
    return DASH if value is None else _minus(f"{value:+.{digits}f}")


def general(raw: Any) -> str:
    """Four significant digits, for strengths and scale ends."""
    value = number(raw)
    return DASH if value is None else _minus(f"{value:.4g}")


def percent(raw: Any) -> str:
    value = number(raw)
    return DASH if value is None else _minus(f"{100 * value:.1f} %")


def points(raw: Any) -> str:
    """A difference of shares in points: +3.2."""
    value = number(raw)
    return DASH if value is None else _minus(f"{100 * value:+.1f}")


def span(raw: Any, digits: int = 2) -> str:
    """The ends of an interval: 0.61 to 0.70."""
    return _span(raw, lambda end: decimal(end, digits))


def span_percent(raw: Any) -> str:
    return _span(raw, lambda end: percent(end).removesuffix(" %"))


def span_points(raw: Any) -> str:
    return _span(raw, points)


def p_value(raw: Any) -> str:
    value = number(raw)
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(raw: Any) -> str:
    value = number(raw)
    return DASH if value is None else _minus(f"{value:,.0f}")


def compact_count(value: float) -> str:
    """A count in at most four characters: 657, 2.4k, 17k, 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.1f}{letter}" if scaled < 9.95 else f"{scaled:.0f}{letter}"
    return f"{value:.0f}" if value else ""


def duration(raw: Any) -> str:
    value = number(raw)
    if value is None:
        return DASH
    if value < 10:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _span(raw: Any, write: Any) -> str:
    ends = raw if isinstance(raw, Mapping) else {}
    low, high = number(ends.get("low")), number(ends.get("high"))
    return DASH if low is None or high is None else f"{write(low)} to {write(high)}"


def _minus(text: str) -> str:
    return text.replace("-", "−")

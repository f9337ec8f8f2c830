"""What a field of a raw record holds: the fault of a text that is missing or none, and numbers that may be written as text.

In: a record and field names, or one value.  Out: a `BadRecord` or None; a number or None.  Cost: none.
"""

from __future__ import annotations

import math
from typing import Any

from armorm.data.files import BadRecord, Record
from armorm.data.sources.source import bad


def text_fault(record: Record, *names: str) -> BadRecord | None:
    """The fault of the first of these fields that is absent (`missing-field`) or holds no text (`not-text`)."""
    for name in names:
        value = record.values.get(name)
        if value is None:
            return bad(record, "missing-field", f"fill in the field {name!r}: the set's records have {', '.join(names)}")
        if not isinstance(value, str):
            return bad(record, "not-text", f"give a text in the field {name!r}, not a {type(value).__name__}")
    return None


def number(value: Any) -> float | None:
    """A finite number, also where it is written as text; None for anything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None

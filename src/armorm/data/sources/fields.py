"""What the fields of a raw record must hold, and the fault of those that don't.

In: a record and field names.  Out: a `BadRecord` or None; ids that tell a set's parts apart.  Cost: none.
"""

from __future__ import annotations

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


def answers_fault(record: Record) -> BadRecord | None:
    """The fault of a record whose `chosen` and `rejected` are no lists (`missing-field`) or not of texts alone (`not-text`)."""
    sides = [record.values.get(name) for name in ("chosen", "rejected")]
    if not all(isinstance(side, list) for side in sides):
        return bad(record, "missing-field", "give lists of answers as 'chosen' and 'rejected'")
    if not all(isinstance(answer, str) for side in sides for answer in side or ()):
        return bad(record, "not-text", "give texts in the lists 'chosen' and 'rejected'")
    return None


def not_list(record: Record, field: str, of: str) -> BadRecord:
    """The fault of a record whose field should hold a list."""
    return bad(record, "missing-field", f"the set's records have a list of {of} as {field!r}; is this the published file?")


def id_within(part: str, row_id: Any) -> Any:
    """An id that is unique within a part of the set at best, with the part's name before it; what is no id stays as it is."""
    return f"{part}/{row_id}" if isinstance(row_id, int | str) and row_id != "" else row_id

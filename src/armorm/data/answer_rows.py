"""Rows to be scored, whatever their format: one context, one answer or several.

In: records of a file.  Out: `AnswerRow`s, one per record; what is wrong with a row or an answer is said in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from armorm.conversation import Answer, Message, text_of, turns_of
from armorm.data.cells import is_nothing
from armorm.data.files import BadRecord, Record
from armorm.data.shapes import RowFault, RowFormat, read_texts
from armorm.errors import DataError
from armorm.numbers import shorten

ANSWER_COLUMNS = (
    *("messages", "prompt", "system", "tools", "response", "completion", "responses", "completions", "chosen", "rejected"),
    *("conversations", "instruction", "input", "output", "history", "context", "rejected_response", "rejected_messages"),
)
"""Columns that hold a row's texts."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One row's answers to one context.

    `values` are the row's own columns; `faults` holds what is wrong with each answer, None where nothing is; `error` is set where
    the row as a whole can't be scored, and then there are no answers. `many` says that the row lists its answers. `rows` is how
    many rows of the file it stands for (more than one once neighbours are grouped), `ids` are theirs. `scores` are the answers',
    where the file was scored, NaN where there is none. `notes` say what was put right in it; `wins` which
    answers are preferred, where the row says so.
    """

    row: int
    id: Any
    values: Mapping[str, Any]
    context: tuple[Message, ...] = ()
    answers: tuple[Answer, ...] = ()
    faults: tuple[str | None, ...] = ()
    error: str | None = None
    many: bool = False
    rows: int = 1
    ids: tuple[Any, ...] = ()
    scores: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    wins: tuple[bool, ...] | None = None

    def conversation(self, i: int) -> tuple[Message, ...]:
        """The context with the i-th answer behind it."""
        return (*self.context, *turns_of(self.answers[i]))

    @property
    def characters(self) -> int:
        return sum(len(m["content"]) for m in self.context) + sum(len(text_of(answer)) for answer in self.answers)


def answer_rows(
    found: Iterable[Record | BadRecord],
    how: RowFormat = RowFormat(),  # noqa: B008 - frozen
    *,
    behind: int = 0,
) -> Iterator[AnswerRow]:
    """Every record behind the first `behind` as a row to be scored, faulty ones too.

    Those first ones are looked at and not given: what holds of a file is asked of all of it, wherever its rows go on. Raises
    DataError, at the end, for a mapped column that none has.
    """
    unseen, seen = set(how.columns.mapped), set[str]()
    for n, one in enumerate(found):
        unseen -= one.values.keys()
        seen |= one.values.keys()
        if n >= behind:
            yield answer_row(one, how)
    if unseen and seen:
        there = shorten(", ".join(map(str, sorted(seen)[:40])), 1000)
        raise DataError(f"no row has the column {min(unseen)!r}; the columns are {there}")


def answer_row(record: Record | BadRecord, how: RowFormat = RowFormat()) -> AnswerRow:  # noqa: B008 - frozen
    """One record as a row to be scored."""
    values = record.values
    name = values.get(how.columns.id) if how.columns.id else None
    name = record.row if is_nothing(name) else name
    if isinstance(record, BadRecord):
        return AnswerRow(record.row, name, values, error=f"{record.fault}: {record.remedy}", ids=(name,))
    try:
        texts = read_texts(values, how.columns, span=how.span)
    except RowFault as fault:
        return AnswerRow(record.row, name, values, error=fault.sentence, ids=(name,), notes=record.notes)
    faults = tuple(None if fault is None else fault.sentence for fault in texts.faults)
    notes = (*record.notes, *texts.notes)
    if not texts.answers or all(faults):
        error = faults[0] if faults else "no-answer: the list of answers is empty"
        return AnswerRow(record.row, name, values, error=error, ids=(name,), many=texts.many, notes=notes)
    more: dict[str, Any] = {"many": texts.many, "ids": (name,), "notes": notes, "wins": texts.wins}
    return AnswerRow(record.row, name, values, texts.context, texts.answers, faults, **more)


def group_neighbours(rows: Iterable[AnswerRow]) -> Iterator[AnswerRow]:
    """Rows that follow each other and answer the same context become one row with all their answers; others stay."""
    held: list[AnswerRow] = []
    for row in rows:
        if held and (row.error or row.many or held[0].error or held[0].many or row.context != held[0].context):
            yield _join(held)
            held = []
        held.append(row)
    if held:
        yield _join(held)


def _join(rows: list[AnswerRow]) -> AnswerRow:
    first = rows[0]
    if len(rows) == 1:
        return first
    answers = tuple(a for r in rows for a in r.answers)
    faults = tuple(f for r in rows for f in r.faults)
    ids = tuple(r.id for r in rows)
    scores = tuple(s for r in rows for s in r.scores)
    notes = tuple(dict.fromkeys(note for r in rows for note in r.notes))
    return AnswerRow(first.row, first.id, first.values, first.context, answers, faults, None, True, len(rows), ids, scores, notes)

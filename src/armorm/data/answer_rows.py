"""Rows to be scored, whatever their columns: one context, one answer or several.

In: records of a file.  Out: `AnswerRow`s, one per record; what is wrong with a row or an answer is said in it.
Cost: none beyond reading.

Understood are `messages`; `prompt` (text or messages, `system` beside it) with `response` or `completion`, or with a list of
`responses` or `completions`; and pairs (`chosen`, `rejected`). An answer is a text or a list that holds the assistant's turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from armorm.conversation import Message, fault_in
from armorm.data.cells import context_turns, is_answer_turn, messages_of, parse_list
from armorm.data.files import BadRecord, Record

ANSWER_COLUMNS = ("messages", "prompt", "system", "response", "completion", "responses", "completions", "chosen", "rejected")
"""Columns that hold a row's texts."""

_ONE, _MANY = ("response", "completion"), ("responses", "completions")
_NEEDED = "missing-field: needs 'messages', or 'prompt' with 'response' or a list of 'responses', or 'chosen' and 'rejected'"


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One row's answers to one context.

    `values` are the row's own columns; `faults` holds what is wrong with each answer, None where nothing is; `error` is set where
    the row as a whole can't be scored, and then there are no answers. `many` says that the row lists its answers. `rows` is how
    many rows of the file it stands for (more than one once neighbours are grouped), `ids` are theirs. `scores` are the answers',
    where the file was scored, NaN where there is none.
    """

    row: int
    id: Any
    values: Mapping[str, Any]
    context: tuple[Message, ...] = ()
    answers: tuple[str, ...] = ()
    faults: tuple[str | None, ...] = ()
    error: str | None = None
    many: bool = False
    rows: int = 1
    ids: tuple[Any, ...] = ()
    scores: tuple[float, ...] = ()

    def conversation(self, i: int) -> tuple[Message, ...]:
        """The context with the i-th answer as its last turn."""
        return (*self.context, Message(role="assistant", content=self.answers[i]))

    @property
    def characters(self) -> int:
        return sum(len(m["content"]) for m in self.context) + sum(map(len, self.answers))


def answer_rows(found: Iterable[Record | BadRecord]) -> Iterator[AnswerRow]:
    """Every record as a row to be scored, faulty ones too."""
    return map(answer_row, found)


def answer_row(record: Record | BadRecord) -> AnswerRow:
    if isinstance(record, BadRecord):
        return AnswerRow(record.row, record.row, {}, error=f"{record.fault}: {record.remedy}", ids=(record.row,))
    values = record.values
    name = values.get("id")
    name = record.row if name is None else name
    texts = _texts(values)
    if isinstance(texts, str):
        return AnswerRow(record.row, name, values, error=texts, ids=(name,))
    turns, answers, many = texts
    if (fault := fault_in([*turns, {"role": "assistant", "content": "."}])) is not None:
        return AnswerRow(record.row, name, values, error=f"{fault}: {fault.remedy}", ids=(name,))
    context = messages_of(turns)
    faults = tuple(_fault(context, a) for a in answers)
    if not answers or all(faults):
        error = faults[0] if faults else "no-answer: the list of answers is empty"
        return AnswerRow(record.row, name, values, error=error, ids=(name,), many=many)
    kept = tuple(a if isinstance(a, str) else "" for a in answers)
    return AnswerRow(record.row, name, values, context, kept, faults, None, many, 1, (name,))


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
    return AnswerRow(first.row, first.id, first.values, first.context, answers, faults, None, True, len(rows), ids, scores)


_Texts = tuple[list[Any], list[Any], bool]


def _texts(values: Mapping[str, Any]) -> _Texts | str:
    # Context, answers, and whether the row lists them; or what is missing.
    messages = parse_list(values.get("messages"))
    if messages not in (None, ""):
        if (fault := fault_in(messages)) is not None:
            return f"{fault}: {fault.remedy}"
        return list(messages[:-1]), [messages[-1]["content"]], False
    if values.get("prompt") is not None:
        context = _context(values)
        for column in _MANY:
            answers = parse_list(values.get(column))
            if isinstance(answers, list):
                return context, [_text(a) for a in answers], True
        for column in _ONE:
            if values.get(column) is not None:
                return context, [_text(_turns_or_text(values[column]))], False
    if values.get("chosen") is not None and values.get("rejected") is not None:
        return _pair(values)
    return _NEEDED


def _pair(values: Mapping[str, Any]) -> _Texts | str:
    sides = [_turns_or_text(values[c]) for c in ("chosen", "rejected")]
    if values.get("prompt") is not None and all(isinstance(s, str) or _is_turn(s) for s in sides):
        return _context(values), [_text(s) for s in sides], True
    for side in sides:
        if (fault := fault_in(side)) is not None:
            return f"{fault}: {fault.remedy}"
    if sides[0][:-1] != sides[1][:-1]:
        return "different-contexts: let chosen and rejected differ in the last turn only"
    return list(sides[0][:-1]), [s[-1]["content"] for s in sides], True


def _context(values: Mapping[str, Any]) -> list[Any]:
    prompt = values["prompt"]
    prompt = parse_list(prompt) if isinstance(prompt, str) and prompt[:2] == "[{" else prompt
    return context_turns(prompt, values.get("system"))


def _turns_or_text(value: Any) -> Any:
    # An answer may itself be a JSON list: only one of turns is read as such.
    parsed = parse_list(value)
    return parsed if isinstance(parsed, list) and parsed and isinstance(parsed[0], Mapping) else value


def _is_turn(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1 and is_answer_turn(value[0])


def _text(answer: Any) -> Any:
    return answer[0].get("content") if _is_turn(answer) else answer


def _fault(context: tuple[Message, ...], answer: Any) -> str | None:
    fault = fault_in([*context, {"role": "assistant", "content": answer}])
    return None if fault is None else f"{fault}: {fault.remedy}"

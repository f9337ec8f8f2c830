"""A record, in whatever format people keep their rows → a context and the answers to it. Every command reads rows here.

In: a record's values as its file has them, `Columns`.  Out: `Texts`: parsed messages, answers with their faults, which ones win.

Types decide, not looks: a string in a text column is a text, whatever it contains. Where a file can hold no lists (CSV), `files`
has read the columns that are messages by then. The formats are a table, `SHAPES`; the first that a row fits is its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

from armorm.bounds import Finite
from armorm.conversation import (
    Answer,
    Fault,
    Message,
    Span,
    entries_of,
    is_python_repr,
    kind_of,
    parse_conversation,
    split_answer,
    turns_of,
)
from armorm.data.cells import list_in, messages_in
from armorm.data.files import Cells
from armorm.data.transcripts import as_transcript, turns_of_transcript
from armorm.errors import ConversationError
from armorm.numbers import shorten

Format = Literal["auto", "messages", "swift", "sharegpt", "nemo", "alpaca", "openrlhf", "prompt", "implicit"]
Kind = Literal["one", "many", "pair"]
"""What a row gives: one answer, several without an order, or some that win over others."""


class Columns(BaseModel):
    """Which column holds what, in which format, and what stands for "no rating".

    A rated row has `messages`, or `prompt` + `response`. A pair has `chosen` and `rejected`, as texts next to `prompt` or as
    message lists (whole conversations, or only what follows `prompt`). `prompt` is a text or a list of messages; `system` and
    `tools` may come with it. `format` says which format the rows are in; `auto` looks at each row's columns.

    `ratings` maps objectives to columns; objectives it doesn't list are then not read from this source. Without it, each
    objective's column is its own name. Numbers in `missing` (−100) stand for no rating. `group`, when named, overrides the group
    computed from the prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = "id"
    group: str | None = None
    messages: str = "messages"
    prompt: str = "prompt"
    response: str = "response"
    system: str | None = "system"
    tools: str | None = "tools"
    chosen: str = "chosen"
    rejected: str = "rejected"
    section: str | None = "section"
    subset: str | None = "subset"
    ratings: dict[str, str] | None = None
    missing: tuple[Finite, ...] = ()
    format: Format = "auto"

    @property
    def mapped(self) -> list[str]:
        """The columns that were named by hand."""
        return [
            column
            for column in self.model_dump(exclude={"ratings", "missing", "format"}, exclude_defaults=True).values()
            if column
        ]


@dataclass(frozen=True)
class RowFormat:
    """How a file's rows are read: its columns, what its strings are, and what of a conversation is the answer."""

    columns: Columns = field(default_factory=Columns)
    cells: Cells = "auto"
    span: Span = "last-turn"

    def to_json(self) -> dict[str, Any]:
        """What was asked for, as JSON."""
        return {"columns": self.columns.model_dump(mode="json", exclude_defaults=True), "cells": self.cells, "answer": self.span}


MOST_TURNS = 2**22
"""The turns that a row's answers may have before them, all taken together."""
SEEN = 200
"""The characters that a message shows of what was seen."""


class RowFault(Exception):  # noqa: N818 - one row's fault, caught by whoever reads rows
    """What is wrong with a row: a name, what was seen, a remedy."""

    def __init__(self, name: str, what: str, remedy: str) -> None:
        super().__init__(name, what, remedy)
        self.name, self.what, self.remedy = name, shorten(what, SEEN), shorten(remedy, 2 * SEEN)

    @classmethod
    def of(cls, error: ConversationError) -> RowFault:
        """The fault of an answer that is no conversation."""
        fault = cast(Fault, error.fault)
        return cls(str(fault), fault.detail, fault.remedy)

    def within(self, column: str) -> RowFault:
        """The same fault, with the column that it was seen in."""
        return RowFault(self.name, " ".join(filter(None, (self.what, f"in column {column!r}" if column else ""))), self.remedy)

    @property
    def sentence(self) -> str:
        """The name, what was seen, and the remedy."""
        return f"{self.name}: {self.what}; {self.remedy}" if self.what else f"{self.name}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Texts:
    """A context and its answers.

    `faults` holds what is wrong with each answer, None where nothing is (a faulty answer is ""). `wins` says of each whether it
    is preferred, None where the row says nothing of that; `many`: the row lists its answers.
    """

    context: tuple[Message, ...]
    answers: tuple[Answer, ...]
    faults: tuple[RowFault | None, ...]
    wins: tuple[bool, ...] | None = None
    many: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a shape finds in a row: turns before the answers, the answers as they stand, which of them win.

    An answer is a text, a turn or turns; turns that start with the user's (or a system message) are a whole conversation, which
    stands by itself.
    """

    context: list[Any]
    answers: list[Any]
    wins: tuple[bool, ...] | None = None
    many: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """A format: its name, the columns that it needs in words, a reader that gives None for a row of another format, and rows.

    `reads` names the columns that it alone reads of those that other formats have too.
    """

    name: Format
    needs: str
    find: Callable[[Mapping[str, Any], Columns], Found | None]
    examples: tuple[Mapping[str, Any], ...] = field(repr=False)
    reads: tuple[str, ...] = ()


def read_texts(
    values: Mapping[str, Any],
    columns: Columns = Columns(),  # noqa: B008 - frozen
    *,
    span: Span = "last-turn",
    kind: Kind | None = None,
) -> Texts:
    """The row's context and answers. With `kind`, a format that gives another kind of row is passed over.

    Raises RowFault when the row fits no format, or its context is none; an answer's own fault stands in `Texts.faults`.
    """
    values = _without_nan(values)
    try:
        found = _find(values, columns, kind)
    except ConversationError as error:
        raise RowFault.of(error) from None
    notes = dict.fromkeys((*_looks(values, columns), *found.notes))
    system, tools = (values.get(c) if c else None for c in (columns.system, columns.tools))
    if system == "":
        notes["empty-system"] = None
    if len(found.answers) * len(found.context) > MOST_TURNS:
        seen = f"{len(found.answers)} answers to {len(found.context)} turns"
        raise RowFault("too-long", seen, "spread its answers over several rows")
    conversations, faults = list[tuple[Message, ...]](), list[RowFault | None]()
    for answer in found.answers:
        try:
            parsed = parse_conversation(_whole(found.context, answer, system, notes), tools=tools)
            conversations.append(parsed.messages)
            notes |= dict.fromkeys(parsed.notes)
            faults.append(None)
        except ConversationError as error:
            conversations.append(())
            faults.append(RowFault.of(error))
    contexts = [split_answer(c, span) if c else None for c in conversations]
    context = next((c[0] for c in contexts if c), ())
    if any(c[0] != context for c in contexts if c):
        more = ", or take whole trajectories as answers (`answer: trajectory`)" if span == "last-turn" else ""
        remedy = f"let a row's answers differ in {'the last turn' if more else 'what follows the last question'} only{more}"
        raise RowFault("different-contexts", "", remedy)
    answers = tuple(c[1] if c else "" for c in contexts)
    return Texts(context, answers, tuple(faults), found.wins, found.many, tuple(notes))


def kind_of_row(values: Mapping[str, Any], columns: Columns = Columns()) -> Kind | None:  # noqa: B008 - frozen
    """What a row would give, by its columns alone; None where it fits no format."""
    try:
        return _kind(_find(_without_nan(values), columns, None))
    except (RowFault, ConversationError):
        return "pair" if _has(values, columns.chosen, columns.rejected) else None


def _without_nan(values: Mapping[str, Any]) -> Mapping[str, Any]:
    # A table's null is NaN, also in a column of texts.
    return {name: value for name, value in values.items() if not (isinstance(value, float) and math.isnan(value))}


def _looks(values: Mapping[str, Any], columns: Columns) -> Iterator[str]:
    # Texts that look like messages, as notes; the columns that hold messages are read as such.
    read = (columns.messages, columns.tools, "conversations", "rejected_messages")
    for name, value in values.items():
        if isinstance(value, str) and name not in read:
            if messages_in(value):
                yield f"{shorten(str(name), 40)}: JSON text kept as text"
            elif is_python_repr(value):
                yield f"{shorten(str(name), 40)}: Python's print of a list kept as text"


def bare_text(answer: Answer) -> str:
    """What an answer says, calls and reasoning too, without the white space at its ends: equal where answers say the same."""
    return json.dumps([{**turn, "content": turn["content"].strip()} for turn in turns_of(answer)], sort_keys=True, default=str)


def _find(values: Mapping[str, Any], columns: Columns, kind: Kind | None) -> Found:
    other: Kind | None = None
    if kind == "one" and (pair := _pair_in(values, columns)):  # what else a row holds is of no interest
        values, other = {n: v for n, v in values.items() if n not in pair}, "pair"
    if media := [name for name in ("images", "videos", "audios") if values.get(name)]:
        raise RowFault("not-text", f"column {media[0]!r}", "only text can be scored: leave out rows with pictures or sound")
    for shape in _in_order(columns):
        try:
            found = shape.find(values, columns)
        except (RowFault, ConversationError):
            if other is None:
                raise
            continue
        if found is None:
            continue
        if kind in (None, _kind(found)):
            unread = [
                n for n in ("context", "history", "input") if n not in shape.reads and isinstance(values.get(n), str | list)
            ]
            unread = [n for n in unread if values[n] and n not in columns.mapped]
            return replace(found, notes=(*found.notes, *(f"column {name!r} not read" for name in unread)))
        other = other or _kind(found)
    seen, remedy = _OTHERWISE.get(other, ("", "fill the columns in, or say which column holds what"))
    raise RowFault("missing-field", f"needs {_needs(columns, kind)}{seen}", remedy)


def _in_order(columns: Columns) -> list[Shape]:
    # What was mapped by hand is looked at first.
    if columns.format != "auto":
        return [shape for shape in SHAPES if shape.name == columns.format]
    by_hand = columns.model_fields_set
    first: tuple[str, ...] = ("messages",) if "messages" in by_hand else ()
    first = first or (("prompt", "implicit") if by_hand & {"prompt", "response", "chosen", "rejected"} else ())
    return sorted(SHAPES, key=lambda shape: shape.name not in first)


_OTHERWISE: Mapping[Kind | None, tuple[str, str]] = {
    "one": (", has one answer", "read such rows as ratings, or give the answer that it is compared with"),
    "many": (", lists answers without an order", "give each answer a row of its own with its ratings, or say which is better"),
    "pair": (", is a pair", "read such rows as pairs, or give each answer a row of its own with its ratings"),
}
"""A row of another kind than was asked for: what it is, what to do."""


def _kind(found: Found) -> Kind:
    return "pair" if found.wins is not None else "many" if found.many else "one"


def _needs(columns: Columns, kind: Kind | None) -> str:
    if columns.format != "auto":
        return next(shape.needs for shape in SHAPES if shape.name == columns.format)
    c = columns
    pairs, answers = f"'{c.chosen}' + '{c.rejected}'", f"'{c.messages}' or '{c.prompt}' + '{c.response}'"
    return {"pair": pairs, "one": answers}.get(kind or "", f"{answers} (or a list of 'responses'), or {pairs}")


# -- answers and contexts ------------------------------------------------------------------------------------------------------


def _whole(context: Sequence[Any], answer: Any, system: Any, notes: dict[str, None]) -> list[Any]:
    # An answer behind its context, or as the whole conversation that it is; a system message comes first, wherever it stands.
    turns = _turns(answer)
    systems = [{"role": "system", "content": system}] if system not in (None, "") else []
    if _speaker(turns[0]) in ("user", "system", "human"):
        systems += [turn for turn in context[:1] if _speaker(turn) == "system"]
        before = {_written(turn) for turn in context if _speaker(turn) != "system"}
        if before and not before <= {_written(turn) for turn in turns}:
            notes["prompt not read: the answers are whole conversations"] = None
        whole = turns
    else:
        whole = [*context, *turns]
    if _speaker(whole[0]) != "system":
        return [*systems[:1], *whole]
    if any(_said(one) != _said(whole[0]) for one in systems):
        notes["system not read: the messages have their own"] = None
    return whole


def _written(turn: Any) -> str:
    return json.dumps(_said(turn), sort_keys=True, default=repr)


def _said(turn: Any) -> Any:
    text = turn.get("content", turn.get("value")) if isinstance(turn, Mapping) else turn
    return text.strip() if isinstance(text, str) else text


def _turns(answer: Any) -> list[Any]:
    if isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    turns = [answer] if isinstance(answer, Mapping) else entries_of(answer)
    if not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise Fault("not-messages", f"an answer is {kind_of(answer)}").error()
    return turns if any(_speaker(turn) for turn in turns) else [{"role": "assistant", "content": turns}]  # parts of a text


def _speaker(turn: Any) -> Any:
    return (turn.get("role") or turn.get("from")) if isinstance(turn, Mapping) else None


def _context(prompt: Any) -> list[Any]:
    turns = entries_of(prompt)
    if turns is None:
        return [prompt if _speaker(prompt) else {"role": "user", "content": prompt}]
    # A list of parts is one turn's content.
    return turns if any(map(_speaker, turns)) or not turns else [{"role": "user", "content": turns}]


def _messages(value: Any) -> list[Any] | None:
    """Messages as a list, also where they are stored as JSON text. Raises ConversationError for text that is no messages."""
    if not isinstance(value, str):
        return entries_of(value)
    if (parsed := messages_in(value)) is None:
        raise Fault("python-repr" if is_python_repr(value) else "not-messages", "got a text").error()
    return parsed


# -- formats -------------------------------------------------------------------------------------------------------------------


def _has(values: Mapping[str, Any], *names: str) -> bool:
    return all(values.get(name) is not None for name in names)


def _pair_in(values: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    # The columns that make a row a pair although it also has messages; none where it is no such pair.
    if _has(values, columns.chosen, columns.rejected):
        return columns.chosen, columns.rejected
    if columns.format != "auto" or "messages" in columns.model_fields_set:  # they were asked for
        return ()
    ranked = (found := _find_nemo(values, columns)) is not None and found.wins is not None
    return ("completions",) if ranked else ()


def _filled(values: Mapping[str, Any], name: str) -> bool:
    # An empty cell of a CSV holds no messages.
    value = values.get(name)
    return value is not None and not (isinstance(value, str) and not value.strip())


def _sides(values: Mapping[str, Any], columns: Columns) -> tuple[list[Any], tuple[bool, ...]] | None:
    # The answers of both sides, where the row has them: one each, or lists of several.
    if not _has(values, columns.chosen, columns.rejected):
        return None
    sides = [_several(values[c]) for c in (columns.chosen, columns.rejected)]
    for column, side in zip((columns.chosen, columns.rejected), sides, strict=True):
        if not side:
            raise RowFault("missing-field", f"column {column!r} is empty", "give at least one chosen and one rejected answer")
    return [*sides[0], *sides[1]], (*(True for _ in sides[0]), *(False for _ in sides[1]))


def _several(side: Any) -> list[Any]:
    entries = None if isinstance(side, Mapping) else entries_of(side)
    return [side] if entries is None or (entries and isinstance(entries[0], Mapping)) else entries


def _find_messages(values: Mapping[str, Any], columns: Columns) -> Found | None:
    if not _filled(values, columns.messages) or _pair_in(values, columns):
        return None
    return Found([], [_or_itself(values[columns.messages])])


def _or_itself(value: Any) -> Any:
    # What is no messages is named as a fault where the conversation is read.
    return turns if (turns := _messages(value)) else value if isinstance(value, Mapping) else [value]


def _find_swift(values: Mapping[str, Any], columns: Columns) -> Found | None:
    named = next((n for n in ("rejected_response", "rejected_messages") if _has(values, n)), None)
    if named is None or not _filled(values, columns.messages):
        return None
    turns, rejected = _messages(values[columns.messages]) or [], values[named]
    if named == "rejected_messages":
        return Found([], [turns, _or_itself(rejected)], (True, False), True)
    others = _several(rejected)
    if not others or others == [""]:
        raise RowFault("missing-field", f"column {named!r} is empty", "give at least one answer that is worse")
    return Found(turns[:-1], [turns[-1:], *others], (True, *(False for _ in others)), True)


def _find_sharegpt(values: Mapping[str, Any], columns: Columns) -> Found | None:
    if not _filled(values, "conversations"):
        return None
    turns, sides = _messages(values["conversations"]) or [], _sides(values, columns)
    if not turns and sides is None:
        raise Fault("not-messages", f"'conversations' is {kind_of(values['conversations'])}").error()
    return Found([], [turns]) if sides is None else Found(turns, *sides, True)


def _find_nemo(values: Mapping[str, Any], _columns: Columns) -> Found | None:
    entries = entries_of(values.get("completions"))
    if not entries or not _has(values, "context") or not all(isinstance(e, Mapping) and "completion" in e for e in entries):
        return None
    ranks = [entry.get("rank") for entry in entries]
    known = all(isinstance(rank, int | float) and not math.isnan(rank) for rank in ranks) and len(set(ranks)) > 1
    wins = tuple(rank == min(ranks) for rank in ranks) if known else None
    return Found(_context(values["context"]), [entry["completion"] for entry in entries], wins, True)


def _find_alpaca(values: Mapping[str, Any], columns: Columns) -> Found | None:
    if not isinstance(values.get("instruction"), str):
        return None
    given = (values["instruction"], values.get("input"), values.get("context"))
    asked = "\n".join(str(one) for one in given if isinstance(one, str | int | float) and str(one).strip())
    before = [turn for old in _history(values.get("history")) for turn in zip(("user", "assistant"), old, strict=True)]
    context = [*({"role": role, "content": text} for role, text in before), {"role": "user", "content": asked}]
    mapped = (columns.response,) if "response" in columns.model_fields_set else ()
    return _answered(context, values, columns, (*mapped, "output", columns.response, "completion"))


def _history(given: Any) -> list[list[Any]]:
    # Questions with their answers, also as JSON text.
    if given in (None, ""):
        return []
    rounds = list_in(given) if isinstance(given, str) else entries_of(given)
    each = None if rounds is None else [entries_of(one) for one in rounds]
    if each is None or any(one is None or len(one) != 2 for one in each):
        raise RowFault("not-messages", "in column 'history'", "give a list of [question, answer]")
    return cast(list[list[Any]], each)


def _find_openrlhf(values: Mapping[str, Any], columns: Columns) -> Found | None:
    return _answered(_context(values["input"]), values, columns, ("output",)) if _filled(values, "input") else None


def _find_prompt(values: Mapping[str, Any], columns: Columns) -> Found | None:
    if not _has(values, columns.prompt):
        return None
    return _answered(_context(values[columns.prompt]), values, columns, (columns.response, "completion"))


def _answered(context: list[Any], values: Mapping[str, Any], columns: Columns, names: Sequence[str]) -> Found | None:
    # Sides, or a list of answers, or one answer to a context.
    if (sides := _sides(values, columns)) is not None:
        return Found(context, *sides, True)
    for name in ("responses", "completions"):
        if (answers := entries_of(values.get(name))) is not None:
            return Found(context, answers, None, True)
    one = next((name for name in names if _has(values, name)), None)
    return None if one is None else Found(context, [values[one]])


def _find_implicit(values: Mapping[str, Any], columns: Columns) -> Found | None:
    sides = _sides(values, columns)
    if sides is None:
        return None
    answers, wins = sides
    if not all(isinstance(answer, str) for answer in answers):
        before = _messages(values[columns.messages]) if _filled(values, columns.messages) else None
        return Found(before if before and _speaker(before[-1]) not in ("assistant", "gpt") else [], answers, wins, True)
    if any(map(messages_in, answers)):
        raise RowFault("not-messages", "JSON text of messages stays text here", "write lists, or have cells read as messages")
    talks = [turns_of_transcript(as_transcript(answer)) for answer in answers]
    if all(talks):
        return Found([], talks, wins, True)
    prompt = _shared_start(answers)
    if not prompt.strip():
        raise RowFault("missing-field", "the answers don't start alike", f"give their prompt in column {columns.prompt!r}")
    note = f"{columns.prompt}: taken from the answers' shared start"
    return Found(_context(prompt), [answer[len(prompt) :] for answer in answers], wins, True, (note,))


def _shared_start(texts: Sequence[str]) -> str:
    # As TRL finds it: up to the first letter that differs; a space in front of that belongs to the answers.
    low, high = min(texts), max(texts)
    same = next((i for i, letter in enumerate(low) if i >= len(high) or letter != high[i]), max(len(low) - 1, 0))
    return low[: same - 1] if same and low[same - 1] == " " else low[:same]


_ASKED = [{"role": "user", "content": "Name a prime."}]
_GOOD, _BAD = ({"role": "assistant", "content": text} for text in ("Seven.", "Eight."))

SHAPES: tuple[Shape, ...] = (
    Shape(
        "swift",
        "`messages` (the last turn is the better answer) + `rejected_response` or `rejected_messages`",
        _find_swift,
        ({"messages": [*_ASKED, _GOOD], "rejected_response": "Eight."},),
    ),
    Shape("messages", "`messages`, the last one the assistant's", _find_messages, ({"messages": [*_ASKED, _GOOD]},)),
    Shape(
        "nemo",
        "`context` + `completions`, each with its `completion` and `rank` (the lowest is the best)",
        _find_nemo,
        (
            {
                "context": _ASKED,
                "completions": [{"rank": 0, "completion": [_GOOD]}, {"rank": 1, "completion": [_BAD]}],
            },
        ),
        reads=("context",),
    ),
    Shape(
        "sharegpt",
        "`conversations` (`from`, `value`), alone or with `chosen` + `rejected`",
        _find_sharegpt,
        (
            {"conversations": [{"from": "human", "value": "Name a prime."}, {"from": "gpt", "value": "Seven."}]},
            {
                "conversations": [{"from": "human", "value": "Name a prime."}],
                "chosen": {"from": "gpt", "value": "Seven."},
                "rejected": {"from": "gpt", "value": "Eight."},
            },
        ),
    ),
    Shape(
        "alpaca",
        "`instruction` (and `input`, `history`) + `output`, or + `chosen` + `rejected`",
        _find_alpaca,
        (
            {"instruction": "Name a prime.", "input": "", "output": "Seven."},
            {"instruction": "Name a prime.", "chosen": "Seven.", "rejected": "Eight."},
        ),
        reads=("context", "history", "input"),
    ),
    Shape(
        "prompt",
        "`prompt` (text or messages) + `response` or `completion` (KTO's `label` beside it is a rating), + `responses` or "
        "`completions`, or + `chosen` + `rejected`",
        _find_prompt,
        (
            {"prompt": "Name a prime.", "response": "Seven."},
            {"prompt": "Name a prime.", "completion": "Seven.", "label": True},
            {"prompt": _ASKED, "responses": ["Seven.", "Eight."]},
            {"prompt": "Name a prime.", "chosen": "Seven.", "rejected": "Eight."},
            {"prompt": _ASKED, "chosen": [_GOOD], "rejected": [_BAD]},
        ),
    ),
    Shape(
        "openrlhf",
        "`input` + `output` (a `reward` beside them is a rating), or + `chosen` + `rejected`",
        _find_openrlhf,
        (
            {"input": "Name a prime.", "output": "Seven.", "reward": 0.7},
            {"input": "Name a prime.", "chosen": "Seven.", "rejected": "Eight."},
        ),
        reads=("input",),
    ),
    Shape(
        "implicit",
        "`chosen` + `rejected` as whole conversations, or as texts that start alike",
        _find_implicit,
        (
            {"chosen": [*_ASKED, _GOOD], "rejected": [*_ASKED, _BAD]},
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        ),
    ),
)
"""Every format, in the order in which they are tried."""

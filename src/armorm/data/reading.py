"""Raw records → validated rows, and a count of every record that was left out, by reason.

In: records of one source, its column names, the objectives.  Out: a `Stream` of rows, or all of them as a `Read`.
Cost: one pass; a stream holds no rows, only a digest of each.

Texts are kept as they stand, letter by letter. A rating outside its scale faults the whole row; nothing is ever clipped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, Literal, NoReturn

from pydantic import BaseModel, ConfigDict

from armorm.conversation import Message, fault_in, is_utf8, prompt_group
from armorm.data.cells import context_turns, is_absent, is_answer_turn, messages_of, parse_list, rating
from armorm.data.files import BadRecord, Found, Record, Skipped
from armorm.data.rows import AnyRow, BenchmarkItem, PreferencePair, RatedResponse, Row
from armorm.errors import DataError
from armorm.objectives import Objective, Objectives

OnFault = Literal["drop", "fail"]
Repeats = Literal["keep", "drop"]
"""Whether a row that says what an earlier one said stays (`keep`, with a note) or goes (`drop`, counted as skipped)."""


class Columns(BaseModel):
    """Which column holds what.

    A rated row has `messages`, or `prompt` + `response`. A pair has `chosen` and `rejected`, as texts next to `prompt` or as
    message lists (whole conversations, or only what follows `prompt`). `prompt` is a text or a list of messages, and `system`
    may come with it. Message lists may be stored as JSON text, `prompt` excepted: its text is always text.

    `ratings` maps objectives to columns; objectives it doesn't list are then not read from this source. Without it, each
    objective's column is its own name. `group`, when named, overrides the group computed from the prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = "id"
    group: str | None = None
    messages: str = "messages"
    prompt: str = "prompt"
    response: str = "response"
    system: str | None = "system"
    chosen: str = "chosen"
    rejected: str = "rejected"
    section: str | None = "section"
    subset: str | None = "subset"
    ratings: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class FaultCounts:
    """What was left out and why.

    `counts`: fault → rows dropped for it (a row counts once, for its first fault); `skipped`: reason → rows left out on purpose
    ("tie", "repeated"), which `on_fault="fail"` does not mind; `notes`: things seen in rows that may have been kept
    ("rating-na": a rating that says "N/A"); `examples`: the first few of each fault, as "file:row: what (remedy)".
    """

    counts: Mapping[str, int]
    notes: Mapping[str, int]
    examples: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def drops(self) -> dict[str, int]:
        """Reason → rows, of both kinds."""
        return {**self.counts, **self.skipped}

    def to_json(self) -> dict[str, Any]:
        """The counts alone."""
        return {"faults": dict(self.counts), "skipped": dict(self.skipped), "notes": dict(self.notes)}


@dataclass(frozen=True, slots=True)
class Read(Generic[Row]):
    """What one source gave: `len(rows)` and the faults' `drops` add up to `total`."""

    rows: tuple[Row, ...]
    total: int
    faults: FaultCounts


Parse = Callable[[Mapping[str, Any], str, "_Tally"], Row]
"""A record's values, the row's id, where to count → the row."""


class Stream(Generic[Row]):
    """Rows of one source as they are read, none of them held.

    Iterating once gives the rows and, at its end, raises DataError for a named column that no record has. `total` and
    `faults` count what has passed so far. Faults go to `on_fault_line` as they are met, "file:row: what (remedy)".
    """

    def __init__(
        self,
        records: Iterable[Found],
        parse: Parse[Row],
        *,
        source: str,
        columns: Columns,
        named: Iterable[str | None],
        where: str,
        repeats: Repeats,
        on_fault_line: Callable[[str], None] | None,
    ) -> None:
        self._records, self._source, self._columns, self._named = records, source, columns, list(named)
        self._parse: Parse[Row] = parse
        self._repeats, self._seen = repeats, set[bytes]()
        self._tally = _Tally(where, on_fault_line)
        self._ids: set[bytes] = set()

    def __iter__(self) -> Iterator[Row]:
        for record in self._records:
            if (row := self._row(record)) is not None:
                yield row
        self._tally.check_columns(self._named)

    @property
    def total(self) -> int:
        return self._tally.total

    @property
    def faults(self) -> FaultCounts:
        return self._tally.to_counts()

    def read(self, on_fault: OnFault = "drop") -> Read[Row]:
        """All rows at once. Raises DataError for `on_fault="fail"` with the first 20 faults."""
        rows = tuple(self)
        self._tally.check_faults(on_fault)
        return Read(rows, self.total, self.faults)

    def _row(self, record: Found) -> Row | None:
        tally = self._tally
        tally.met(record)
        if isinstance(record, Skipped):
            tally.skipped[record.reason] += 1
            return None
        try:
            if isinstance(record, BadRecord):
                raise _Faulty(record.fault, "", record.remedy)
            later = f"{len(tally.files)}-" if len(tally.files) > 1 else ""
            part = f"-{record.part}" if record.part else ""
            row_id = _name(record.values, self._columns.id) or f"{self._source}-{later}{record.row}{part}"
            row = self._parse(record.values, row_id, tally)
            if (digest := _digest(row_id)) in self._ids:
                raise _Faulty("duplicate-id", repr(row_id), "give each row of a source an id of its own, or no id at all")
            self._ids.add(digest)
        except _Faulty as fault:
            tally.drop(record, fault)
            return None
        return None if self._is_repeat(row) else row

    def _is_repeat(self, row: Row) -> bool:
        digest = _digest(repr(_content_of(row)))
        if digest not in self._seen:
            self._seen.add(digest)
            return False
        drop = self._repeats == "drop"
        (self._tally.skipped if drop else self._tally.notes)["repeated"] += 1
        return drop


def stream_ratings(
    records: Iterable[Found],
    *,
    source: str,
    objectives: Objectives,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    where: str,
    repeats: Repeats = "keep",
    on_fault_line: Callable[[str], None] | None = None,
) -> Stream[RatedResponse]:
    """Rated responses as they come; `where` names the source's place in messages when a record does not know its file.

    `repeats`: what becomes of a row whose text and ratings were all there before.
    """
    named = {o.name: o.name for o in objectives} if columns.ratings is None else columns.ratings
    wanted = [(objectives[objectives.column(name)], column) for name, column in named.items()]

    def parse(values: Mapping[str, Any], row_id: str, tally: _Tally) -> RatedResponse:
        messages = _rated_messages(values, columns)
        ratings = _ratings(values, wanted, tally)
        return RatedResponse(row_id, _group(values, columns, messages), source, messages, ratings)

    must = [columns.group, *(columns.ratings or {}).values()]
    return Stream(
        records, parse, source=source, columns=columns, named=must, where=where, repeats=repeats, on_fault_line=on_fault_line
    )


def stream_pairs(
    records: Iterable[Found],
    *,
    source: str,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    where: str,
    repeats: Repeats = "keep",
    on_fault_line: Callable[[str], None] | None = None,
) -> Stream[PreferencePair]:
    """Preference pairs as they come (RewardBench's fields are the default columns)."""

    parse = _placed(PreferencePair, _two_answers, source, columns)
    named = [columns.group]
    return Stream(
        records, parse, source=source, columns=columns, named=named, where=where, repeats=repeats, on_fault_line=on_fault_line
    )


def stream_items(
    records: Iterable[Found],
    *,
    source: str,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    where: str,
    on_fault_line: Callable[[str], None] | None = None,
) -> Stream[BenchmarkItem]:
    """Benchmark items as they come: pairs, or `chosen` and `rejected` as lists of texts next to `prompt`.

    Repeats stay: a benchmark is scored as it was published.
    """

    parse = _placed(BenchmarkItem, _many_answers, source, columns)
    named = [columns.group]
    return Stream(
        records, parse, source=source, columns=columns, named=named, where=where, repeats="keep", on_fault_line=on_fault_line
    )


def _placed(kind: Callable[..., Row], answers_of: Callable[..., Any], source: str, columns: Columns) -> Parse[Row]:
    # The parser of rows with a context, two sides and a place in a benchmark.
    def parse(values: Mapping[str, Any], row_id: str, _tally: _Tally) -> Row:
        context, chosen, rejected = answers_of(values, columns)
        group = _group(values, columns, context)
        section, subset = _name(values, columns.section) or "", _name(values, columns.subset) or ""
        return kind(row_id, group, source, context, chosen, rejected, section, subset)

    return parse


def cap_rows(rows: tuple[Row, ...], cap: int | None, *, seed: int, strata: Callable[[Row], str]) -> tuple[Row, ...]:
    """At most `cap` rows in their old order, each stratum with its share; a larger cap keeps all that a smaller one keeps.

    Which rows stay depends on the seed, the ids and the strata, not on the rows' order. Raises DataError for a cap below 1.
    """
    if cap is None or cap >= len(rows):
        return rows
    if cap < 1:
        raise DataError(f"the cap on rows is {cap}: it must be at least 1 (leave it out to keep every row)")
    keys = [blake2b(f"{seed}:{r.id}".encode(), digest_size=8).digest() for r in rows]
    groups: dict[str, list[int]] = {}
    for i in sorted(range(len(rows)), key=keys.__getitem__):
        groups.setdefault(strata(rows[i]), []).append(i)
    # The r-th of a stratum's n rows stands at (r + 1/2)/n, so any first part of the sorted whole holds equal shares.
    places = {i: ((r + 0.5) / len(g), keys[i]) for g in groups.values() for r, i in enumerate(g)}
    return tuple(rows[i] for i in sorted(sorted(places, key=places.__getitem__)[:cap]))


class _Faulty(Exception):  # noqa: N818 - one row's fault, never leaves this module
    def __init__(self, name: str, what: str, remedy: str) -> None:
        super().__init__(name, what, remedy)
        self.name, self.what, self.remedy = name, what, remedy


class _Tally:
    """Counts while a source is read."""

    LISTED = 20
    EXAMPLES = 3

    def __init__(self, where: str, on_fault_line: Callable[[str], None] | None = None) -> None:
        self.where = where
        self.on_fault_line = on_fault_line
        self.total = 0
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.columns: set[str] = set()
        self.files: list[str] = []
        self.examples: list[str] = []
        self.first: list[str] = []

    def met(self, record: Found) -> None:
        self.total += 1
        if record.where not in self.files[-1:]:
            self.files.append(record.where)
        if isinstance(record, Record):
            self.columns.update(record.values)
            self.notes.update(record.notes)

    def drop(self, record: Record | BadRecord, fault: _Faulty) -> None:
        self.counts[fault.name] += 1
        what = f"{fault.name}: {fault.what}" if fault.what else fault.name
        line = f"{record.where or self.where}:{record.row}: {what} ({fault.remedy})"
        line = line.encode("utf-8", "backslashreplace").decode()
        if self.counts[fault.name] <= self.EXAMPLES:
            self.examples.append(line)
        if len(self.first) < self.LISTED:
            self.first.append(line)
        if self.on_fault_line:
            self.on_fault_line(line)

    def to_counts(self) -> FaultCounts:
        return FaultCounts(dict(self.counts), dict(self.notes), tuple(self.examples), dict(self.skipped))

    def check_faults(self, on_fault: OnFault) -> None:
        faulty = sum(self.counts.values())
        if faulty and on_fault == "fail":
            more = f"\n… and {faulty - len(self.first)} more" if faulty > len(self.first) else ""
            listed = "\n".join(self.first)
            raise DataError(f"{self.where}: {faulty} of {self.total} rows are faulty:\n{listed}{more}")

    def check_columns(self, named: Iterable[str | None]) -> None:
        absent = [c for c in named if c is not None and c not in self.columns]
        if absent and self.columns:
            raise DataError(
                f"{self.where}: no row has the column {absent[0]!r} that the recipe names; "
                f"the columns are {', '.join(sorted(self.columns)[:40])}"
            )


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _content_of(row: AnyRow) -> Any:
    if isinstance(row, RatedResponse):
        return row.messages, sorted(row.ratings.items())
    return row.context, row.chosen, row.rejected


def _name(values: Mapping[str, Any], column: str | None) -> str | None:
    # A short text such as an id; numbers count, whole ones without a point (pandas turns ids with gaps into floats).
    value = None if column is None else values.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise _Faulty("not-text", f"column {column!r} holds a {type(value).__name__}", "give a text or a number")
    if not is_utf8(str(value)):
        raise _Faulty("not-utf8", f"column {column!r}", "remove the unpaired surrogates or bytes that are no UTF-8")
    return str(value)


def _group(values: Mapping[str, Any], columns: Columns, messages: Iterable[Message]) -> str:
    given = _name(values, columns.group)
    return prompt_group(messages) if given is None else f"c:{given}"


def _has(values: Mapping[str, Any], *columns: str) -> bool:
    return all(values.get(c) is not None for c in columns)


def _missing(*ways: tuple[str, ...]) -> NoReturn:
    need = " or ".join(" + ".join(repr(c) for c in way) for way in ways)
    raise _Faulty("missing-field", f"needs {need}", "fill the columns in, or map the file's own names in the recipe's columns")


def _rated_messages(values: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    if _has(values, columns.messages) and values[columns.messages] != "":
        return _conversation(parse_list(values[columns.messages]), columns.messages)
    if not _has(values, columns.prompt, columns.response):
        _missing((columns.messages,), (columns.prompt, columns.response))
    answer = {"role": "assistant", "content": values[columns.response]}
    return _conversation([*_prompt(values, columns), answer], columns.response)


def _two_answers(values: Mapping[str, Any], columns: Columns) -> tuple[tuple[Message, ...], str, str]:
    if not _has(values, columns.chosen, columns.rejected):
        _missing((columns.chosen, columns.rejected))
    chosen, rejected = (_side(values, columns, c) for c in (columns.chosen, columns.rejected))
    if chosen[:-1] != rejected[:-1]:
        raise _Faulty("different-contexts", "", "let chosen and rejected differ in the last turn only")
    good, bad = chosen[-1]["content"], rejected[-1]["content"]
    if good.strip() == bad.strip():
        raise _Faulty("chosen-equals-rejected", "", "remove the pair: it prefers nothing")
    return chosen[:-1], good, bad


def _many_answers(values: Mapping[str, Any], columns: Columns) -> tuple[tuple[Message, ...], tuple[str, ...], tuple[str, ...]]:
    sides = [values.get(c) for c in (columns.chosen, columns.rejected)]
    if not (_has(values, columns.prompt) and all(_is_texts(side) for side in sides)):
        shared, good, bad = _two_answers(values, columns)
        return shared, (good,), (bad,)
    context: tuple[Message, ...] = ()
    for column, side in zip((columns.chosen, columns.rejected), sides, strict=True):
        if not side:
            raise _Faulty("missing-field", f"column {column!r} is empty", "give at least one chosen and one rejected answer")
        for answer in side:
            context = _conversation([*_prompt(values, columns), {"role": "assistant", "content": answer}], column)[:-1]
    chosen, rejected = sides
    return context, tuple(chosen or ()), tuple(rejected or ())


def _is_texts(side: Any) -> bool:
    return isinstance(side, list) and all(isinstance(answer, str) for answer in side)


def _side(values: Mapping[str, Any], columns: Columns, column: str) -> tuple[Message, ...]:
    answer, prompted = values[column], _has(values, columns.prompt)
    if isinstance(answer, str) and prompted:
        return _conversation([*_prompt(values, columns), {"role": "assistant", "content": answer}], column)
    turns = parse_list(answer)
    follows = isinstance(turns, list) and turns and is_answer_turn(turns[0])
    return _conversation([*_prompt(values, columns), *turns] if follows and prompted else turns, column)


def _prompt(values: Mapping[str, Any], columns: Columns) -> list[Any]:
    return context_turns(values[columns.prompt], values.get(columns.system) if columns.system else None)


def _conversation(messages: Any, column: str) -> tuple[Message, ...]:
    if fault := fault_in(messages):
        raise _Faulty(str(fault), f"in column {column!r}", fault.remedy)
    return messages_of(messages)


def _ratings(values: Mapping[str, Any], wanted: Iterable[tuple[Objective, str]], tally: _Tally) -> dict[str, float]:
    ratings: dict[str, float] = {}
    for objective, column in wanted:
        value = values.get(column)
        value = value.strip() if isinstance(value, str) else value
        if not is_absent(value) or _is_category(value, objective):
            ratings[objective.name] = _rating(value, objective, column)
        elif value:
            tally.notes["rating-na"] += 1
    if not ratings:
        columns = ", ".join(column for _, column in wanted)
        raise _Faulty("no-rating", "", f"rate it on one of the objectives' columns: {columns}")
    return ratings


def _rating(value: Any, objective: Objective, column: str) -> float:
    number = objective.raw(value) if _is_category(value, objective) else rating(value)
    plain = number is not None or isinstance(value, str)
    what = f"column {column!r} holds {str(value)[:60]!r}" if plain else f"column {column!r} holds a {type(value).__name__}"
    if number is None:
        raise _Faulty("rating-not-a-number", what, f"give {_on_scale(objective)}, or nothing where there is no rating")
    if not math.isfinite(number) and not isinstance(value, int):
        raise _Faulty("rating-not-finite", what, "give a finite number, or nothing where there is no rating")
    if not objective.min <= number <= objective.max:
        raise _Faulty("rating-off-scale", what, f"give {_on_scale(objective)}, or correct the objective's scale")
    return number


def _is_category(value: Any, objective: Objective) -> bool:
    return isinstance(value, str) and value in (objective.categories or {})


def _on_scale(objective: Objective) -> str:
    kinds = f" or one of {', '.join(sorted(objective.categories))}" if objective.categories else ""
    return f"a number from {objective.min:g} to {objective.max:g}{kinds}"

"""Raw records → validated rows, and a count of every record that was left out, by reason.

In: records of one source, its column names, the objectives.  Out: a `Stream` of rows, or all of them as a `Read`.
Cost: one pass; a stream holds no rows, only a digest of each.

Texts are kept as they stand, letter by letter. A rating outside its scale faults the whole row; nothing is ever clipped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from typing import Any, Generic, Literal

import numpy as np
from jaxtyping import Int32, Int64

from armorm.conversation import Answer, Message, Span, is_utf8, prompt_group, turns_of
from armorm.data.cells import is_absent, is_nothing, rating
from armorm.data.files import BadRecord, Found, Record, Skipped
from armorm.data.rows import AnyRow, BenchmarkItem, PreferencePair, RatedResponse, Row
from armorm.data.shapes import Columns, RowFault, Texts, bare_text, read_texts
from armorm.errors import DataError
from armorm.numbers import shorten
from armorm.objectives import Objective, Objectives

OnFault = Literal["drop", "fail"]
Repeats = Literal["keep", "drop"]
"""Whether a row that says what an earlier one said stays (`keep`, with a note) or goes (`drop`, counted as skipped)."""


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
        self._made = set[bytes]()  # ids that rows were given here
        self._ids: dict[bytes, tuple[bytes, int]] = {}  # of each id its prompt, and the number of its latest row

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
        self.check(on_fault)
        return Read(rows, self.total, self.faults)

    def check(self, on_fault: OnFault) -> None:
        """Raises DataError for `on_fault="fail"` with the first 20 of the faults that have been met."""
        self._tally.check_faults(on_fault)

    def _row(self, record: Found) -> Row | None:
        tally = self._tally
        tally.met(record)
        if isinstance(record, Skipped):
            tally.skipped[record.reason] += 1
            return None
        try:
            if isinstance(record, BadRecord):
                raise RowFault(record.fault, "", record.remedy)
            later = f"{len(tally.files)}-" if len(tally.files) > 1 else ""
            part = f"-{record.part}" if record.part else ""
            row_id = _name(record.values, self._columns.id) or f"{self._source}-{later}{record.row}{part}"
            row = self._parse(record.values, row_id, tally)
            content = _digest(repr(_content_of(row)))
            row = self._numbered(row, content)
        except RowFault as fault:
            tally.drop(record, fault)
            return None
        return None if self._is_repeat(content) else row

    def _numbered(self, row: Row, content: bytes) -> Row:
        # Several answers to one prompt may share its id; the later ones get a number.
        key, own = _digest(row.id), _digest(repr(_context_of(row)))
        prompt, before = self._ids.get(key, (own, 0))
        if before and (prompt != own or content in self._seen):
            raise RowFault(
                "duplicate-id", repr(row.id), "give each prompt of a source an id of its own, or none; remove repeated rows"
            )
        if not before and key not in self._made:
            self._ids[key] = prompt, 1
            return row
        numbers = count(max(before + 1, 2))
        number = next(n for n in numbers if (own := _digest(f"{row.id}#{n}")) not in self._ids and own not in self._made)
        self._ids[key] = prompt, number  # so that the next one need not look at those that are taken again
        self._made.add(_digest(name := f"{row.id}#{number}"))
        return replace(row, id=name)

    def _is_repeat(self, content: bytes) -> bool:
        if content not in self._seen:
            self._seen.add(content)
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
    span: Span = "last-turn",
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
        texts = read_texts(values, columns, span=span, kind="one")
        _check(texts, columns)
        messages = (*texts.context, *turns_of(texts.answers[0]))
        ratings = _ratings(values, wanted, columns, tally)
        tally.notes.update(texts.notes)
        return RatedResponse(row_id, _group(values, columns, messages), source, messages, ratings)

    must = [*columns.mapped, *(columns.ratings or {}).values()]
    return Stream(
        records, parse, source=source, columns=columns, named=must, where=where, repeats=repeats, on_fault_line=on_fault_line
    )


def stream_pairs(
    records: Iterable[Found],
    *,
    source: str,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    span: Span = "last-turn",
    where: str,
    repeats: Repeats = "keep",
    on_fault_line: Callable[[str], None] | None = None,
) -> Stream[PreferencePair]:
    """Preference pairs as they come (RewardBench's fields are the default columns)."""

    parse = _placed(PreferencePair, _two_answers, source, columns, span)
    named = columns.mapped
    return Stream(
        records, parse, source=source, columns=columns, named=named, where=where, repeats=repeats, on_fault_line=on_fault_line
    )


def stream_items(
    records: Iterable[Found],
    *,
    source: str,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    span: Span = "last-turn",
    where: str,
    on_fault_line: Callable[[str], None] | None = None,
) -> Stream[BenchmarkItem]:
    """Benchmark items as they come: pairs, or `chosen` and `rejected` as lists of texts next to `prompt`.

    Repeats stay: a benchmark is scored as it was published.
    """

    parse = _placed(BenchmarkItem, _many_answers, source, columns, span)
    named = columns.mapped
    return Stream(
        records, parse, source=source, columns=columns, named=named, where=where, repeats="keep", on_fault_line=on_fault_line
    )


def _placed(
    kind: Callable[..., Row], sides_of: Callable[[Texts], tuple[Any, Any]], source: str, columns: Columns, span: Span
) -> Parse[Row]:
    # The parser of rows with a context, two sides and a place in a benchmark.
    def parse(values: Mapping[str, Any], row_id: str, tally: _Tally) -> Row:
        texts = read_texts(values, columns, span=span, kind="pair")
        _check(texts, columns)
        chosen, rejected = sides_of(texts)
        group = _group(values, columns, texts.context)
        section, subset = _name(values, columns.section) or "", _name(values, columns.subset) or ""
        tally.notes.update(texts.notes)
        return kind(row_id, group, source, texts.context, chosen, rejected, section, subset)

    return parse


def _check(texts: Texts, columns: Columns) -> None:
    for fault, won in zip(texts.faults, texts.wins or (None,) * len(texts.faults), strict=True):
        if fault is not None:
            raise fault.within("" if won is None else columns.chosen if won else columns.rejected)


def _sides(texts: Texts) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    wins = texts.wins or ()
    chosen, rejected = (tuple(a for a, won in zip(texts.answers, wins, strict=True) if won is side) for side in (True, False))
    return chosen, rejected


def _two_answers(texts: Texts) -> tuple[Answer, Answer]:
    chosen, rejected = _sides(texts)
    if len(chosen) != 1 or len(rejected) != 1:
        raise RowFault("many-answers", f"{len(chosen)} win over {len(rejected)}", "give one chosen and one rejected answer")
    if bare_text(chosen[0]) == bare_text(rejected[0]):
        raise RowFault("chosen-equals-rejected", "", "remove the pair: it prefers nothing")
    return chosen[0], rejected[0]


def _many_answers(texts: Texts) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    chosen, rejected = _sides(texts)
    if len(chosen) == len(rejected) == 1:
        _two_answers(texts)  # a pair of equals prefers nothing in a benchmark either
    return chosen, rejected


def cap_rows(rows: tuple[Row, ...], cap: int | None, *, seed: int, strata: Callable[[Row], str]) -> tuple[Row, ...]:
    """At most `cap` rows in their old order, each stratum with its share; a larger cap keeps all that a smaller one keeps.

    Which rows stay depends on the seed, the ids and the strata, not on the rows' order. Raises DataError for a cap below 1.
    """
    if cap is None or cap >= len(rows):
        return rows
    numbers: dict[str, int] = {}
    own = np.array([numbers.setdefault(strata(row), len(numbers)) for row in rows], dtype=np.int32)
    return tuple(rows[i] for i in cap_places((row.id for row in rows), own, cap, seed=seed).tolist())


def cap_places(ids: Iterable[str], strata: Int32[np.ndarray, " n"], cap: int, *, seed: int) -> Int64[np.ndarray, " cap"]:
    """The places, rising, of the rows that `cap_rows` keeps; the strata are numbered. Raises DataError for a cap below 1."""
    if cap < 1:
        raise DataError(f"the cap on rows is {cap}: it must be at least 1 (leave it out to keep every row)")
    digests = (blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest() for row_id in ids)
    keys = np.fromiter((int.from_bytes(digest, "big") for digest in digests), np.uint64, len(strata))
    drawn = np.argsort(keys, kind="stable")
    _, first, own, sizes = np.unique(strata[drawn], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(drawn), np.int64)  # within its stratum
    rank[np.argsort(own, kind="stable")] = np.arange(len(drawn)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # The r-th of a stratum's n rows stands at (r + 1/2)/n, so any first part of the sorted whole holds equal shares.
    order = np.lexsort((rank, first[own], keys[drawn], (rank + 0.5) / sizes[own]))
    return np.sort(drawn[order[:cap]])


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

    def drop(self, record: Record | BadRecord, fault: RowFault) -> None:
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
                f"the columns are {shorten(', '.join(sorted(self.columns)[:40]), 1000)}"
            )


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _context_of(row: AnyRow) -> Any:
    return row.messages[:-1] if isinstance(row, RatedResponse) else row.context


def _content_of(row: AnyRow) -> Any:
    if isinstance(row, RatedResponse):
        return row.messages, sorted(row.ratings.items())
    return row.context, row.chosen, row.rejected


def _name(values: Mapping[str, Any], column: str | None) -> str | None:
    # A short text such as an id; numbers count, whole ones without a point (pandas turns ids with gaps into floats).
    value = None if column is None else values.get(column)
    if is_nothing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise RowFault("not-text", f"column {column!r} holds a {type(value).__name__}", "give a text or a number")
    if not is_utf8(str(value)):
        raise RowFault("not-utf8", f"column {column!r}", "remove the unpaired surrogates or bytes that are no UTF-8")
    return str(value)


def _group(values: Mapping[str, Any], columns: Columns, messages: Iterable[Message]) -> str:
    given = _name(values, columns.group)
    return prompt_group(messages) if given is None else f"c:{given}"


def _ratings(
    values: Mapping[str, Any], wanted: Iterable[tuple[Objective, str]], columns: Columns, tally: _Tally
) -> dict[str, float]:
    ratings: dict[str, float] = {}
    for objective, column in wanted:
        value = values.get(column)
        value = value.strip() if isinstance(value, str) else value
        if columns.missing and rating(value) in columns.missing:
            tally.notes["rating-missing"] += 1
        elif not is_absent(value) or _is_category(value, objective):
            ratings[objective.name] = _rating(value, objective, column)
        elif value:
            tally.notes["rating-na"] += 1
    if not ratings:
        named = ", ".join(column for _, column in wanted)
        remedy = f"rate it on one of the objectives' columns: {named}" if named else "no objective is known: list the objectives"
        raise RowFault("no-rating", "", remedy)
    return ratings


def _rating(value: Any, objective: Objective, column: str) -> float:
    number = objective.raw(value) if _is_category(value, objective) else rating(value)
    plain = number is not None or isinstance(value, str)
    what = f"column {column!r} holds {str(value)[:60]!r}" if plain else f"column {column!r} holds a {type(value).__name__}"
    if number is None:
        raise RowFault("rating-not-a-number", what, f"give {_on_scale(objective)}, or nothing where there is no rating")
    if not math.isfinite(number) and not isinstance(value, int):
        raise RowFault("rating-not-finite", what, "give a finite number, or nothing where there is no rating")
    if not objective.min <= number <= objective.max:
        remedy = f"give {_on_scale(objective)}, correct the objective's scale, or list it as `missing` if it means no rating"
        raise RowFault("rating-off-scale", what, remedy)
    return number


def _is_category(value: Any, objective: Objective) -> bool:
    return isinstance(value, str) and value in (objective.categories or {})


def _on_scale(objective: Objective) -> str:
    kinds = f" or one of {', '.join(sorted(objective.categories))}" if objective.categories else ""
    return f"a number from {objective.min:g} to {objective.max:g}{kinds}"

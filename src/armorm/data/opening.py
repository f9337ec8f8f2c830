"""A source by its name or its files → a stream of its rows: a public set by name, or a user's own files.

In: a `Request`.  Out: `Opened`: the stream, the objectives, and what was decided on the way.
Cost: none for a public set; files that bring no objectives are read once before, to find the columns that hold ratings.

The objectives of rated files are those asked for, or those of an `objectives.json` in the file's folder, or those written into
an exported Parquet file, or else the columns that hold numbers, on the range seen. (A file beside that names none of the columns
is another file's.)
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from armorm.conversation import is_utf8
from armorm.data.cells import is_absent, rating
from armorm.data.files import BadRecord, Found, Record, expand, records
from armorm.data.reading import Stream, stream_pairs, stream_ratings
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.shapes import Columns, RowFormat, kind_of_row
from armorm.data.sources.read import source_pairs, source_ratings
from armorm.data.sources.registry import pair_sources, rating_sources
from armorm.data.sources.source import PairSource, RatingSource, Unfold
from armorm.errors import DataError
from armorm.objectives import Objective, Objectives, is_scale

RowKind = Literal["ratings", "pairs"]
Watch = Callable[[Iterable[Found]], Iterable[Found]]
"""Looks at raw records as they pass, to tell how far reading has come."""

METADATA_KEY = b"armorm"
LARGEST = 1e15
"""A column with larger numbers holds no ratings."""
NUMBERS = 0.5
"""The share of a column's cells that must at least be numbers for it to hold ratings; the others are then faults."""
FEWEST = 10
"""From this many whole numbers on, a column that only ever rises counts the rows."""


@dataclass(frozen=True)
class Request:
    """What is asked for. `source`: a public set's name, or files; `path`: a local copy of a public set; `kind`: None to see.

    `rows` says how own files are read.
    """

    source: str
    path: str | None = None
    kind: RowKind | None = None
    split: str | None = None
    limit: int | None = None
    objectives: Path | None = None
    rows: RowFormat = field(default_factory=RowFormat)


@dataclass(frozen=True)
class Opened:
    """A source to be read once. `remarks` say what was decided; `published`: its records as published, 0 if not known."""

    name: str
    title: str
    kind: RowKind
    stream: Stream[RatedResponse] | Stream[PreferencePair]
    objectives: Objectives
    remarks: tuple[str, ...] = ()
    published: int = 0
    where: str = ""


def open_source(request: Request, *, on_fault_line: Callable[[str], None] | None = None, watch: Watch | None = None) -> Opened:
    """Raises DataError for a name that is no source and no file, and for files that can't be had."""
    if request.limit is not None and request.limit < 1:
        raise DataError(f"the limit on records is {request.limit}: it must be at least 1")
    rated, paired = rating_sources().get(request.source), pair_sources().get(request.source)
    if rated and paired and request.kind is None:
        raise DataError(f"{request.source!r} names ratings and pairs: say which by `kind`, ratings or pairs")
    if (rated or paired) and request.rows != RowFormat():
        raise DataError(f"{request.source} knows its own columns and format: leave them out, or name its files in its place")
    look = _watch_first(watch, request.limit)
    if rated and request.kind != "pairs":
        return _open_ratings(rated, request, look, on_fault_line)
    if paired and request.kind != "ratings":
        return _open_pairs(paired, request, look, on_fault_line)
    if rated or paired:
        raise DataError(f"{request.source!r} names {'ratings' if rated else 'pairs'}, not {request.kind}: leave `kind` out")
    return _open_files(request, look, on_fault_line)


def _watch_first(watch: Watch | None, limit: int | None) -> Watch:
    def look(records: Iterable[Found]) -> Iterable[Found]:
        some = islice(records, _most(limit))
        return watch(some) if watch else some

    return look


def _most(limit: int | None) -> int | None:
    return None if limit is None else min(limit, sys.maxsize)  # all that a slice takes


def _open_ratings(source: RatingSource, request: Request, look: Watch, on_fault_line: Callable[[str], None] | None) -> Opened:
    own = Objectives(source.objectives)
    if request.objectives:
        asked = set(Objectives.from_file(request.objectives).names)
        own = Objectives([o for o in own if o.name in asked])
        if not own:
            names = ", ".join(o.name for o in source.objectives)
            raise DataError(f"{request.objectives} lists none of {source.name}'s objectives, which are {names}")
    place = source.place.at(request.split)
    limited = replace(source, place=place, unfold=_after(look, source.unfold))
    stream = source_ratings(limited, path=request.path, objectives=own, on_fault_line=on_fault_line)
    where = request.path or _hub(place.hub, place.split)
    return Opened(source.name, source.title, "ratings", stream, own, (), _known_size(source.rows, request), where)


def _open_pairs(source: PairSource, request: Request, look: Watch, on_fault_line: Callable[[str], None] | None) -> Opened:
    if request.objectives:
        raise DataError(f"{source.name} holds pairs, which have no objectives: leave `objectives` out")
    place = source.place.at(request.split)
    limited = replace(source, place=place, unfold=_after(look, source.unfold))
    stream = source_pairs(limited, path=request.path, on_fault_line=on_fault_line)
    where = request.path or _hub(place.hub, place.split)
    return Opened(source.name, source.title, "pairs", stream, Objectives([]), (), _known_size(source.rows, request), where)


def _after(look: Watch, unfold: Unfold) -> Unfold:
    def unfold_some(records: Iterable[Found]) -> Iterator[Found]:
        return unfold(look(records))

    return unfold_some


def _hub(hub: str, split: str) -> str:
    return f"{hub}[{split}]" if hub else ""


def _known_size(rows: int, request: Request) -> int:
    known = 0 if request.split else rows
    return min(known, request.limit) if request.limit and known else known


def _open_files(request: Request, look: Watch, on_fault_line: Callable[[str], None] | None) -> Opened:
    paths = _files(request)
    kind = request.kind or _kind_of(paths, request)
    name = paths[0].name.partition(".")[0] if len(paths) == 1 else Path(request.source).parent.name or "files"
    where, title = request.source, ", ".join(p.name for p in paths[:3]) + (" …" if len(paths) > 3 else "")
    rows = look(_records(paths, request))
    how: Any = {"source": name, "where": where, "columns": request.rows.columns, "span": request.rows.span}
    if kind == "pairs":
        if request.objectives:
            raise DataError(f"{where}: pairs have no objectives: leave `objectives` out, or say by `kind` that they are ratings")
        pairs = stream_pairs(rows, **how, on_fault_line=on_fault_line)
        return Opened(name, title, kind, pairs, Objectives([]), where=where)
    objectives, remarks = _objectives_of(paths, request)
    ratings = stream_ratings(rows, objectives=objectives, **how, on_fault_line=on_fault_line)
    return Opened(name, title, kind, ratings, objectives, remarks, where=where)


def _files(request: Request) -> list[Path]:
    if request.path is not None or request.split is not None:
        known = ", ".join((*rating_sources(), *pair_sources())) or "none"
        raise DataError(
            f"{request.source!r} is no public set, so there is nothing that `path` or `split` could mean: the sets are {known}; "
            f"own files are named in the source's place"
        )
    try:
        return expand(request.source)
    except DataError as error:
        if any(mark in request.source for mark in "/.*?$~\\"):
            raise
        raise DataError(
            f"{request.source!r} is neither a public set (`armorm data sources` lists them) nor a file: {error}"
        ) from None


def _records(paths: Iterable[Path], request: Request) -> Iterator[Record | BadRecord]:
    return chain.from_iterable(records(path, request.rows.cells) for path in paths)


def _kind_of(paths: Iterable[Path], request: Request) -> RowKind:
    # What most of the first rows are; a row that is broken says little.
    first = islice(_records(paths, request), 1000)
    kinds = Counter(kind_of_row(r.values, request.rows.columns) for r in first if isinstance(r, Record))
    return "pairs" if kinds["pair"] > kinds["one"] else "ratings"


def _objectives_of(paths: list[Path], request: Request) -> tuple[Objectives, tuple[str, ...]]:
    if request.objectives:
        return Objectives.from_file(request.objectives), ()
    beside = paths[0].parent / "objectives.json"
    if beside.is_file() and beside not in paths:
        known = Objectives.from_file(beside)
        if any(_rates(known, one) for one in islice(_records(paths, request), 1000)):
            return known, (f"objectives are those of {beside}",)
    if written := objectives_in(paths[0]):
        return written, ("objectives are those written into the file",)
    return _objectives_seen(islice(_records(paths, request), _most(request.limit)), request.rows.columns)


def _rates(objectives: Objectives, record: Record | BadRecord) -> bool:
    """Whether a record has a column of one of the objectives."""
    return isinstance(record, Record) and not record.values.keys().isdisjoint(objectives.names)


def objectives_in(path: Path) -> Objectives | None:
    """The objectives that an exported Parquet file carries."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        facts = json.loads((pq.read_schema(path).metadata or {}).get(METADATA_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError, RecursionError):
        return None
    listed = facts.get("objectives") if isinstance(facts, dict) else None
    return Objectives.from_json(listed, where=str(path)) if listed else None


@dataclass(slots=True)
class _Column:
    numbers: int = 0
    others: int = 0
    low: float = math.inf
    high: float = -math.inf
    rising: bool = True
    last: float = field(default=-math.inf)

    def met(self, value: Any, missing: Sequence[float]) -> None:
        number = rating(value)
        if is_absent(value) or number in missing:
            return
        if number is None or not abs(number) <= LARGEST:  # NaN is not
            self.others += 1
            return
        self.numbers += 1
        self.low, self.high = min(self.low, number), max(self.high, number)
        self.rising, self.last = self.rising and number > self.last and number.is_integer(), number


def _objectives_seen(records: Iterable[Record | BadRecord], named: Columns) -> tuple[Objectives, tuple[str, ...]]:
    columns: dict[str, _Column] = {}
    others = {*_NO_RATINGS, *(name for name in named.model_dump().values() if isinstance(name, str))}
    for record in records:
        for name, value in record.values.items() if isinstance(record, Record) else ():
            if name and name not in others and not name.endswith("_id") and isinstance(name, str) and is_utf8(name):
                columns.setdefault(name, _Column()).met(value, named.missing)
    rated = {n: c for n, c in columns.items() if c.numbers and c.numbers >= NUMBERS * (c.numbers + c.others)}
    left = {n: "counts the rows" for n, c in rated.items() if c.rising and c.numbers >= FEWEST}
    left |= {n: "no scale" for n, c in rated.items() if not is_scale(c.low, c.high)}
    left |= {n: "always the same" for n, c in rated.items() if not c.low < c.high}
    kept = [Objective(name=n, min=c.low, max=c.high) for n, c in rated.items() if n not in left]
    scales = ", ".join(f"{o.name} ({o.min:g} to {o.max:g})" for o in kept) or "there are none"
    remarks = [
        f"objectives are the columns that hold numbers, on the range seen: {scales}; a file of objectives gives the true scales"
    ]
    if left:
        remarks.append("left out: " + ", ".join(f"{n} ({why})" for n, why in left.items()))
    return Objectives(kept), tuple(remarks)


_NO_RATINGS = {"group", "source", "index", "idx", "row"}

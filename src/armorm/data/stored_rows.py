"""Rows on disk: written as they are read, read back in order, few of them in memory at a time.

In: rows of one source, a folder.  Out: `StoredRows`, a sequence of rows; what caps, groups and splits need of them as arrays.
Cost: a Parquet file of the texts (zstd), 36 bytes of memory a row, and one row group of about `GROUP` bytes while it is read.
Another order is a second file, sorted through parts of about `PART` bytes, so that reading always goes forward.

A view (a slice, a cap, rows without a benchmark's prompts) is an array of places in the same file. Files belong to the process
that wrote them: each goes when no view of it is left, the folder when its block ends or nobody holds its rows. Pages carry
checksums.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Generic, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, Int32, Int64, UInt64

from armorm.data.outlines import Outline, outline_of
from armorm.data.reading import cap_places
from armorm.data.rows import AnyRow, BenchmarkItem, PreferencePair, RatedResponse, Row
from armorm.data.splits import computed_group, group_code, group_name
from armorm.disk import remove_file, storage_errors
from armorm.draws import code_of
from armorm.errors import StorageError
from armorm.owner import Passing

Kind = Literal["ratings", "pairs", "bench"]
GROUP = 4 * 2**20
"""Bytes of text of a row group: what is unpacked at a time."""
PART = 64 * 2**20
"""Bytes of text that are sorted at a time."""
MOST_PARTS = 128
"""Files that are open at a time while rows are sorted; larger sources have larger parts."""

_LABELS = ("id", "group", "source", "section", "subset")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _LABELS),
        ("ratings", pa.string()),  # JSON text, like the next two
        ("context", pa.string()),  # of a rated response all of its messages
        ("answers", pa.list_(pa.string())),
        ("chosen", pa.int32()),
        ("count", pa.int32()),  # of answers
    ]
)
_OUTLINE = (*_LABELS, "ratings", "chosen", "count")
_BESIDE_TEXTS = 64
"""Bytes of a row beside its texts, about."""


class RowFolder:
    """Where rows are kept: the given folder, or one of the system's for as long as somebody holds rows in it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._held = folder or Passing("armorm-rows")
        self.path = self._held if isinstance(self._held, Path) else self._held.path
        self._numbers = count()

    def next(self) -> Path:
        """A place for one more file."""
        return self.path / f"{next(self._numbers):05d}.parquet"

    def store(self, kind: Kind, rows: Iterable[Row]) -> StoredRows[Row]:
        """Write rows as they come. Raises StorageError, and whatever reading them raises."""
        facts, strata = _Facts(), dict[str, int]()
        with _writing(self.next()) as writer:
            for row in rows:
                values = _values_of(row)
                size = _BESIDE_TEXTS + len(values[6]) + sum(map(len, values[7]))
                facts.add(row, strata.setdefault(_stratum(row), len(strata)), size)
                writer.add(values, size)
        return StoredRows(_File(self, writer.place, kind, writer.groups, facts.columns()), np.arange(writer.rows))


@dataclass(frozen=True, slots=True)
class Columns:
    """What is in memory of each row of a file.

    `prompts` [n]: the computed prompt group; `given` [n]: the group that the source gave, 0 for none; `strata` [n]: what caps
    keep in proportion; `sizes` [n]: bytes of text.
    """

    prompts: UInt64[np.ndarray, " n"]
    given: UInt64[np.ndarray, " n"]
    strata: Int32[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]

    def take(self, places: Int[np.ndarray, " m"]) -> Columns:
        return Columns(self.prompts[places], self.given[places], self.strata[places], self.sizes[places])


@dataclass(frozen=True, eq=False)
class StoredRows(Sequence[Row], Generic[Row]):
    """Rows of one source in a file: those at `places` [n], in that order, in the groups `groups` [n] if they have been joined.

    Reading goes forward where the places do, one row group at a time; a single row costs its row group.
    Every method that reads raises StorageError where the file can't be read back as it was written.
    """

    file: _File
    places: Int64[np.ndarray, " n"]
    groups: UInt64[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> StoredRows[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | StoredRows[Row]:
        if isinstance(place, slice):
            return self.take(place)
        return next(iter(self.take(np.array([range(len(self))[place]]))))

    def __iter__(self) -> Iterator[Row]:
        make = _MAKERS[self.file.kind]
        for group, values in self._read(tuple(_SCHEMA.names)):
            yield make(group, values)

    def outlines(self) -> Iterator[Outline]:
        """The rows without their texts, which are not read."""
        for group, (id_, _, source, section, subset, ratings, chosen, answers) in self._read(_OUTLINE):
            yield Outline(id_, group, source, section, subset, json.loads(ratings), chosen, answers)

    @property
    def columns(self) -> Columns:
        """What is in memory of each row."""
        return self.file.columns.take(self.places)

    # -- other rows of the same file -----------------------------------------------------------------------------------------

    def take(self, places: Int[np.ndarray, " m"] | slice) -> StoredRows[Row]:
        """The rows at these places of this sequence."""
        return replace(self, places=self.places[places], groups=None if self.groups is None else self.groups[places])

    def capped(self, cap: int | None, *, seed: int) -> StoredRows[Row]:
        """At most `cap` rows, see `cap_rows`: strata are ratings, or a pair's section and subset. Raises DataError."""
        if cap is None or cap >= len(self):
            return self
        ids = (row_id for _, (row_id,) in self._read(("id",)))
        return self.take(cap_places(ids, self.columns.strata, cap, seed=seed))

    def grouped(self, groups: UInt64[np.ndarray, " n"]) -> StoredRows[Row]:
        """The rows in these groups."""
        return replace(self, groups=groups)

    def without(self, groups: UInt64[np.ndarray, " g"]) -> StoredRows[Row]:
        """The rows whose group, joined or computed, is none of these (a benchmark's prompts, say)."""
        found = np.isin(self.columns.prompts, groups)
        if self.groups is not None:
            found |= np.isin(self.groups, groups)
        return self.take(np.flatnonzero(~found))

    # -- in another order ----------------------------------------------------------------------------------------------------

    def ordered(self) -> StoredRows[Row]:
        """The rows by prompt and id, written anew: answers to one prompt are neighbours, and reading goes forward.

        The order is the rows' own. Their joined groups depend on the run's other sources, and the stores of features, in which
        the rows stand in this order, must not.
        """
        assert self.groups is not None, "rows are put in order when their groups are known"
        ids = pa.chunked_array([table["id"].combine_chunks() for table in self._tables(("id",))], pa.string())
        keys = pa.table({"prompt": pa.array(self.columns.prompts), "id": ids})
        order = pc.sort_indices(keys, sort_keys=[("prompt", "ascending"), ("id", "ascending")]).to_numpy().astype(np.int64)
        columns = self.columns.take(order)
        with _writing(self.file.folder.next()) as writer:
            part_of = _parts(columns.sizes, max(PART, int(columns.sizes.sum()) // MOST_PARTS + 1))
            edges = np.flatnonzero(np.diff(part_of, prepend=-1, append=-1)) if len(order) else np.zeros(1, np.int64)
            for (first, last), table in zip(pairwise(edges), self._apart(order, edges), strict=True):
                own = order[first:last]
                inside = np.empty(len(own), np.int64)
                inside[np.argsort(own)] = np.arange(len(own))  # a part holds its rows in this sequence's order
                writer.write(table.take(pa.array(inside)), columns.sizes[first:last])
        file = _File(self.file.folder, writer.place, self.file.kind, writer.groups, columns)
        return StoredRows(file, np.arange(len(order)), self.groups[order])

    def _apart(self, order: Int64[np.ndarray, " n"], edges: Int[np.ndarray, " e"]) -> Iterator[pa.Table]:
        """Of each part of the order, between two edges, its rows, in the order in which they stand here."""
        parts = len(edges) - 1
        if parts < 2:
            yield from (pa.concat_tables(self._tables(tuple(_SCHEMA.names))).combine_chunks() for _ in range(parts))
            return
        part_of = np.empty(len(order), np.int64)
        part_of[order] = np.repeat(np.arange(parts), np.diff(edges))
        with ExitStack() as stack:
            with storage_errors(self.file.folder.path):
                folder = stack.enter_context(tempfile.TemporaryDirectory(dir=self.file.folder.path, ignore_cleanup_errors=True))
            places = [Path(folder) / f"{i}.arrow" for i in range(parts)]
            _deal(_joined(self._tables(tuple(_SCHEMA.names)), PART), part_of, places)
            for place in places:
                with _reading(place), pa.OSFile(str(place)) as file:
                    table = pa.ipc.open_stream(file).read_all().combine_chunks()
                place.unlink()
                yield table

    # -- reading -------------------------------------------------------------------------------------------------------------

    def _read(self, names: tuple[str, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        # Each row's group and its values of these columns.
        done, at = 0, names.index("group") if "group" in names else None
        for table in self._tables(names):
            values = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
            if self.groups is not None:
                groups = map(group_name, self.groups[done : done + len(values)].tolist())
                yield from zip(groups, values, strict=True)
            else:
                yield from ((v[at] if at is not None else "", v) for v in values)
            done += len(values)

    def _tables(self, names: tuple[str, ...]) -> Iterator[pa.Table]:
        # The rows as tables, as many at a time as stand in one row group.
        groups = np.searchsorted(self.file.starts, self.places, side="right") - 1
        edges = np.flatnonzero(np.diff(groups, prepend=-1, append=-1)) if len(groups) else ()
        for first, last in pairwise(edges):
            group = int(groups[first])
            yield self.file.read(group, names).take(pa.array(self.places[first:last] - self.file.starts[group]))


def outlines(rows: Sequence[AnyRow]) -> Iterator[Outline]:
    """The rows without their texts; of stored rows, texts are not read."""
    return rows.outlines() if isinstance(rows, StoredRows) else map(outline_of, rows)


# -- files --------------------------------------------------------------------------------------------------------------------


class _File:
    # A file of rows, which goes when nobody holds any of them.

    def __init__(self, folder: RowFolder, place: Path, kind: Kind, groups: Sequence[int], columns: Columns) -> None:
        self.folder, self.place, self.kind, self.columns = folder, place, kind, columns
        self.starts = np.cumsum([0, *groups])[:-1]
        self._last: tuple[int, tuple[str, ...], pa.Table] | None = None
        weakref.finalize(self, _leave, place, os.getpid())

    def read(self, group: int, names: tuple[str, ...]) -> pa.Table:
        """Columns of a row group; the last one that was asked for is at hand."""
        if self._last is None or self._last[:2] != (group, names):
            with _reading(self.place):
                self._last = group, names, self._parquet.read_row_group(group, columns=list(names), use_threads=False)
        return self._last[2]

    @cached_property
    def _parquet(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.place, page_checksum_verification=True)


class _Writer:
    # Rows or tables on their way into a Parquet file. `groups`: rows of each row group.

    def __init__(self, place: Path) -> None:
        self.place, self.groups = place, list[int]()
        self._held, self._size = list[tuple[Any, ...]](), 0
        options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "write_statistics": False}
        self._out = pq.ParquetWriter(place, _SCHEMA, use_dictionary=list(_LABELS[1:]), write_page_checksum=True, **options)

    @property
    def rows(self) -> int:
        return sum(self.groups)

    def add(self, values: tuple[Any, ...], size: int) -> None:
        self._held.append(values)
        self._size += size
        if self._size >= GROUP:
            self._flush()

    def write(self, table: pa.Table, sizes: Int64[np.ndarray, " n"]) -> None:
        for first, last in pairwise([*np.flatnonzero(np.diff(_parts(sizes, GROUP), prepend=-1)).tolist(), len(sizes)]):
            self._write(table.slice(first, last - first))

    def close(self) -> None:
        self._flush()
        with storage_errors(self.place):
            self._out.close()

    def abandon(self) -> None:
        with suppress(Exception):
            self._out.close()
        remove_file(self.place)

    def _flush(self) -> None:
        if self._held:
            columns = zip(*self._held, strict=True)
            self._write(pa.table(dict(zip(_SCHEMA.names, map(list, columns), strict=True)), schema=_SCHEMA))
            self._held, self._size = [], 0

    def _write(self, table: pa.Table) -> None:
        with storage_errors(self.place):
            self._out.write_table(table, row_group_size=len(table))
        self.groups.append(len(table))


@contextmanager
def _writing(place: Path) -> Iterator[_Writer]:
    with storage_errors(place):
        writer = _Writer(place)
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.abandon()
        raise


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise StorageError(
            f"{place}: rows that this run wrote can't be read back ({said}): check the disk and run it again"
        ) from error


def _leave(place: Path, process: int) -> None:
    if os.getpid() == process:  # one that was forked leaves its parent's files
        remove_file(place)


def _parts(sizes: Int64[np.ndarray, " n"], limit: int) -> Int64[np.ndarray, " n"]:
    """Of each row the number of its part: neighbours of `limit` bytes together, and of no more than that and one row."""
    return (np.cumsum(sizes) - sizes) // limit


def _joined(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables of about so many bytes each."""
    held, whole = list[pa.Table](), 0
    for table in tables:
        held.append(table)
        whole += table.nbytes
        if whole >= size:
            yield pa.concat_tables(held).combine_chunks()
            held, whole = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _deal(tables: Iterable[pa.Table], part_of: Int64[np.ndarray, " n"], places: Sequence[Path]) -> None:
    """Each row into the file of its part."""
    options, done = pa.ipc.IpcWriteOptions(compression="zstd"), 0
    with storage_errors(places[0]), ExitStack() as stack:  # closing a stream writes, too
        streams = [stack.enter_context(pa.ipc.new_stream(str(place), _SCHEMA, options=options)) for place in places]
        for table in tables:
            own = part_of[done : done + len(table)]
            done += len(table)
            order = np.argsort(own, kind="stable")
            edges = np.searchsorted(own[order], np.arange(len(places) + 1))
            dealt = table.take(pa.array(order))
            for part in np.flatnonzero(np.diff(edges)).tolist():
                streams[part].write_table(dealt.slice(edges[part], edges[part + 1] - edges[part]))


# -- one row ------------------------------------------------------------------------------------------------------------------


class _Facts:
    # What stays in memory of rows, while they are written.

    def __init__(self) -> None:
        self.prompts, self.given, self.strata, self.sizes = array("Q"), array("Q"), array("i"), array("q")

    def add(self, row: AnyRow, stratum: int, size: int) -> None:
        computed = computed_group(row)
        self.prompts.append(group_code(computed))
        self.given.append(0 if row.group == computed else _given_code(row.group))
        self.strata.append(stratum)
        self.sizes.append(size)

    def columns(self) -> Columns:
        prompts, given = np.array(self.prompts, np.uint64), np.array(self.given, np.uint64)
        return Columns(prompts, given, np.array(self.strata, np.int32), np.array(self.sizes, np.int64))


def _given_code(group: str) -> int:
    # 64 bits name it, as they name a prompt; 0 is none.
    return code_of(group.encode("utf-8", "surrogatepass")) or 1


def _stratum(row: AnyRow) -> str:
    if isinstance(row, RatedResponse):
        return " ".join(f"{name}={round(value)}" for name, value in sorted(row.ratings.items()))
    return f"{row.section}/{row.subset}"


def _values_of(row: AnyRow) -> tuple[Any, ...]:
    outline = outline_of(row)
    labels = outline.id, outline.group, outline.source, outline.section, outline.subset, _json(dict(outline.ratings))
    if isinstance(row, RatedResponse):
        return *labels, _json(row.messages), [], outline.chosen, outline.answers
    answers = (row.chosen, row.rejected) if isinstance(row, PreferencePair) else row.answers
    return *labels, _json(row.context), list(map(_json, answers)), outline.chosen, outline.answers


_json = json.JSONEncoder(default=str).encode  # what JSON doesn't know (a date among a call's arguments) becomes text


def _answer(text: str) -> Any:
    answer = json.loads(text)
    return answer if isinstance(answer, str) else tuple(answer)


def _rated(group: str, values: tuple[Any, ...]) -> RatedResponse:
    row_id, _, source, _, _, ratings, messages, _, _, _ = values
    return RatedResponse(row_id, group, source, tuple(json.loads(messages)), json.loads(ratings))


def _pair(group: str, values: tuple[Any, ...]) -> PreferencePair:
    row_id, _, source, section, subset, _, context, answers, _, _ = values
    chosen, rejected = map(_answer, answers)
    return PreferencePair(row_id, group, source, tuple(json.loads(context)), chosen, rejected, section, subset)


def _item(group: str, values: tuple[Any, ...]) -> BenchmarkItem:
    row_id, _, source, section, subset, _, context, found, chosen, _ = values
    answers = tuple(map(_answer, found))
    sides = answers[:chosen], answers[chosen:]
    return BenchmarkItem(row_id, group, source, tuple(json.loads(context)), *sides, section, subset)


_MAKERS: dict[Kind, Callable[[str, tuple[Any, ...]], Any]] = {"ratings": _rated, "pairs": _pair, "bench": _item}

"""Rows → JSON Lines or Parquet, a chunk at a time: a file that appears when it is whole, and can be gone on with until then.

In: chunks of JSON rows.  Out: a `.jsonl`, `.jsonl.gz` or `.parquet` file.
Cost: one chunk in memory. Parquet's chunks are files of their own until the end, when they are joined under one schema.

Until `finish`, JSON Lines stand in `OUT.part`, Parquet's chunks in the folder `OUT.parts`. A column whose values have no one type
is written to Parquet as JSON text; the schema's metadata lists these columns, and `records` decodes them. So are structs whose
free mappings (the arguments of calls) would gain the keys of other rows.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from armorm.data.parquet_rows import FREE, JSON_COLUMNS, json_columns, without_nothing
from armorm.disk import digest_of, give_name, is_there, numbers_or_null, remove_file, storage_errors, writing
from armorm.errors import DataError, StorageError
from armorm.owner import owning
from armorm.user_files import is_folder

JsonRow = Mapping[str, Any]
CHUNK = 4096
BLOCK = 1 << 20
GROUP_ROWS = 10_000
LEVELS = 24
"""A column of more objects and lists within each other is written as JSON text."""
_NOT_ONE_TYPE = (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError)


def row_writer(path: Path) -> RowWriter:
    """The writer for a path's ending. Raises DataError for other endings and for a folder, StorageError for a name that
    none can have.

    `begin` takes an empty place. `append` takes a chunk of rows; when it returns, the chunk is on the disk, and `state` and
    `digest` say how far the file is and what it holds. `resume` drops what was written after a state (DataError: less than that
    is there, or it is not as it was written). `assemble` makes the whole file and gives its digest and its number of rows;
    `place` puts it in its place, where nothing may be (DataError). Each may be repeated where it was interrupted.
    """
    if is_there(path) and is_folder(path):
        raise DataError(f"{path}: is a folder; name a file")
    if path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return JsonLines(path)
    if path.suffix.lower() == ".parquet":
        return Parquet(path)
    raise DataError(f"{path}: rows are written as .jsonl, .jsonl.gz or .parquet: let the name end in one of these")


def write_rows(rows: Iterable[JsonRow], path: Path) -> int:
    """Write all rows, whole or not at all; returns how many.

    Raises DataError for a file that is there or comes there meanwhile, InUse while another process writes it, StorageError.
    """
    writer, stream, n = row_writer(path), iter(rows), 0
    with owning(path):
        writer.begin()
        try:
            while chunk := list(islice(stream, CHUNK)):
                writer.append(chunk)
                n += len(chunk)
            if not n:
                writer.append([])
            assemble_all(writer, n)
            writer.place()
        finally:
            writer.remove()
    return n


def assemble_all(writer: RowWriter, rows: int) -> str:
    """Make the whole file and give its digest. Raises StorageError where it holds another number of rows than were written."""
    digest, there = writer.assemble()
    if there != rows:
        raise StorageError(f"{writer.path}: {rows:,} rows were written and {there:,} are there: remove it and begin anew")
    return digest


def json_line(row: JsonRow) -> bytes:
    """A row as one line; what UTF-8 can't hold is escaped."""
    try:
        return (json_text(row) + "\n").encode()
    except UnicodeEncodeError:
        return (json_text(row, ascii_only=True) + "\n").encode()


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """A value as JSON that any reader takes: numbers that are none (NaN, ∞) become null, what JSON doesn't know becomes text."""
    try:
        return json.dumps(value, ensure_ascii=ascii_only, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(numbers_or_null(value), ensure_ascii=ascii_only, default=str, allow_nan=False)


class JsonLines:
    """Lines, appended; with `.gz`, every chunk is a member of its own, so that a broken end harms no other chunk."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        self.state = 0
        self._hash = hashlib.sha256()

    @property
    def _zips(self) -> bool:
        return self.path.suffix.lower() == ".gz"

    @property
    def digest(self) -> str:
        """SHA-256 of what is written."""
        return self._hash.hexdigest()

    def begin(self) -> None:
        _require_free(self.path, self.part)
        self.state, self._hash = 0, hashlib.sha256()

    def resume(self, state: int, digest: str) -> None:
        with storage_errors(self.path):
            there = self.part.stat().st_size if self.part.is_file() else 0
            if there < state:
                raise DataError(f"{self.part}: less is there than was written: remove {self.path}.* and begin anew")
            if there:
                os.truncate(self.part, state)
                with self.part.open("rb") as file:
                    self._hash = hashlib.file_digest(file, "sha256")
        self.state = state
        _require_same(self.part, self.digest, digest)

    def append(self, rows: Sequence[JsonRow]) -> None:
        data = b"".join(map(json_line, rows))
        data = gzip.compress(data, 6, mtime=0) if self._zips else data
        with storage_errors(self.path):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                self.state = file.tell()
        self._hash.update(data)

    def assemble(self) -> tuple[str, int]:
        with storage_errors(self.path), gzip.open(self.part) if self._zips else self.part.open("rb") as file:
            rows = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
        return self.digest, rows

    def is_assembled(self, digest: str) -> bool:
        return self.part.is_file() and digest_of(self.part) == digest

    def place(self) -> None:
        give_name(self.part, self.path)

    def remove(self) -> None:
        remove_file(self.part)


class Parquet:
    """A file per chunk, in a folder; `state` is their number."""

    def __init__(self, path: Path) -> None:
        self.path, self.parts = path, path.with_name(f"{path.name}.parts")
        self.whole = self.parts / "whole.parquet"
        self._digests: list[str] = []

    @property
    def state(self) -> int:
        return len(self._digests)

    @property
    def digest(self) -> str:
        """SHA-256 over the chunks' own."""
        return hashlib.sha256("".join(self._digests).encode()).hexdigest()

    def begin(self) -> None:
        _require_free(self.path, self.parts)
        self._digests = []

    def resume(self, state: int, digest: str) -> None:
        with storage_errors(self.path):
            there = {file.name for file in self.parts.glob("*.parquet")}
            wanted = [_chunk_name(i) for i in range(min(state, len(there) + 1))]
            if not set(wanted) <= there:
                raise DataError(f"{self.parts}: less is there than was written: remove {self.path}.* and begin anew")
            for name in there.difference(wanted):
                (self.parts / name).unlink()
            self._digests = [digest_of(self.parts / name) for name in wanted]
        _require_same(self.parts, self.digest, digest)

    def append(self, rows: Sequence[JsonRow]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name) for row in rows] for name in names}
        columns = {name.encode("utf-8", "backslashreplace").decode(): values for name, values in columns.items()}
        typed = {name: _column(values) for name, values in columns.items()}
        encoded = [name for name, column in typed.items() if column is None]
        texts = {name: _json_column(columns[name]) if column is None else column for name, column in typed.items()}
        table = pa.table(texts, metadata={JSON_COLUMNS: json.dumps(encoded)})
        chunk = self.parts / _chunk_name(self.state)
        with storage_errors(self.path):
            self.parts.mkdir(parents=True, exist_ok=True)
            _write_tables(chunk, [table], table.schema)
            self._digests.append(digest_of(chunk))

    def assemble(self) -> tuple[str, int]:
        files = [self.parts / _chunk_name(i) for i in range(self.state)]
        with storage_errors(self.path):
            schema = _common([pq.read_schema(file) for file in files])
            _write_tables(self.whole, _row_groups(_cast(pq.read_table(file), schema) for file in files), schema)
            return digest_of(self.whole), int(pq.read_metadata(self.whole).num_rows)

    def is_assembled(self, digest: str) -> bool:
        return self.whole.is_file() and digest_of(self.whole) == digest

    def place(self) -> None:
        give_name(self.whole, self.path)

    def remove(self) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)


RowWriter = JsonLines | Parquet


def _require_free(path: Path, beside: Path) -> None:
    for place in (path, beside):
        if is_there(place):
            raise DataError(f"{place} is there already: remove it or choose another file")


def _require_same(place: Path, found: str, written: str) -> None:
    if found != written:
        raise DataError(f"{place}: damaged (it is not as it was written): remove it and what stands beside it, and begin anew")


def _chunk_name(i: int) -> str:
    return f"part-{i:07d}.parquet"


def _write_tables(path: Path, tables: Iterable[Any], schema: Any) -> None:
    with writing(path) as beside:
        with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        with beside.open("rb") as file:
            os.fsync(file.fileno())


def _row_groups(tables: Iterable[Any]) -> Iterator[Any]:
    # Groups of a sensible size out of many small chunks.
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(t.num_rows for t in held) >= GROUP_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _column(values: list[Any]) -> Any | None:
    # None where no one type holds the values as they are.
    try:
        column = pa.array(values)
    except _NOT_ONE_TYPE:
        return None
    if _is_deep(column.type) or _has_empty_struct(column.type):
        return None
    whole = not _has_free_mapping(column.type) or without_nothing(column.to_pylist()) == without_nothing(values)
    return column if whole else None


def _json_column(values: list[Any]) -> Any:
    return pa.array([_json_text(v) for v in values], pa.string())


def _is_deep(kind: Any) -> bool:
    # Readers refuse tables of more levels, and one of ours is two or three of Parquet's.
    level = [kind]
    for _ in range(LEVELS):
        level = [one.field(i).type for one in level for i in range(one.num_fields)]
    return bool(level)


def _has_empty_struct(kind: Any) -> bool:
    # Parquet has no place for an object without fields.
    inner = [kind.field(i) for i in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(_has_empty_struct(f.type) for f in inner)


def _has_free_mapping(kind: Any) -> bool:
    # What a call is given and what a tool takes: each has keys of its own, and one that is null is there.
    inner = [kind.field(i) for i in range(kind.num_fields)]
    return any(f.name in FREE and pa.types.is_nested(f.type) for f in inner) or any(_has_free_mapping(f.type) for f in inner)


def _json_text(value: Any) -> str | None:
    return None if value is None else json_text(value, ascii_only=True)


def _common(schemas: Sequence[Any]) -> Any:
    """One schema for all: numbers widen, structs gain fields; a column without one type becomes JSON text."""
    names = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    kinds = {name: _common_type([s.field(name).type for s in schemas if name in s.names]) for name in names}
    encoded = {name for schema in schemas for name in json_columns(schema)} | {
        name for name, kind in kinds.items() if kind is None
    }
    fields = [(name, pa.string() if name in encoded else kind) for name, kind in kinds.items()]
    return pa.schema(fields, metadata={JSON_COLUMNS: json.dumps([name for name in names if name in encoded])})


def _common_type(kinds: Sequence[Any]) -> Any | None:
    try:
        kind = pa.unify_schemas([pa.schema([("one", kind)]) for kind in kinds], promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
    if _has_free_mapping(kind) and any(one != kind for one in kinds if not pa.types.is_null(one)):
        return None
    return pa.string() if pa.types.is_null(kind) else kind


def _cast(table: Any, schema: Any) -> Any:
    given, wanted = json_columns(table.schema), json_columns(schema)
    if table.schema.equals(schema) and given == wanted:
        return table
    columns = []
    for field in schema:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if field.name in wanted - given:
            column = _json_column(column.to_pylist())
        elif column.type != field.type:
            column = pa.array(column.to_pylist(), field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)

"""Rows of Parquet files, group of rows by group, as few at a time as fit.

In: a `.parquet` file.  Out: row numbers with values by column, or with the names of faults.
Cost: one pass; a group of rows that would fill memory is passed over unread. What a file's end says of a
group's columns is asked only after reading them was tried: pyarrow ends the whole process where that part is damaged.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from armorm.data.blocks import LONGEST_ROW
from armorm.data.json_rows import Item
from armorm.errors import DataError
from armorm.user_files import shown
from armorm.user_json import JsonFault, read_json

JSON_COLUMNS = b"armorm.json"
"""Where the metadata of a Parquet file's schema lists the columns that hold JSON text."""
FREE = ("arguments", "parameters", "function")
"""Keys of calls and tools whose mappings have keys of their own (a call's function holds its name and its arguments)."""
_SWELLING = 100
"""A column that grows more than so many times when it is unpacked is made to fill memory."""
_BATCH = 2**30


def parquet_rows(path: Path) -> Iterator[Item]:
    """The rows of all groups. Raises DataError for two columns of one name."""
    row = 0
    try:
        with pq.ParquetFile(path) as file, _Rowless(path) as end, pq.ParquetFile(end, metadata=file.metadata) as rowless:
            encoded = _columns_in(path, file.schema_arrow)
            for group in range(file.num_row_groups):
                _require_sound(rowless, group)
                facts = file.metadata.row_group(group)
                if _is_bomb(facts):
                    yield from ((row + i, "too-long") for i in range(1, facts.num_rows + 1))
                    row += facts.num_rows
                    continue
                for batch in file.iter_batches(batch_size=_batch_rows(facts), row_groups=[group]):
                    for i in range(batch.num_rows):
                        row += 1
                        yield row, _parquet_row(batch.slice(i, 1), encoded)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # a column's name, too, may be damaged
        yield row + 1, "too-deep" if "deeply nested" in str(error) else "truncated-file"


class _RowsAskedError(Exception):
    """A reader got as far as the rows."""


class _Rowless(io.FileIO):
    # A Parquet file that can be opened by facts already read, and whose rows can't be read.
    def read(self, *_: Any) -> bytes:
        raise _RowsAskedError


def _require_sound(rowless: pq.ParquetFile, group: int) -> None:
    # Raises pyarrow's error where what the file's end says of a group's columns is damaged.
    with suppress(_RowsAskedError):
        next(rowless.iter_batches(row_groups=[group]), None)


def _columns_in(path: Path, schema: Any) -> frozenset[str]:
    if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise DataError(f"{shown(path)}: columns share the name {shown(repeated[0])!r}: give each its own")
    return json_columns(schema)


def _is_bomb(group: Any) -> bool:
    # A column that would be far larger than its bytes on the disk, or a single row that is too long.
    columns = [group.column(i) for i in range(group.num_columns)]
    swells = any(c.total_uncompressed_size > max(4 * LONGEST_ROW, _SWELLING * c.total_compressed_size) for c in columns)
    return swells or (group.num_rows == 1 and group.total_byte_size > LONGEST_ROW)


def _batch_rows(group: Any) -> int:
    # One value of a column's dictionary may stand in every row: so many rows as fit even then.
    longest = max((group.column(i).total_uncompressed_size for i in range(group.num_columns)), default=0)
    return max(1, min(256, _BATCH // max(longest, 1)))


def json_columns(schema: Any) -> frozenset[str]:
    """The columns of a Parquet file of ours that hold JSON text for values of no one type."""
    try:
        names = json.loads((schema.metadata or {}).get(JSON_COLUMNS, b"[]"))
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def _parquet_row(row: Any, encoded: Set[str]) -> dict[str, Any] | str:
    if row.nbytes > LONGEST_ROW:
        return "too-long"
    try:
        values: dict[str, Any] = row.to_pylist()[0]
        return {name: _decoded(value) if name in encoded else without_nothing(value) for name, value in values.items()}
    except UnicodeDecodeError:
        return "not-utf8"
    except JsonFault as fault:
        return fault.name
    except RecursionError:
        return "too-deep"
    except (ValueError, OverflowError, ImportError):  # a date that Python has not, a time zone that the machine has not
        return "not-readable"


def _decoded(value: Any) -> Any:
    try:
        return read_json(value) if isinstance(value, str) else value
    except JsonFault as fault:
        if fault.name != "not-json":
            raise
        return value  # written over by another program


def without_nothing(value: Any) -> Any:
    """A cell without the keys that only other rows have: columns of structs give every message every key that any message has.

    What a call is given and what a tool takes is kept as it is: there a null may be meant.
    """
    if isinstance(value, dict):
        return {
            key: inner if _is_free(key, inner) else without_nothing(inner) for key, inner in value.items() if inner is not None
        }
    return [without_nothing(inner) for inner in value] if isinstance(value, list) else value


def _is_free(key: str, value: Any) -> bool:
    return key in FREE and not (key == "function" and isinstance(value, dict) and "arguments" in value)

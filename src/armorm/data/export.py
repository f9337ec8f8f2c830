"""Rows of any source as one Parquet file, in the columns that this package's own reader takes without being told.

In: an opened source.  Out: a file, whole or not at all.
Cost: one pass, and another over the file; one row group is held, at most 10,000 rows or 64 MB of text.

Ratings: `id`, `group`, `source`, `messages` (list of role and content, and of what else some message holds), and a double per
objective on its raw scale, null where there is none. Pairs: `id`, `group`, `source`, `section`, `subset`, `chosen` and `rejected`
as whole conversations.
The file's metadata hold the objectives' facts under `armorm`, the counts of what was left out under `armorm.counts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from armorm.conversation import Message
from armorm.data.opening import METADATA_KEY, Opened
from armorm.data.reading import FaultCounts
from armorm.data.rows import PreferencePair, RatedResponse, conversations_of
from armorm.disk import is_there, numbers_or_null, writing
from armorm.errors import DataError
from armorm.objectives import Objectives
from armorm.owner import owning
from armorm.user_files import is_folder

FORMAT = 1
GROUP_ROWS = 10_000
GROUP_CHARACTERS = 64_000_000
_MESSAGES = pa.list_(pa.struct([(key, pa.string()) for key in Message.__annotations__]))
"""What is no text in a message (tool calls, tools) is written as JSON text, as it may be read again."""
_RATED = ("id", "group", "source", "messages")
_NOT_FREE = frozenset({*_RATED, "prompt", "response", "system", "chosen", "rejected", "section", "subset"})


@dataclass(frozen=True)
class Exported:
    """What was written: `rows` of `total` records, and what was left out."""

    path: Path
    kind: str
    rows: int
    total: int
    faults: FaultCounts

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "kind": self.kind, "rows": self.rows, "records": self.total, **self.faults.to_json()}


def export(opened: Opened, path: Path) -> Exported:
    """Write the rows to `path`, where nothing is; the file is there once it is whole.

    Raises DataError for a path that doesn't end in .parquet or is taken, for an objective named like another column, and when no
    row is left; InUse while another process writes it; StorageError when the file can't be written.
    """
    if path.suffix.lower() != ".parquet" or is_folder(path):
        raise DataError(f"{path}: rows are exported as one Parquet file: name one that ends in .parquet")
    if is_there(path):
        raise DataError(f"{path}: is there already: remove it or choose another file")
    schema = _schema(opened)
    with owning(path), writing(path, new=True) as beside:
        rows, keys = _write(opened, schema, beside)
        if not rows:
            raise DataError(f"{opened.where or opened.name}: there is no row to export{_why(opened.stream.faults)}")
        _without_empty(beside, [key for key in Message.__annotations__ if key in keys])
    return Exported(path, opened.kind, rows, opened.stream.total, opened.stream.faults)


def _write(opened: Opened, schema: pa.Schema, path: Path) -> tuple[int, set[str]]:
    # How many rows there are, and the keys that their messages have.
    rows, keys = 0, {"role", "content"}
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(opened.stream):
            writer.write_table(pa.Table.from_pylist([_cells(row, opened.objectives) for row in group], schema=schema))
            rows += len(group)
            keys.update(key for row in group for talk in conversations_of(row) for message in talk for key in message)
        counts = {"records": opened.stream.total, "rows": rows, **opened.stream.faults.to_json()}
        writer.add_key_value_metadata({"armorm.counts": json.dumps(counts)})
    return rows, keys


def _without_empty(path: Path, keys: Sequence[str]) -> None:
    # Templates and trainers ask whether a key is there: one that no message has must not be null in all of them.
    narrow = pa.list_(pa.struct([(key, pa.string()) for key in keys]))
    if narrow == _MESSAGES:
        return
    beside = path.with_name(f"{path.name}.narrow")
    try:
        with pq.ParquetFile(path) as file:
            facts = {key: fact for key, fact in file.metadata.metadata.items() if key != b"ARROW:schema"}
            talks = ("messages", "chosen", "rejected")
            schema = pa.schema([f.with_type(narrow) if f.name in talks else f for f in file.schema_arrow], metadata=facts)
            with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
                for i in range(file.num_row_groups):
                    table = file.read_row_group(i)
                    columns = [_narrowed(table[f.name], f.type, keys) if f.name in talks else table[f.name] for f in schema]
                    writer.write_table(pa.table(columns, schema=schema))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _narrowed(column: pa.ChunkedArray, kind: pa.DataType, keys: Sequence[str]) -> pa.ChunkedArray:
    lists = column.combine_chunks()
    messages = pa.StructArray.from_arrays([lists.values.field(key) for key in keys], fields=list(kind.value_type))
    return pa.chunked_array([pa.ListArray.from_arrays(lists.offsets, messages, type=kind)])


def _schema(opened: Opened) -> pa.Schema:
    columns = [(name, pa.string()) for name in ("id", "group", "source")]
    if opened.kind == "ratings":
        taken = [o.name for o in opened.objectives if o.name in _NOT_FREE]
        if taken:
            raise DataError(f"an objective can't be named {taken[0]!r}, as one of the other columns is: rename it")
        columns += [("messages", _MESSAGES), *((o.name, pa.float64()) for o in opened.objectives)]
    else:
        columns += [("section", pa.string()), ("subset", pa.string()), ("chosen", _MESSAGES), ("rejected", _MESSAGES)]
    facts: dict[str, Any] = {"format": FORMAT, "kind": opened.kind, "source": opened.name}
    if opened.kind == "ratings":
        facts["objectives"] = opened.objectives.to_json()
    return pa.schema(columns, metadata={METADATA_KEY: json.dumps(facts).encode()})


def _groups(rows: Iterable[Any]) -> Iterator[list[Any]]:
    group, characters = list[Any](), 0
    for row in rows:
        group.append(row)
        characters += _characters(row)
        if len(group) >= GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _characters(row: RatedResponse | PreferencePair) -> int:
    if isinstance(row, RatedResponse):
        return sum(len(m["content"]) for m in row.messages)
    return sum(len(m["content"]) for conversation in conversations_of(row) for m in conversation)


def _cells(row: RatedResponse | PreferencePair, objectives: Objectives) -> dict[str, Any]:
    named = {"id": row.id, "group": row.group, "source": row.source}
    if isinstance(row, RatedResponse):
        return {**named, "messages": _flat(row.messages), **{o.name: row.ratings.get(o.name) for o in objectives}}
    sides = {"chosen": _flat(row.conversation(row.chosen)), "rejected": _flat(row.conversation(row.rejected))}
    return {**named, "section": row.section, "subset": row.subset, **sides}


def _flat(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [
        {
            k: v if isinstance(v, str) else json.dumps(numbers_or_null(v), ensure_ascii=False, allow_nan=False)
            for k, v in m.items()
        }
        for m in messages
    ]


def _why(faults: FaultCounts) -> str:
    drops = ", ".join(f"{n:,} {reason}" for reason, n in faults.drops.items())
    first = f"; the first: {faults.examples[0]}" if faults.examples else ""
    return f" (left out: {drops}){first}" if drops else ""

"""Files and hub data sets → raw records, one at a time, whatever the format.

In: a path (.jsonl, .json, .csv, each also .gz, and .parquet), a glob pattern, or a hub data set.
Out: `Record`s with their row number; a row that can't be read comes as a `BadRecord` in its place, and reading goes on.
Cost: one pass; JSON Lines, CSV and Parquet are streamed, a .json list is held in memory.

Rows are counted from 1: lines of a .jsonl file, entries of a .json list, records below the header of a .csv file. A .json file
that starts with an object instead of a list is read as JSON Lines (SHP's files are such), or is that one row.

CSV has no lists: there a column whose cells are mostly JSON text of messages is read as messages, which is decided once per
column on the first rows and counted in a note; a later cell that is none is then a fault. `Cells` forces either, in any file.
"""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from io import BufferedReader
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from armorm.conversation import is_python_repr, is_utf8
from armorm.data.cells import list_in, messages_in
from armorm.errors import DataError


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row: its number, its fields as they stand in the file, and the file.

    `notes`: quirks that its reader met and put right, one word each ("overall-score-bug"), to be counted. `part` tells several
    records apart that one raw row gave.
    """

    row: int
    values: dict[str, Any]
    where: str = ""
    notes: tuple[str, ...] = ()
    part: str = ""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A row that is no record: the fault's name (`REMEDIES` has them all) and what to do about it; its values, if it has any."""

    row: int
    fault: str
    remedy: str
    where: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An answer or a pair that its source leaves out on purpose, by reason ("tie"): counted, and no fault."""

    row: int
    reason: str
    where: str = ""


Found = Record | BadRecord | Skipped
"""What reading yields, one for one."""

REMEDIES = {
    "not-json": "mend or remove the line: each must be one complete JSON object",
    "not-csv": "mend the quotes and the number of cells: each record needs as many as the header",
    "not-utf8": "save the file as UTF-8",
    "truncated-file": "fetch the file again: it ends too early or is damaged from here on",
    "not-an-object": "give one JSON object with named fields per row",
    "not-messages": "this column holds messages as JSON text in other rows: write this one so, or have its cells read as text",
    "python-repr": "this is how Python prints messages, which is no JSON: write them with json.dumps, or have cells read as text",
}

Cells = Literal["auto", "text", "messages"]
"""What strings are: texts, or JSON text of messages where they can be; `auto` decides, for CSV alone."""
JSON_COLUMNS = b"armorm.json"
"""Where the metadata of a Parquet file's schema lists the columns that hold JSON text."""
FREE = ("arguments", "parameters", "function")
"""Keys of calls and tools whose mappings have keys of their own (a call's function holds its name and its arguments)."""
DECIDED_ON = 256
"""How many rows of a file say what its columns hold."""

_BROKEN_FILE = (EOFError, zlib.error, gzip.BadGzipFile)


def records(path: Path, cells: Cells = "auto") -> Iterator[Record | BadRecord]:
    """The rows of one file, streamed. `cells`: whether strings may be JSON text of messages.

    Raises DataError at once for a missing file, a folder or an unknown format; faults inside the file are yielded.
    """
    reader = _READERS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if reader is None or path.name.endswith(".parquet.gz"):
        raise DataError(
            f"{path}: the format is not known; files may end in .jsonl, .ndjson, .json, .csv (each also .gz), .parquet"
        )
    if not path.is_file():
        seen = "is a folder, name the files in it (a pattern such as folder/*.jsonl will do)" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {seen}")
    found = _in_file(path, reader)
    listless = path.name.lower().removesuffix(".gz").endswith(".csv")
    return in_cells(found, "text" if cells == "auto" and not listless else cells)


def in_cells(found: Iterator[Record | BadRecord], cells: Cells) -> Iterator[Record | BadRecord]:
    """Rows whose strings are what `cells` says; `auto` decides for each column."""
    return found if cells == "text" else _with_messages(found, forced=cells == "messages")


def _with_messages(found: Iterator[Record | BadRecord], *, forced: bool) -> Iterator[Record | BadRecord]:
    """Rows in which the columns that hold JSON text of messages (or lists, in columns that list answers) hold lists."""
    first = list(islice(found, DECIDED_ON))
    rows = [one.values for one in first if isinstance(one, Record)]
    names = dict.fromkeys(name for values in rows for name in values)
    texts = {name: [v for values in rows if isinstance(v := values.get(name), str) and v.strip()] for name in names}
    read = {name: sum(_reader_of(name)(text) is not None for text in seen) for name, seen in texts.items()}
    decided = {name for name, seen in texts.items() if read[name] and (forced or 2 * read[name] > len(seen))}
    for one in chain(first, found):
        yield one if isinstance(one, BadRecord) else _with_lists(one, decided, forced=forced)


def _with_lists(record: Record, decided: set[str], *, forced: bool) -> Record | BadRecord:
    # A blank cell holds nothing, since CSV has no null.
    values = {n: None if isinstance(v, str) and not v.strip() else v for n, v in record.values.items()}
    notes = list(record.notes)
    for name, value in record.values.items():
        if not isinstance(value, str) or not value.strip():
            continue
        turns = _reader_of(name)(value)
        if name in decided and turns:
            values[name] = turns
            notes.append(f"{name}: JSON text read as messages" if messages_in(value) else f"{name}: JSON text read as a list")
        elif is_python_repr(value):
            return BadRecord(record.row, "python-repr", REMEDIES["python-repr"], record.where, record.values)
        elif name in decided and not forced:
            return BadRecord(record.row, "not-messages", REMEDIES["not-messages"], record.where, record.values)
    return replace(record, values=values, notes=tuple(notes))


def _reader_of(name: str) -> Callable[[str], list[Any] | None]:
    return list_in if name in ("responses", "completions") else messages_in


def expand(pattern: str, *, folders: bool = False) -> list[Path]:
    """The files (and `folders`) that a pattern names, sorted: `$NAME`, `${NAME}`, `~`, `*`, `?`, `[…]` and `**` are understood.

    Raises DataError for an environment variable that is not set and for a pattern that no file matches.
    """
    missing = [a or b for a, b in _VARIABLE.findall(pattern) if (a or b) not in os.environ]
    if missing:
        raise DataError(f"{pattern}: the environment variable {missing[0]} is not set: set it to the folder that holds the files")
    plain = Path(_VARIABLE.sub(lambda m: os.environ[m[1] or m[2]], pattern)).expanduser()
    if plain.is_file() or (folders and plain.is_dir()):
        return [plain]
    escaped = _VARIABLE.sub(lambda m: glob.escape(os.environ[m[1] or m[2]]), pattern)
    files = sorted(Path(p) for p in glob.glob(str(Path(escaped).expanduser()), recursive=True) if Path(p).is_file())  # noqa: PTH207
    if not files and plain.is_dir():
        raise DataError(f"{pattern}: is a folder, name the files in it (a pattern such as folder/*.jsonl will do)")
    if not files:
        raise DataError(
            f"{pattern}: no file matches ({plain}): check the folder and the ending; relative paths start at {Path.cwd()}"
        )
    return files


def hub_records(
    dataset: str, split: str, revision: str | None, subset: str | None, *, data_dir: str | None = None
) -> Iterator[Record]:
    """The rows of a Hugging Face data set, streamed; rows are counted from 1. `data_dir` is a folder inside its repository.

    Raises DataError when the data set can't be reached or read, saying how to use local files instead.
    """
    import datasets  # takes a second to import, and only recipes that name the hub need it

    where = f"{dataset}{''.join(f'/{part}' for part in (subset, data_dir) if part)}[{split}]"
    try:
        stream = datasets.load_dataset(dataset, name=subset, split=split, revision=revision, data_dir=data_dir, streaming=True)
        for row, values in enumerate(stream, start=1):
            yield Record(row, dict(values), where)
    except Exception as error:  # the hub's client raises a dozen unrelated kinds
        raise DataError(
            f"{where}: the hub's data set can't be read ({type(error).__name__}: {str(error)[:300]}). Check its name, subset, "
            f"split and revision. Without a network, run `hf download {dataset} --repo-type dataset --local-dir FOLDER` where "
            f"there is one, bring the folder here, and name it as the `path`"
        ) from error


def fingerprint(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with _open(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

_Item = tuple[int, Any]  # the row and its fields, or the row and the name of its fault


def _in_file(path: Path, reader: Callable[[Path], Iterator[_Item]]) -> Iterator[Record | BadRecord]:
    where = str(path)
    row = 0
    try:
        for row, values in reader(path):
            if isinstance(values, str):
                yield BadRecord(row, values, REMEDIES[values], where)
            else:
                yield Record(row, values, where)
    except _BROKEN_FILE:
        yield BadRecord(row + 1, "truncated-file", REMEDIES["truncated-file"], where)


def _open(path: Path, *, unzip: bool = False) -> BufferedReader | gzip.GzipFile:
    try:
        return gzip.open(path, "rb") if unzip and path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None


def _json(path: Path) -> Iterator[_Item]:
    return _json_lines(path) if _holds_lines(path) else _json_list(path)


def _holds_lines(path: Path) -> bool:
    # Two lines or more, the first one a whole object: then it is neither a list nor one object spread over lines.
    with _open(path, unzip=True) as stream:
        lines = list(islice((text for text in stream if text.strip()), 2))
    return len(lines) == 2 and isinstance(_object(lines[0].decode("utf-8-sig", "replace")), dict)


def _json_lines(path: Path) -> Iterator[_Item]:
    with _open(path, unzip=True) as stream:
        for row, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if row == 1 else "utf-8")
            except UnicodeDecodeError:
                yield row, "not-utf8"
                continue
            if text.strip():
                yield row, _object(text)


def _object(text: str) -> dict[str, Any] | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "not-json"
    return value if isinstance(value, dict) else "not-an-object"


def _json_list(path: Path) -> Iterator[_Item]:
    # Entry by entry, so that the entries before a break are still read.
    with _open(path, unzip=True) as stream:
        text = stream.read().decode("utf-8-sig", "surrogateescape")
    place = _after_space(text, 0)
    if text[place : place + 1] == "{":
        yield 1, _object(text) if is_utf8(text) else "not-utf8"
        return
    if text[place : place + 1] != "[":
        yield 1, "not-json"
        return
    place = _after_space(text, place + 1)
    if text[place : place + 1] == "]":
        return
    for row in count(1):
        start = place
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield row, "not-json" if place < len(text) else "truncated-file"
            return
        if not is_utf8(text[start:place]):
            yield row, "not-utf8"
        else:
            yield row, value if isinstance(value, dict) else "not-an-object"
        place = _after_space(text, place)
        if text[place : place + 1] != ",":
            break
        place = _after_space(text, place + 1)
    if place == len(text):
        yield row + 1, "truncated-file"
    elif text[place] != "]" or _after_space(text, place + 1) < len(text):
        yield row + 1, "not-json"


_DECODER = json.JSONDecoder()


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _csv(path: Path) -> Iterator[_Item]:
    csv.field_size_limit(2**31 - 1)  # answers may be longer than the module's 128 KiB
    with _open(path, unzip=True) as stream:
        lines = (line.decode("utf-8-sig" if i == 0 else "utf-8", "surrogateescape") for i, line in enumerate(stream))
        cells = csv.reader(lines, strict=True)
        header = _next_cells(cells) or []
        if isinstance(header, str) or not all(map(is_utf8, header)):
            raise DataError(f"{path}: the header can't be read: {REMEDIES['not-utf8' if isinstance(header, list) else header]}")
        if len(set(header)) < len(header):
            raise DataError(f"{path}: columns of the header share a name: {', '.join(header)}: give each its own")
        number = 0
        while (row_cells := _next_cells(cells)) is not None:
            if row_cells == []:  # a blank line
                continue
            number += 1
            if isinstance(row_cells, str):
                yield number, row_cells
            elif not all(map(is_utf8, row_cells)):
                yield number, "not-utf8"
            elif len(row_cells) != len(header):
                yield number, "not-csv"
            else:
                yield number, dict(zip(header, row_cells, strict=True))


def _next_cells(cells: Iterator[list[str]]) -> list[str] | str | None:
    try:
        return next(cells, None)
    except csv.Error as error:
        return "truncated-file" if "end of data" in str(error) else "not-csv"


def _parquet(path: Path) -> Iterator[_Item]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            encoded = json_columns(file.schema_arrow)
            for batch in file.iter_batches(batch_size=256):
                for i in range(batch.num_rows):
                    row += 1
                    yield row, _parquet_row(batch, i, encoded)
    except (pa.ArrowException, OSError):
        yield row + 1, "truncated-file"


def json_columns(schema: Any) -> frozenset[str]:
    """The columns of a Parquet file of ours that hold JSON text for values of no one type."""
    names = json.loads((schema.metadata or {}).get(JSON_COLUMNS, b"[]"))
    return frozenset(names)


def _parquet_row(batch: Any, i: int, encoded: Set[str]) -> dict[str, Any] | str:
    try:
        values: dict[str, Any] = batch.slice(i, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return "not-utf8"
    return {name: _decoded(value) if name in encoded else without_nothing(value) for name, value in values.items()}


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:  # written over by another program
        return value


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


_READERS: dict[str, Callable[[Path], Iterator[_Item]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}

"""Files and hub data sets → raw records, one at a time, whatever the format.

In: a path (.jsonl, .json, .csv, each also .gz, and .parquet), a glob pattern, or a hub data set.
Out: `Record`s with their row number; a row that can't be read comes as a `BadRecord` in its place, and reading goes on.
Cost: one pass; all formats are streamed, and a row has a limit of 64 MiB and 100 levels, so that memory follows neither the
file nor its longest line.

Rows are counted from 1: lines of a .jsonl file, entries of a .json list, records below the header of a .csv file. A .json file
that starts with an object instead of a list is read as JSON Lines (SHP's files are such), or is that one row.

CSV has no lists: there a column whose cells are mostly JSON text of messages is read as messages, which is decided once per
column on the first rows and counted in a note; a later cell that is none is then a fault. `Cells` forces either, in any file.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from armorm.conversation import is_python_repr
from armorm.data.blocks import LONGEST_ROW
from armorm.data.cells import list_in, messages_in
from armorm.data.csv_rows import csv_rows
from armorm.data.json_rows import Item, json_lines, json_rows
from armorm.data.parquet_rows import parquet_rows
from armorm.errors import DataError
from armorm.numbers import shorten
from armorm.user_files import (
    BROKEN,
    MISSING,
    fault_of,
    here,
    is_file,
    is_folder,
    naming,
    open_file,
    require_file,
    shown,
    user_path,
)


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
    "too-long": "make it shorter: a row of a file may have 64 MiB, a question with its answer 4 Mi characters",
    "too-deep": "make the row flatter: at most 100 objects and lists within each other are read",
    "repeated-key": "name each field of an object once: either value may be meant",
    "not-readable": "write the cell anew, or leave its column out: it holds no value of its column's type",
    "truncated-file": "fetch the file again: it ends too early or is damaged from here on",
    "not-an-object": "give one JSON object with named fields per row",
    "not-messages": "this column holds messages as JSON text in other rows: write this one so, or have its cells read as text",
    "python-repr": "this is how Python prints messages, which is no JSON: write them with json.dumps, or have cells read as text",
}

Cells = Literal["auto", "text", "messages"]
"""What strings are: texts, or JSON text of messages where they can be; `auto` decides, for CSV alone."""
DECIDED_ON = 256
"""How many rows of a file say what its columns hold."""


def records(path: Path, cells: Cells = "auto") -> Iterator[Record | BadRecord]:
    """The rows of one file, streamed. `cells`: whether strings may be JSON text of messages.

    Raises DataError at once for a missing file, a folder or an unknown format; faults inside the file are yielded.
    """
    reader = _READERS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if reader is None or path.name.lower().endswith(".parquet.gz"):
        raise DataError(
            f"{shown(path)}: the format is not known; files may end in .jsonl, .ndjson, .json, .csv (each also .gz), .parquet"
        )
    require_file(path)
    found = _in_file(path, reader)
    listless = path.name.lower().removesuffix(".gz").endswith(".csv")
    return in_cells(found, "text" if cells == "auto" and not listless else cells)


def in_cells(found: Iterator[Record | BadRecord], cells: Cells) -> Iterator[Record | BadRecord]:
    """Rows whose strings are what `cells` says; `auto` decides for each column."""
    return found if cells == "text" else _with_messages(found, forced=cells == "messages")


def _with_messages(found: Iterator[Record | BadRecord], *, forced: bool) -> Iterator[Record | BadRecord]:
    """Rows in which the columns that hold JSON text of messages (or lists, in columns that list answers) hold lists."""
    first = _first_rows(found)
    rows = [one.values for one in first if isinstance(one, Record)]
    names = dict.fromkeys(name for values in rows for name in values)
    texts = {name: [v for values in rows if isinstance(v := values.get(name), str) and v.strip()] for name in names}
    read = {name: sum(_reader_of(name)(text) is not None for text in seen) for name, seen in texts.items()}
    decided = {name for name, seen in texts.items() if read[name] and (forced or 2 * read[name] > len(seen))}
    for one in chain(first, found):
        yield one if isinstance(one, BadRecord) else _with_lists(one, decided, forced=forced)


def _first_rows(found: Iterator[Record | BadRecord]) -> list[Record | BadRecord]:
    # So many rows as tell what their columns hold; fewer where they are long, since all of them are held.
    first, size = list[Record | BadRecord](), 0
    for one in islice(found, DECIDED_ON):
        first.append(one)
        size += sum(len(v) for v in one.values.values() if isinstance(v, str))
        if size > LONGEST_ROW:
            break
    return first


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
            kind = "messages" if messages_in(value) else "a list"
            notes.append(f"{shorten(name, 40)}: JSON text read as {kind}")
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
    asked = shown(pattern)
    if missing:
        raise DataError(f"{asked}: the environment variable {missing[0]} is not set: set it to the folder that holds the files")
    plain = user_path(_VARIABLE.sub(lambda m: os.environ[m[1] or m[2]], pattern))
    if is_file(plain) or (folders and is_folder(plain)):
        return [plain]
    escaped = user_path(_VARIABLE.sub(lambda m: glob.escape(os.environ[m[1] or m[2]]), pattern))
    if files := sorted(file for p in glob.glob(str(escaped), recursive=True) if is_file(file := Path(p))):  # noqa: PTH207
        return files
    if (fault := fault_of(plain)) not in (None, MISSING):
        raise DataError(f"{asked}: {fault}")
    raise DataError(
        f"{asked}: no file matches ({shown(plain)}): check the folder and the ending; relative paths start at {here()}"
    )


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
    with naming(str(path)), open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def _in_file(path: Path, reader: Callable[[Path], Iterator[Item]]) -> Iterator[Record | BadRecord]:
    where = str(path)
    row = 0
    try:
        for row, values in reader(path):
            if isinstance(values, str):
                yield BadRecord(row, values, REMEDIES[values], where)
            else:
                yield Record(row, values, where)
    except BROKEN:
        yield BadRecord(row + 1, "truncated-file", REMEDIES["truncated-file"], where)
    except OSError as error:
        behind = f" behind row {row}" if row else ""
        raise DataError(f"{shown(path)}: can't be read{behind}: {error.strerror}: copy it from where it is whole") from error


_READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}

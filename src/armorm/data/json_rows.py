"""Rows of JSON: one object a line, or one list of objects, which is read entry by entry.

In: a file, `.gz` or not.  Out: row numbers with objects or with the names of faults.
Cost: one pass; the longest row within the limit is what is held, however long the file, its lines or its list.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from armorm.conversation import is_utf8
from armorm.data import blocks
from armorm.data.blocks import BLOCK, Bytes, Ended, TooLong, entries_in, lines_in
from armorm.user_files import open_file
from armorm.user_json import JsonFault, read_first, read_json

Item = tuple[int, Any]
"""A row's number and its fields, or its number and the name of its fault."""
_BOM = b"\xef\xbb\xbf"


def json_lines(path: Path) -> Iterator[Item]:
    """The rows of a file of lines; blank ones count, and are no rows."""
    with open_file(path, unzip=True) as stream:
        for row, line in lines_in(stream):
            if isinstance(line, TooLong):
                yield row, "too-long"
            elif row > 1 or line.removeprefix(_BOM).strip():
                yield row, _object(line.removeprefix(_BOM) if row == 1 else line)


def json_rows(path: Path) -> Iterator[Item]:
    """The rows of a file that holds a list, one object, or lines."""
    if _opens_list(path):
        return _list(path)
    return json_lines(path) if _holds_lines(path) else _one(path)


def _opens_list(path: Path) -> bool:
    with open_file(path, unzip=True) as stream:
        return _first_block(stream)[:1] == b"["


def _first_block(stream: Bytes) -> bytes:
    # From the first byte on that is no white space; nothing where there is none.
    head = b""
    while len(head) < len(_BOM) and (block := stream.read1(BLOCK)):
        head += block
    head = head.removeprefix(_BOM).lstrip()
    while not head and (block := stream.read1(BLOCK)):
        head = block.lstrip()
    return head


def _holds_lines(path: Path) -> bool:
    # Two lines or more, the first one a whole object: then it is not one object spread over lines.
    with open_file(path, unzip=True) as stream:
        lines = [line for _, line in islice(lines_in(stream), 2)]
    first = lines[0] if lines else b""
    return len(lines) == 2 and (isinstance(first, TooLong) or not _is_part(first.removeprefix(_BOM)))


def _is_part(line: bytes) -> bool:
    return _object(line) in ("not-json", "not-an-object", "not-utf8")


def _one(path: Path) -> Iterator[Item]:
    with open_file(path, unzip=True) as stream:
        text = bytearray(_first_block(stream))
        while len(text) <= blocks.LONGEST_ROW and (block := stream.read1(BLOCK)):
            text += block
    yield 1, "too-long" if len(text) > blocks.LONGEST_ROW else _object(bytes(text)) if text[:1] == b"{" else "not-json"


def _list(path: Path) -> Iterator[Item]:
    # What stands behind a break can't be told apart: reading ends there.
    with open_file(path, unzip=True) as stream:
        for row, entry in enumerate(entries_in(_Behind(_first_block(stream)[1:], stream)), start=1):
            if isinstance(entry, Ended):
                if entry.broken or entry.cut:
                    yield row, "not-json" if entry.broken else "truncated-file"
                return
            values, whole = ("too-long", True) if isinstance(entry, TooLong) else _entry(entry)
            yield row, values
            if not whole:
                yield row + 1, "not-json"
            if not whole or values == "not-json":
                return


class _Behind:
    # A stream with bytes put back in front of it.

    def __init__(self, head: bytes, stream: Bytes) -> None:
        self.head, self.stream = head, stream

    def read1(self, size: int, /) -> bytes:
        head, self.head = self.head, b""
        return head or self.stream.read1(size)


def _entry(entry: bytes) -> tuple[Any, bool]:
    # The value, and whether nothing else stands behind it.
    try:
        text = entry.decode("utf-8")
        value, end = read_first(text)
    except UnicodeDecodeError:
        return "not-utf8", True
    except JsonFault as fault:
        return fault.name, True
    return _checked(value), not text[end:].strip()


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        return _checked(read_json(line.decode("utf-8")))
    except UnicodeDecodeError:
        return "not-utf8"
    except JsonFault as fault:
        return fault.name


def _checked(value: Any) -> dict[str, Any] | str:
    if not isinstance(value, dict):
        return "not-an-object"
    return value if all(map(is_utf8, value)) else "not-utf8"

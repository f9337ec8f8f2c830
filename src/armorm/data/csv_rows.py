"""Rows of CSV: records below a header.

In: a file, `.gz` or not.  Out: row numbers with texts by column, or with the names of faults.
Cost: one pass; the longest record within the limit is what is held.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armorm.conversation import is_utf8
from armorm.data import blocks
from armorm.data.blocks import Bytes, TooLong, lines_in
from armorm.errors import DataError
from armorm.user_files import open_file, shown

_HEADERS = {
    "too-long": "make it shorter",
    "not-utf8": "save the file as UTF-8",
    "not-csv": "mend its quotes",
    "truncated-file": "fetch the file again: it ends within its header",
}


def csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows below the header; blank lines are no rows. Raises DataError for a header that names no columns."""
    csv.field_size_limit(2**31 - 1)  # the limit is that of a whole record
    with open_file(path, unzip=True) as stream:
        lines = _Lines(stream)
        cells = csv.reader(lines, strict=True)
        header = _next_cells(cells, lines) or []
        if isinstance(header, str) or not all(map(is_utf8, header)):
            fault = header if isinstance(header, str) else "not-utf8"
            raise DataError(f"{shown(path)}: the header can't be read ({fault}): {_HEADERS[fault]}")
        if len(set(header)) < len(header):
            raise DataError(f"{shown(path)}: columns of the header share a name: {_named(header)}: give each its own")
        number = 0
        while (row := _next_cells(cells, lines)) is not None:
            if row == []:  # a blank line
                continue
            number += 1
            yield number, row if isinstance(row, str) else _values(header, row)


def _values(header: list[str], row: list[str]) -> dict[str, str] | str:
    if not all(map(is_utf8, row)):
        return "not-utf8"
    return dict(zip(header, row, strict=True)) if len(row) == len(header) else "not-csv"


def _named(header: list[str]) -> str:
    return shown(", ".join(header[:100]))


class _Overlong(Exception):  # noqa: N818 - caught where it is raised through the csv module
    pass


class _Lines:
    """Lines as texts, counted for each record."""

    def __init__(self, stream: Bytes) -> None:
        self._lines = lines_in(stream, blank=b"\r\n", inside=lambda: self.size > 0, quoted=lambda: self.quotes % 2 == 1)
        self._first = True
        self.size = 0
        self.quotes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        _, line = next(self._lines)
        self.quotes += line.quotes if isinstance(line, TooLong) else line.count(b'"')
        self.size += blocks.LONGEST_ROW + 1 if isinstance(line, TooLong) else len(line)
        coding, self._first = ("utf-8-sig" if self._first else "utf-8"), False
        if isinstance(line, TooLong) or self.size > blocks.LONGEST_ROW:
            raise _Overlong
        return line.decode(coding, "surrogateescape")

    def begin(self) -> None:
        self.size = self.quotes = 0

    def skip_record(self) -> None:
        """Go on to where the record's quotes are closed."""
        while self.quotes % 2 and (line := next(self._lines, None)) is not None:
            self.quotes += line[1].quotes if isinstance(line[1], TooLong) else line[1].count(b'"')


def _next_cells(cells: Iterator[list[str]], lines: _Lines) -> list[str] | str | None:
    lines.begin()
    try:
        return next(cells, None)
    except _Overlong:
        lines.skip_record()
        return "too-long"
    except csv.Error as error:
        return "truncated-file" if "end of data" in str(error) else "not-csv"

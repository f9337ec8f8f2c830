"""Bytes of a file → its lines, or the entries of a JSON list, each no longer than a limit, whatever the file holds.

In: a stream of bytes.  Out: lines and entries in order; one that is too long is `TooLong` in its place, and reading goes on.
Cost: one pass; the longest line or entry within the limit is what is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

LONGEST_ROW = 2**26
"""The bytes of the longest row that is read (64 MiB)."""
BLOCK = 2**20


@runtime_checkable
class Bytes(Protocol):
    """What has bytes in it: a file, an unzipped file."""

    def read1(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line or an entry that was passed over; how many quotes there were in it."""

    quotes: int = 0


def lines_in(
    stream: Bytes,
    *,
    blank: bytes = b" \t\r\n\v\f",
    inside: Callable[[], bool] = lambda: False,
    quoted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, bytes | TooLong]]:
    """The lines with their ends and numbers (from 1); those of `blank` bytes alone are left out, unless `inside` a row.

    Within quotes (`quoted`), lines without a quote come together, a block's at a time.
    """
    number, line = 1, _Held()
    while block := stream.read1(BLOCK):
        if quoted() and (end := block.rfind(b"\n") + 1) and b'"' not in block and not line.holds_quotes:
            line.add(block[:end])
            yield number, line.taken()
            line.clear()
            line.add(block[end:])
            number += block.count(b"\n")
            continue
        if (
            line.size + len(block) <= LONGEST_ROW
            and b"\n" in block
            and not block.strip(blank)
            and line.holds_only(blank)
            and not inside()
        ):
            number += block.count(b"\n")
            line.clear()
            line.add(block[block.rfind(b"\n") + 1 :])
            continue
        *whole, rest = block.split(b"\n")
        for piece in whole:
            line.add(piece + b"\n")
            if inside() or not line.holds_only(blank):
                yield number, line.taken()
            line.clear()
            number += 1
        line.add(rest)
    if line.size and (inside() or not line.holds_only(blank)):
        yield number, line.taken()


class _Held:
    # Pieces of one line; of one that is too long, only the number of its quotes.

    def __init__(self) -> None:
        self.size, self.quotes, self.pieces = 0, 0, list[bytes]()

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= LONGEST_ROW:
            self.pieces.append(piece)
        else:
            self.quotes += sum(one.count(b'"') for one in (*self.pieces, piece))
            self.pieces.clear()

    def clear(self) -> None:
        self.size, self.quotes = 0, 0
        self.pieces.clear()

    def holds_only(self, blank: bytes) -> bool:
        return self.size <= LONGEST_ROW and not any(piece.strip(blank) for piece in self.pieces)

    @property
    def holds_quotes(self) -> bool:
        return self.quotes > 0 or any(b'"' in piece for piece in self.pieces)

    def taken(self) -> bytes | TooLong:
        return b"".join(self.pieces) if self.size <= LONGEST_ROW else TooLong(self.quotes)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a list ends: `broken` with no bracket, or with something behind it; `cut` where the file ends too early."""

    broken: bool = False
    cut: bool = False


_MARKS = re.compile(rb'[\[\]{},"]')
_QUOTED = re.compile(rb'(?:[^\\"]++|\\.)*+(["\\])', re.DOTALL)
"""What stands in quotes, with the closing one, or with a backslash that a block ends with."""


def entries_in(stream: Bytes) -> Iterator[bytes | TooLong | Ended]:
    """The entries of the JSON list that a stream goes on with behind its first bracket, then how it ends.

    Entries are told apart by brackets, commas and quotes alone; whether each is JSON is for whoever reads it.
    """
    longest, held, size, depth, quoted, escaped, some = LONGEST_ROW, list[bytes](), 0, 0, False, False, False
    while block := stream.read1(BLOCK):
        start = place = 0
        if not quoted and b'"' not in block and depth > _count(block, b"]}"):  # nothing ends here
            place, depth = len(block), depth + _count(block, b"[{") - _count(block, b"]}")
        while place < len(block):
            if quoted:
                found, escaped = _QUOTED.match(block, place + escaped), False
                if found is None:
                    break
                place, escaped, quoted = found.end(), found[1] == b"\\", found[1] != b'"'
                continue
            if (found := _MARKS.search(block, place)) is None:
                break
            place, mark = found.end(), found[0]
            if mark == b'"':
                quoted = True
            elif mark in b"[{":
                depth += 1
            elif depth and mark in b"]}":
                depth -= 1
            elif not depth and mark in b",]}":
                last = block[start : place - 1]
                entry = TooLong() if size + len(last) > longest else b"".join((*held, last))
                if mark == b"," or some or isinstance(entry, TooLong) or entry.strip():
                    yield entry
                some, held, size, start = True, [], 0, place
                if mark != b",":
                    yield Ended(broken=mark == b"}" or bool(block[place:].strip()) or _goes_on(stream))
                    return
        size += len(block) - start
        if size > longest:
            held.clear()
        else:
            held.append(block[start:])
    if size > longest:
        yield TooLong()
    elif depth == 0 and not quoted and b"".join(held).strip():
        yield b"".join(held)
    yield Ended(cut=True)


def _count(block: bytes, marks: bytes) -> int:
    return sum(map(block.count, marks))


def _goes_on(stream: Bytes) -> bool:
    while block := stream.read1(BLOCK):
        if block.strip():
            return True
    return False

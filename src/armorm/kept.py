"""What is scored is kept: a file of JSON lines that grows, so that a run that was stopped goes on.

In: a file, and a key that names what its values depend on.  Out: `Kept`, values by name.  Cost: one pass over the file, and a
digest of each of its lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from armorm.disk import storage_errors
from armorm.errors import DataError

FORMAT, EARLIER = 4, 3
"""Now, a line holds all that was added together; then, one value."""
_START = re.compile(r'\{"format": \d+, "key": ')
_LINE = re.compile(r'(\{.*), "check": "([0-9a-f]{16})"\}')


class Kept:
    """JSON values by name, on disk as they come; every line ends with the digest of the key and of what stands before it.

    What is added together is kept together: a line that was cut takes all of it along, so that it is computed again in the same
    batches, which decide its last digits. A file that was begun with another key or format is begun anew; a line that was cut
    short, or is not as it was written, counts as not there. Without a path nothing is written. Raises StorageError when the file
    can't be written, DataError for one that holds something else.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self.values: dict[str, Any] = {}
        head = {"format": FORMAT, "key": key}
        if path is not None and not self._read(path, head):
            self._write("w", [_line(head, "")])

    def add(self, values: Mapping[str, Any]) -> None:
        """Keep some more."""
        self.values.update(values)
        self._write("a", [_line({"values": dict(values)}, self.key)])

    def _read(self, path: Path, head: dict[str, Any]) -> bool:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        lines = text.split("\n")[:-1]
        rows = [*(_row(line, "") for line in lines[:1]), *(_row(line, self.key) for line in lines[1:])]
        if text.strip() and not any(rows) and not _START.match(text):
            raise DataError(f"{path}: is there already and was not written by armorm: move it away, or choose another folder")
        if rows[:1] not in ([head], [{**head, "format": EARLIER}]):
            return False
        for row in filter(None, rows[1:]):
            self.values |= _values_of(row)
        if not text.endswith("\n"):
            self._write("a", [""])  # ends the broken line, so that the next one is whole
        return True

    def _write(self, mode: str, lines: Iterable[str]) -> None:
        if self.path is None:
            return
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))


def kept_faults(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) for every line of such a file that is not as it was written under the file's key."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    head = _row(lines[0], "")
    if head is None:
        yield 1, "damaged (it is not as it was written)"
        return
    for place, line in enumerate(lines[1:], start=2):
        if line and _row(line, str(head["key"])) is None:
            yield place, "damaged, or of another key: it counts as not there"


def is_kept(path: Path) -> bool:
    """Whether a file opens as these do."""
    with path.open("rb") as file:
        return _START.match(file.read(100).decode("utf-8", "replace")) is not None


def _line(row: Mapping[str, Any], key: str) -> str:
    body = json.dumps(row).removesuffix("}")
    return f'{body}, "check": "{_digest(key + body)}"}}'


def _row(line: str, key: str) -> dict[str, Any] | None:
    # None for a line that is not as `_line` wrote it.
    parts = _LINE.fullmatch(line)
    if parts is None or _digest(key + parts[1]) != parts[2]:
        return None
    row: dict[str, Any] = json.loads(parts[1] + "}")
    return row


def _values_of(row: Mapping[str, Any]) -> dict[str, Any]:
    values = row.get("values", {row["of"]: row["is"]} if {"of", "is"} <= row.keys() else {})
    return values if isinstance(values, dict) else {}


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()

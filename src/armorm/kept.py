"""What is scored is kept: a file of JSON lines that grows, so that a run that was stopped goes on.

In: a file, and a key that names what its values depend on.  Out: `Kept`, values by name.  Cost: one pass over the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from armorm.errors import StorageError

FORMAT = 1


class Kept:
    """JSON values by name, on disk as they come.

    A file that was begun with another key is begun anew; a line that was cut short counts as not there. Without a path nothing is
    written. Raises StorageError when the file can't be written.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        head = {"format": FORMAT, "key": key}
        if path is None or self._read(path, head):
            return
        self._write("w", [head])

    def add(self, values: Mapping[str, Any]) -> None:
        """Keep some more."""
        self.values.update(values)
        self._write("a", ({"of": name, "is": value} for name, value in values.items()))

    def _read(self, path: Path, head: dict[str, Any]) -> bool:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        rows = [row for row in map(_parsed, text.split("\n")[:-1]) if row is not None]
        if rows[:1] != [head]:
            return False
        self.values = {row["of"]: row["is"] for row in rows[1:] if "of" in row}
        if not text.endswith("\n"):
            self._write("a", [None])  # ends the broken line, so that the next one is whole
        return True

    def _write(self, mode: str, rows: Iterable[Any]) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as file:
                file.write("".join("\n" if row is None else json.dumps(row) + "\n" for row in rows))
        except OSError as error:
            raise StorageError(f"{self.path}: can't be written: {error.strerror}; choose another --out") from error


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None

"""Several processes on one store: which shards are whose, and what can be read while others are still at work.

In: text such as "2/8", a store's folder.  Out: `Worker`; `Growing`, a store whose shards appear one by one.
Cost: asking for a shard that is there reads it once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armorm.errors import CheckpointError, DataError
from armorm.features.answers import Answers, find_shard, shard_name
from armorm.features.columns import Stored


@dataclass(frozen=True)
class Worker:
    """The `place`-th of `of` processes, counted from 1: of every store it computes every `of`-th shard, its `place`-th first."""

    place: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Worker:
        """From "2/8". Raises DataError for anything else, and for a place that there isn't."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise DataError(f"shard is {text!r}: give I/N with I from 1 to N, such as 2/8 for the second of eight processes")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.place}/{self.of}"

    def shards(self, count: int) -> range:
        """Which of so many shards it computes."""
        return range(self.place - 1, count, self.of)

    def rows(self, count: int, size: int) -> int:
        """How many of so many rows it computes, in shards of `size`."""
        return sum(min(size, count - shard * size) for shard in self.shards(-(-count // size)))


class Growing(Answers):
    """A store that processes are filling: what the decoder made of a row can be read as soon as its shard is whole.

    The manifest holds what is known before the end: "parts", "shard_rows" and "rows".
    """

    @property
    def shards(self) -> int:
        """How many it will have."""
        return -(-len(self) // int(self.manifest["shard_rows"]))

    @property
    def present(self) -> int:
        """How many seem to be there: their facts are, which are written last."""
        return sum((self.folder / f"{shard_name(i, self.shards)}.json").is_file() for i in range(self.shards))

    def missing(self, worker: Worker) -> list[int]:
        """The shards of a worker that are not there, or not as they were written."""
        return [i for i in worker.shards(self.shards) if self._find(i) is None]

    def holds(self, row: int) -> bool:
        """Whether a row's shard is there."""
        try:
            self._shard(row // int(self.manifest["shard_rows"]))
        except CheckpointError:
            return False
        return True

    def check_shard(self, shard: int) -> Path:
        if self._find(shard) is None:
            raise CheckpointError(f"{self.folder}: shard {shard} is not there yet: wait until it is computed")
        return self.folder / f"{shard_name(shard, self.shards)}.safetensors"

    def _check_columns(self, tensors: Mapping[str, Stored]) -> None:
        """The manifest that names them all comes last."""

    def _find(self, shard: int) -> dict[str, Any] | None:
        size = int(self.manifest["shard_rows"])
        return find_shard(self.folder, shard_name(shard, self.shards), min(size, len(self) - shard * size))

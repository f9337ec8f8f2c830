"""Features where they stand: rows of a column across shards and stores, in any order and as often as wanted.

In: safetensors files that were verified, or an array.  Out: `Column` (on disk) and `Held` (in memory), both `Rows`.
Cost: a read per row, or one of the whole span where half of it is wanted. Nothing stays in memory, mapped or otherwise, and no
file stays open: a column may be larger than memory and have thousands of shards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from armorm.errors import CheckpointError

BLOCK = 1024
"""Rows that are in memory at one time: so few that their memory is used again, where larger pieces are new pages each time."""
REMEDY = "remove the manifest.json beside it and extract again (what is whole is kept)"

Places = Int[np.ndarray, "_"]

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor stands in a file: from byte `start` on."""

    place: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, first: int, last: int) -> Shaped[Tensor, "..."]:
        """The rows [first, last). Raises CheckpointError where the file ends too early."""
        found = torch.empty((last - first, *self.shape[1:]), dtype=self.dtype)
        with self._open() as file:
            self._fill(file, _bytes_of(found).reshape(-1), first)
        return found

    def rows(self, at: Places) -> Shaped[Tensor, "..."]:
        """Some rows, whose numbers rise."""
        found = torch.empty((len(at), *self.shape[1:]), dtype=self.dtype)
        self.rows_into(_bytes_of(found), np.arange(len(at)), at)
        return found

    def rows_into(self, target: Shaped[np.ndarray, "n bytes"], places: Places, at: Places) -> None:
        """Bytes of some rows, whose numbers rise, to places of a target."""
        first, last = int(at[0]), int(at[-1]) + 1
        if last - first <= 2 * len(at):
            target[places] = _bytes_of(self.read(first, last))[at - first]
            return
        with self._open() as file:
            for place, row in zip(places.tolist(), at.tolist(), strict=True):
                self._fill(file, target[place], row)

    def _open(self) -> FileIO:
        try:
            return FileIO(self.place)
        except OSError as error:
            raise CheckpointError(f"{self.place}: can't be read ({error.strerror}): {REMEDY}") from error

    def _fill(self, file: FileIO, target: Shaped[np.ndarray, " bytes"], row: int) -> None:
        # Bytes from the beginning of a row on, until the target is full
        wanted = target.data
        file.seek(self.start + row * self.dtype.itemsize * math.prod(self.shape[1:]))
        while len(wanted):
            if not (read := file.readinto(wanted)):
                raise CheckpointError(f"{self.place}: damaged (it ends too early): {REMEDY}")
            wanted = wanted[read:]


def _bytes_of(rows: Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "n bytes"]:
    return rows.reshape(len(rows), math.prod(rows.shape[1:])).view(torch.uint8).numpy()


def tensors_in(place: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name. Raises CheckpointError where its head can't be read."""
    # 8 bytes: the length of the head; the head as JSON, offsets counted from its end
    try:
        with place.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= place.stat().st_size - 8:
                raise ValueError(f"a head of {length} bytes")
            head = json.loads(file.read(length))
        facts = {name: facts for name, facts in head.items() if name != "__metadata__"}
        return {
            name: Stored(place, 8 + length + int(f["data_offsets"][0]), tuple(map(int, f["shape"])), _TYPES[f["dtype"]])
            for name, f in facts.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{place}: damaged (it has no head that can be read): {REMEDY}") from error


@runtime_checkable
class Rows(Protocol):
    """A matrix of which some rows are read at a time; `shape` is (rows, width)."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype:
        """What `stored` gives."""
        ...

    def __len__(self) -> int: ...

    def take(self, at: Places) -> Rows:
        """Some of the rows, in any order."""
        ...

    def stored(self, at: Places) -> Float[Tensor, "b d"]:
        """Some rows in the type they are kept in."""
        ...

    def rows(self, at: Places) -> Float[np.ndarray, "b d"]:
        """A copy of some rows, in float32 (float64 where they are kept so)."""
        ...

    def less(self, other: Rows, at: Places) -> Float[np.ndarray, "b d"]:
        """Some rows less the same rows of another matrix."""
        ...


class Held:
    """A matrix in memory."""

    def __init__(self, array: Float[np.ndarray, "n d"]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self._array.shape[0]), int(self._array.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        return torch.from_numpy(np.empty(0, self._array.dtype)).dtype

    def __len__(self) -> int:
        return len(self._array)

    def take(self, at: Places) -> Held:
        return Held(self._array[at])

    def stored(self, at: Places) -> Float[Tensor, "b d"]:
        return torch.from_numpy(self._array[at])

    def rows(self, at: Places) -> Float[np.ndarray, "b d"]:
        return self._array[at].astype(np.promote_types(self._array.dtype, np.float32), copy=False)

    def less(self, other: Rows, at: Places) -> Float[np.ndarray, "b d"]:
        return self.rows(at) - other.rows(at)


class Column:
    """A matrix on disk: `pieces` stand one behind the other, the tensors of a piece side by side; `width` in all.

    `places` choose and order its rows (none: all of them).
    """

    def __init__(self, pieces: Sequence[tuple[Stored, ...]], width: int, places: Places | None = None) -> None:
        self._pieces, self._width = pieces, width
        self._starts = np.cumsum([0, *(piece[0].shape[0] for piece in pieces)])
        self._places = np.arange(self._starts[-1]) if places is None else places
        types = {tensor.dtype for piece in pieces for tensor in piece}
        self.dtype = types.pop() if len(types) == 1 else torch.float32

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self._places), self._width)

    def __len__(self) -> int:
        return len(self._places)

    def take(self, at: Places) -> Column:
        """Some of the rows: none of them is read."""
        return Column(self._pieces, self._width, self._places[at])

    def stored(self, at: Places) -> Float[Tensor, "b d"]:
        """Some rows in the type they are stored in."""
        places = self._places[at]
        found = torch.empty((len(places), self._width), dtype=self.dtype)
        order = np.argsort(places, kind="stable")
        rising, size, whole = places[order], self.dtype.itemsize, _bytes_of(found)
        ends = np.searchsorted(rising, self._starts)
        for piece in np.flatnonzero(np.diff(ends)).tolist():
            mine, column = slice(ends[piece], ends[piece + 1]), 0
            own, at = order[mine], rising[mine] - self._starts[piece]
            for tensor in self._pieces[piece]:
                end = column + tensor.shape[1]
                if tensor.dtype == self.dtype:
                    tensor.rows_into(whole[:, column * size : end * size], own, at)
                else:
                    found[torch.from_numpy(own), column:end] = tensor.rows(at).to(self.dtype)
                column = end
        return found

    def rows(self, at: Places) -> Float[np.ndarray, "b d"]:
        """Some rows in float32, which holds every stored number as it is."""
        return self.stored(at).float().numpy()

    def less(self, other: Rows, at: Places) -> Float[np.ndarray, "b d"]:
        """Rows of this column less those of another one; answers that stand side by side in a file are read together."""
        if not isinstance(other, Column) or other._pieces is not self._pieces:
            return self.rows(at) - other.rows(at)
        both = Column(self._pieces, self._width, np.concatenate([self._places[at], other._places[at]]))
        one, two = both.stored(np.arange(2 * len(at))).split(len(at)) if len(at) else (self.stored(at),) * 2
        return one.float().sub_(two).numpy()

    def over(self, function: Callable[[Float[np.ndarray, "b d"]], np.ndarray]) -> np.ndarray:
        """What a function makes of the rows, a block at a time, one behind the other."""
        return gathered((function(self.rows(at)) for at in blocks(len(self))), len(self))


def blocks(n: int, size: int = BLOCK) -> Iterator[Places]:
    """The places 0 to n, so many at a time; where there are none, one block without any."""
    return (np.arange(start, min(start + size, n)) for start in range(0, max(n, 1), size))


def gathered(parts: Iterable[Shaped[np.ndarray, "..."]], n: int) -> Shaped[np.ndarray, "n ..."]:
    """Arrays of one type that have n rows together (one array at least), one behind the other.

    Each is let go once it is copied. A list of them would stand between the blocks that they are made of, and glibc does not give
    aligned memory (torch's) again where a neighbour is still in use: of blocks of 16 MiB, gigabytes would stay in memory.
    Raises ValueError for another number of rows.
    """
    found, end = np.empty(0), 0
    for part in parts:
        if not end:
            found = np.empty((n, *part.shape[1:]), part.dtype)
        start, end = end, end + len(part)
        found[start:end] = part
    if end != n:
        raise ValueError(f"there are {end} rows, not {n}")
    return found

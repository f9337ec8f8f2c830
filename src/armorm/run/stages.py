"""Stages that are done once: a folder per stage, keyed by what went into it.

In: a stage's inputs as JSON facts, a function that computes its value into a folder, one that reads it from there.
Out: `Stage`: the value, and the facts it reported.
Cost: one hash. A stage is built beside its place and renamed when whole, so a killed run leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from armorm.disk import numbers_or_null, read_sealed, write_sealed, writing_folder
from armorm.errors import CheckpointError

FORMAT = 1
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Stage(Generic[Value]):
    """A finished stage: its folder, its key, its value (the same whether it was computed or read), the facts it reported, the
    seconds it took, whether it ran just now."""

    folder: Path
    key: str
    value: Value
    facts: dict[str, Any]
    seconds: float
    fresh: bool


def key_of(inputs: Mapping[str, Any]) -> str:
    """Hash of JSON facts."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_nothing(_folder: Path) -> None:
    """The value of a stage that leaves files and facts only."""


def find_stage(folder: Path, key: str, read: Callable[[Path], Value]) -> Stage[Value] | None:
    """A stage that is finished with this key, or None; one whose stage.json is damaged is not there.

    Raises what `read` raises: CheckpointError for a damaged part.
    """
    try:
        stage = read_sealed(folder / "stage.json", FORMAT, remedy="")
    except CheckpointError:
        return None
    if stage["key"] != key:
        return None
    return Stage(folder, key, read(folder), stage["facts"], stage["seconds"], fresh=False)


def run_stage(
    folder: Path,
    inputs: Mapping[str, Any],
    compute: Callable[[Path], tuple[Value, Mapping[str, Any]]],
    read: Callable[[Path], Value],
) -> Stage[Value]:
    """Compute a stage into `folder`, or find it there with the same inputs.

    `compute` gets an empty folder to write its value into, and returns it with JSON facts; `read` reads the value back. Raises
    StorageError when the folder can't be written, and what the two raise.
    """
    key = key_of(inputs)
    if (stage := find_stage(folder, key, read)) is not None:
        return stage
    start = time.perf_counter()
    with writing_folder(folder) as beside:
        value, told = compute(beside)
        facts = json.loads(json.dumps(numbers_or_null(told), allow_nan=False))
        seconds = round(time.perf_counter() - start, 2)
        write_sealed(beside / "stage.json", {"format": FORMAT, "key": key, "seconds": seconds, "facts": facts})
    return Stage(folder, key, value, facts, seconds, fresh=True)

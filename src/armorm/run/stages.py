"""Stages that are done once: a folder per stage, keyed by what went into it.

In: a stage's inputs as JSON facts, a function that computes its value into a folder, one that reads it from there.
Out: `Stage`: the value, and the facts it reported.
Cost: a SHA-256 of the stage's files where it is found finished. A stage is built beside its place and renamed when whole, so a
killed run leaves nothing half-written. Only a folder that holds a `stage.json` is ever replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from armorm.disk import (
    Kinds,
    digest_of,
    is_sealed,
    is_there,
    numbers_or_null,
    read_sealed,
    reading_facts,
    write_sealed,
    writing_folder,
)
from armorm.errors import CheckpointError, DataError
from armorm.sums import NAME as SUMS
from armorm.sums import check_sums, read_sums, save_sums, write_sums

FORMAT = 1
HOLDS: Kinds = {"key": str, "facts": dict, "seconds": (int, float)}
FILE = "stage.json"
AGAIN = "it is computed again"
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


def require_stage_folder(folder: Path) -> None:
    """Raises DataError for a folder that holds something and is no stage's: it would be replaced. So for a place below a file."""
    nearest = next(at for at in (folder, *folder.parents) if is_there(at))
    if folder.is_symlink() or not nearest.is_dir():
        raise DataError(f"{nearest}: is there already and is no folder of a run: choose another folder for the run")
    if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder):
        raise DataError(
            f"{folder}: is there already, and no {FILE} says that a run wrote it: move it away, or choose another folder for the "
            "run"
        )


def _is_ours(folder: Path) -> bool:
    if is_sealed(folder / FILE):
        return True
    with suppress(CheckpointError):  # of two damaged files one says whose the folder is
        return FILE in read_sums(folder)
    return False


def find_stage(
    folder: Path, key: str, read: Callable[[Path], Value], damaged: Callable[[str], None] = lambda _said: None
) -> Stage[Value] | None:
    """A stage that is finished with this key, or None; one of whose files is missing or damaged is not there.

    `damaged` is told of such a file.
    """
    try:
        stage = read_sealed(folder / FILE, FORMAT, remedy=AGAIN, holds=HOLDS)
        if stage["key"] != key:
            return None
        if not read_sums(folder):
            raise CheckpointError(f"{folder / SUMS}: is missing: {AGAIN}")
        check_sums(folder, remedy=AGAIN)
        with reading_facts(folder / FILE, remedy=AGAIN):
            seconds = float(stage["seconds"])
        return Stage(folder, key, read(folder), stage["facts"], seconds, fresh=False)
    except CheckpointError as error:
        if (folder / FILE).exists():
            damaged(str(error))
        return None


def run_stage(
    folder: Path,
    inputs: Mapping[str, Any],
    compute: Callable[[Path], tuple[Value, Mapping[str, Any]]],
    read: Callable[[Path], Value],
    damaged: Callable[[str], None] = lambda _said: None,
) -> Stage[Value]:
    """Compute a stage into `folder`, or find it there with the same inputs.

    `compute` gets an empty folder to write its value into, and returns it with JSON facts; `read` reads the value back. Files of
    somebody else's that lie in an earlier stage's folder are carried over. Raises DataError for a folder that is no stage's,
    StorageError when it can't be written, and what the two raise.
    """
    key = key_of(inputs)
    require_stage_folder(folder)
    if (stage := find_stage(folder, key, read, damaged)) is not None:
        return stage
    start = time.perf_counter()
    with writing_folder(folder) as beside:
        value, told = compute(beside)
        facts = json.loads(json.dumps(numbers_or_null(told), allow_nan=False))
        seconds = round(time.perf_counter() - start, 2)
        write_sealed(beside / FILE, {"format": FORMAT, "key": key, "seconds": seconds, "facts": facts})
        write_sums(beside)
        _carry_over(folder, beside)
    return Stage(folder, key, value, facts, seconds, fresh=True)


def forget_stage(folder: Path) -> None:
    """Have a finished stage computed again next time."""
    with suppress(CheckpointError):
        stage = read_sealed(folder / FILE, FORMAT, remedy=AGAIN)
        write_sealed(folder / FILE, {**stage, "key": ""})
        save_sums(folder, {**read_sums(folder), FILE: digest_of(folder / FILE)})


def _carry_over(before: Path, after: Path) -> None:
    # What lies in the folder and was not written by the stage is its owner's: it keeps its rights, times and other names.
    if not before.is_dir():
        return
    try:
        ours = set(read_sums(before)) or set(read_sums(after))
    except CheckpointError:
        ours = set(read_sums(after))
    for entry in sorted(before.rglob("*")):
        name = entry.relative_to(before).as_posix()
        place = after / name
        if entry.is_dir() and not entry.is_symlink():
            if not any(one.startswith(f"{name}/") for one in ours):
                place.mkdir(parents=True, exist_ok=True)
        elif name not in ours and name not in (SUMS, FILE) and not _is_list(entry):
            if place.exists():
                raise DataError(f"{entry}: stands where the run writes a file of its own: move it away and run this again")
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(entry, place)


def _is_list(file: Path) -> bool:
    # The list of a model in a stage's folder, which earlier versions left out of the stage's own.
    with suppress(CheckpointError):
        return file.name == SUMS and bool(read_sums(file.parent))
    return False


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file, place, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(file, place, follow_symlinks=False)

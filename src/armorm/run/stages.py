"""Stages that are done once: a folder per stage, keyed by what went into it.

In: a stage's inputs as JSON facts, and a function that computes it into a folder.  Out: the facts it reported.
Cost: one hash.  A stage is built beside its place and renamed when whole, so a killed run leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armorm.errors import StorageError


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, its key, the facts it reported, the seconds it took, whether it ran just now."""

    folder: Path
    key: str
    facts: dict[str, Any]
    seconds: float
    fresh: bool


def key_of(inputs: Mapping[str, Any]) -> str:
    """Hash of JSON facts."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def find_stage(folder: Path, key: str) -> Stage | None:
    """A stage that is finished with this key, or None."""
    try:
        stage = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(stage, dict) or stage.get("key") != key:
        return None
    return Stage(folder, key, stage["facts"], stage["seconds"], fresh=False)


def run_stage(folder: Path, inputs: Mapping[str, Any], compute: Callable[[Path], dict[str, Any]]) -> Stage:
    """Compute a stage into `folder`, or find it there with the same inputs.

    `compute` gets an empty folder to write into and returns JSON facts. Raises StorageError when the folder can't be written.
    """
    key = key_of(inputs)
    found = find_stage(folder, key)
    if found is not None:
        return found
    start = time.perf_counter()
    beside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        facts = json.loads(json.dumps(compute(beside)))
        seconds = round(time.perf_counter() - start, 2)
        stage = {"key": key, "seconds": seconds, "facts": facts}
        (beside / "stage.json").write_text(json.dumps(stage, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder}: can't be written: {error.strerror or error}. Make room or choose another --out") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Stage(folder, key, facts, seconds, fresh=True)

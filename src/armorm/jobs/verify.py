"""`armorm verify`: everything that armorm wrote below a folder, checked against the digests that it kept.

In: a folder with runs, stores, models, results or score files.  Out: `Verification`: what was checked, and every fault.
Cost: a SHA-256 of each file; nothing is loaded, and nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from armorm.disk import LARGEST, is_marked
from armorm.errors import CheckpointError, DataError
from armorm.features.answers import store_faults
from armorm.jobs.score_file import ENDING, output_faults
from armorm.kept import is_kept, kept_faults
from armorm.report.verification import Checked, FileFault, Verification
from armorm.run.stages import FILE as STAGE
from armorm.run.train import RECIPE
from armorm.sums import NAME as SUMS
from armorm.sums import faults_of, read_sums
from armorm.user_files import read_small

Faults = Iterable[tuple[str, str]]


def verify(folder: Path) -> Verification:
    """Check a folder whole. Raises DataError where there is nothing of ours in it."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a run's, a store's, a model's, or one of results or scores")
    checked = [one for at in _folders(folder) for one in _check(folder, at)]
    if not checked:
        raise DataError(f"{folder}: holds nothing that armorm keeps digests of: give a run's folder, a store's or a model's")
    return Verification(folder=str(folder), checked=tuple(checked))


def _folders(folder: Path) -> Iterator[Path]:
    for at, below, _ in os.walk(folder):
        below.sort()
        yield Path(at)


def _check(root: Path, at: Path) -> Iterator[Checked]:
    names = sorted(entry.name for entry in os.scandir(at) if entry.is_file())
    if "manifest.json" in names or any(name.startswith("shard-") for name in names):
        yield _checked(root, at, "store", names, store_faults(at))
        return
    if SUMS in names or STAGE in names or RECIPE in names:
        yield _checked(root, at, _kind(names), _listed(at), _listed_faults(at, names))
    for name in names:
        if name.endswith(".jsonl") and is_kept(at / name):
            faults = ((name, f"line {line}: {fault}") for line, fault in kept_faults(at / name))
            yield _checked(root, at / name, "scores", [], faults)
        if name.endswith(ENDING):
            out = name.removesuffix(ENDING)
            yield _checked(root, at / out, "scores", [], output_faults(at / name))


def _kind(names: list[str]) -> str:
    kinds = {RECIPE: "run", "config.json": "model", STAGE: "stage"}
    return next((kind for name, kind in kinds.items() if name in names), "results")


def _listed(at: Path) -> list[str]:
    try:
        return [name for name in read_sums(at) if (at / name).is_file()]
    except CheckpointError:  # which is among the faults
        return []


def _listed_faults(at: Path, names: list[str]) -> Faults:
    if SUMS not in names:
        unfinished = "is missing: the run is not finished" if RECIPE in names else "is missing"
        yield SUMS, unfinished
        if RECIPE in names and not _is_marked(at / RECIPE):
            yield RECIPE, "was not written by a run, or was changed since"
    yield from faults_of(at)


def _is_marked(file: Path) -> bool:
    try:
        return is_marked(read_small(file, LARGEST).decode("utf-8", "replace"))
    except OSError:
        return False


def _checked(root: Path, at: Path, kind: str, files: list[str], faults: Faults) -> Checked:
    place = at.relative_to(root).as_posix()
    sizes = [(at / name).stat().st_size for name in files] or [at.stat().st_size if at.is_file() else 0]
    found = tuple(FileFault(file=file, fault=fault) for file, fault in faults)
    return Checked(place=place, kind=kind, files=max(len(files), 1), bytes=sum(sizes), faults=found)

"""A place → its raw records: from the hub, or from a local copy of the hub's files.

In: a `Place`, and optionally a local path.  Out: records, streamed.  Cost: one pass over the split's files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from armorm.data.files import BadRecord, Record, expand, hub_records, records
from armorm.data.sources.source import Place
from armorm.errors import DataError
from armorm.user_files import is_file, is_folder

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev"})


def place_records(place: Place, path: str | None = None) -> Iterator[Record | BadRecord]:
    """The place's records; with `path` (a folder that holds the hub's files, a file, or a pattern) nothing is fetched.

    Raises DataError when the hub can't be reached, when the set is not on the hub and no path is given, and when no file of
    the split is found at the path.
    """
    if path is not None:
        return chain.from_iterable(records(file, "text") for file in files_at(place, path))
    if not place.hub:
        raise DataError(
            f"this set is not on the Hugging Face hub: fetch it from {place.url} and give the folder as `path` "
            f"(read are {', '.join(_patterns(place))})"
        )
    return hub_records(place.hub, place.split, place.revision, place.subset, data_dir=place.data_dir)


def files_at(place: Place, path: str) -> list[Path]:
    """The files of the place's split: the path itself if it is a file or a pattern, else those of the folder.

    In a folder: what `place.files` names; else the data files whose path names the split (`data/train-00000-of-00002.parquet`,
    `harmless-base/train.jsonl.gz`); else, where no path names any split, every data file. Raises DataError when none is left.
    """
    named = expand(path, folders=True)
    if not is_folder(named[0]):
        return named
    folder = named[0]
    within = folder / place.data_dir if place.data_dir and (folder / place.data_dir).is_dir() else folder
    every = sorted(f for f in within.rglob("*") if is_file(f) and f.name.lower().endswith(ENDINGS) and not _hidden(f, within))
    chosen = _matching(every, within, place)
    if not chosen:
        seen = ", ".join(str(f.relative_to(within)) for f in every[:8]) or "no data file at all"
        wanted = " or ".join(_patterns(place)) or f"files that name the split {place.split!r}"
        source = f"`hf download {place.hub} --repo-type dataset --local-dir {folder}`" if place.hub else place.url
        raise DataError(f"{within}: holds {seen}; needed are {wanted}: fetch them from {source}, or name the files themselves")
    return chosen


def _matching(files: list[Path], folder: Path, place: Place) -> list[Path]:
    if place.files:
        return sorted({f for p in _patterns(place) for f in folder.glob(p) if is_file(f) and not _hidden(f, folder)})
    words = {f: _words(f.relative_to(folder)) for f in files}
    named = [f for f in files if place.split in words[f]]
    return named or [f for f in files if not words[f] & SPLITS]


def _patterns(place: Place) -> list[str]:
    return [pattern.replace("{split}", place.split) for pattern in place.files]


def _words(path: Path) -> set[str]:
    # "data/30k_train-00000-of-00001.parquet" → data, 30k_train, 00000, of, 00001, parquet
    return set(re.split(r"[/.\-]", path.as_posix()))


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)

"""The benchmarks by name, and their items.

In: names.  Out: `Benchmark`s, streams of `BenchmarkItem`.  Cost: the imports; one pass over a benchmark's files.

A module of this folder is listed by being there; what it offers stands in its `BENCHMARKS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from importlib import import_module
from itertools import chain
from pathlib import PurePath
from pkgutil import iter_modules

from armorm.data import benchmarks as package
from armorm.data.benchmarks.benchmark import Benchmark, FileSet
from armorm.data.files import Found, Record, expand
from armorm.data.reading import Stream, stream_items
from armorm.data.rows import BenchmarkItem
from armorm.data.sources.place import place_records
from armorm.data.sources.registry import look_up


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Every benchmark by name."""
    names = [m.name for m in iter_modules(package.__path__) if m.name not in ("benchmark", "catalogue", "registry")]
    by_name: dict[str, Benchmark] = {}
    for benchmark in (b for n in names for b in import_module(f"{package.__name__}.{n}").BENCHMARKS):
        assert benchmark.name not in by_name, benchmark.name
        by_name[benchmark.name] = benchmark
    return by_name


def benchmark(name: str) -> Benchmark:
    """Raises DataError with the known names."""
    return look_up(name, benchmarks(), "benchmark")


def benchmark_items(
    benchmark: Benchmark, *, path: str | None = None, name: str = "", on_fault_line: Callable[[str], None] | None = None
) -> Stream[BenchmarkItem]:
    """The benchmark's items.

    `path` is a folder with the hub's files, in which each part finds its own, or a single file, which then belongs to the part
    that has a file of that name, else to the first. Two items with one id are told apart by a suffix (note `repeated-id`), but an
    item that is there twice is a fault. Raises DataError when the files of a part can't be had.
    """
    parts = benchmark.parts if path is None else _parts_at(benchmark, path)
    found = [part.unfold(place_records(part.place, path)) for part in parts]
    where = path or benchmark.parts[0].place.hub or benchmark.title
    items = _told_apart(chain.from_iterable(found))
    return stream_items(items, source=name or benchmark.name, where=where, on_fault_line=on_fault_line)


def _parts_at(benchmark: Benchmark, path: str) -> tuple[FileSet, ...]:
    first = expand(path, folders=True)[0]
    if first.is_dir():
        return benchmark.parts
    mine = tuple(p for p in benchmark.parts if any(first.match(PurePath(pattern).name) for pattern in p.place.files))
    return (mine or benchmark.parts)[:1]


def _told_apart(records: Iterable[Found]) -> Iterator[Found]:
    contents: dict[str, set[bytes]] = {}
    for record in records:
        row_id = record.values.get("id") if isinstance(record, Record) else None
        if not isinstance(record, Record) or not isinstance(row_id, str) or row_id == "":
            yield record
            continue
        seen = contents.setdefault(row_id, set())
        content = blake2b(json.dumps(record.values, default=repr).encode("utf-8", "replace"), digest_size=16).digest()
        if seen and content not in seen:
            values = {**record.values, "id": f"{row_id}~{len(seen)}"}
            yield replace(record, values=values, notes=(*record.notes, "repeated-id"))
        else:
            yield record
        seen.add(content)

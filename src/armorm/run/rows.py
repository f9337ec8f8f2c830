"""A recipe's sources → validated rows by source, grouped by prompt, benchmark prompts kept out of training.

In: a recipe, its objectives.  Out: `Rows`.  Cost: one pass over every file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

from armorm.data.benchmarks.registry import benchmark, benchmark_items
from armorm.data.files import BadRecord, Found, Record, expand, hub_records, records
from armorm.data.reading import FaultCounts, OnFault, Read, Stream, cap_rows, stream_items, stream_pairs, stream_ratings
from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse, item_of
from armorm.data.sources.place import place_records
from armorm.data.sources.read import source_pairs, source_ratings
from armorm.data.sources.registry import pair_source, rating_source
from armorm.data.sources.source import PairSource, RatingSource
from armorm.data.splits import Split, exclude_groups, join_groups, split_of
from armorm.data.summary import SourceFacts
from armorm.errors import DataError, RecipeError
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe, Source, Suite

Row = TypeVar("Row", RatedResponse, PreferencePair, BenchmarkItem)
Named = TypeVar("Named", RatingSource, PairSource)
Kind = Literal["ratings", "pairs", "bench"]
_NO_FAULTS = FaultCounts({}, {}, ())


@dataclass(frozen=True)
class Rows:
    """Everything that was read, by source; `facts` tells of every source what was kept and why the rest was not."""

    ratings: dict[str, tuple[RatedResponse, ...]]
    pairs: dict[str, tuple[PreferencePair, ...]]
    suites: dict[str, tuple[BenchmarkItem, ...]]
    facts: tuple[SourceFacts, ...]
    faults: tuple[str, ...]

    def capped(self, *, ratings: int | None, pairs: int | None, items: int | None, seed: int) -> Rows:
        """At most so many rows of each source; their groups, and so their splits, stay what they are."""
        caps = {"ratings": ratings, "pairs": pairs, "bench": items}

        def kept(kind: Kind, found: dict[str, tuple[Row, ...]]) -> dict[str, tuple[Row, ...]]:
            return {n: cap_rows(rows, caps[kind], seed=seed, strata=_stratum) for n, rows in found.items()}

        kinds: Any = {
            "ratings": kept("ratings", self.ratings),
            "pairs": kept("pairs", self.pairs),
            "bench": kept("bench", self.suites),
        }
        facts = []
        for f in self.facts:
            rows = kinds[f.kind][f.name]
            over = len(f.rows) - len(rows)
            drops = {**f.drops, "over-cap": f.drops.get("over-cap", 0) + over} if over else f.drops
            facts.append(replace(f, rows=rows, drops=drops))
        return Rows(kinds["ratings"], kinds["pairs"], kinds["bench"], tuple(facts), self.faults)

    def splits(self, recipe: Recipe) -> dict[str, dict[str, int]]:
        """Rows per kind and split."""
        found: dict[str, dict[str, int]] = {}
        for kind, sources in (("ratings", self.ratings), ("pairs", self.pairs)):
            sides = [side_of(row.group, recipe) for rows in sources.values() for row in rows]
            found[kind] = {split.value: sides.count(split) for split in Split}
        return found


def side_of(group: str, recipe: Recipe) -> Split:
    """The split that a prompt group stands in."""
    return split_of(group, seed=recipe.seed, validation=recipe.splits.validation, test=recipe.splits.test)


def read_rows(recipe: Recipe, objectives: Objectives, reporter: Reporter | None = None) -> Rows:
    """Read all sources.

    Raises DataError for a source without usable rows (and for any fault if the recipe says `fail`), RecipeError for two
    sources of one name and for a debiasing reference that is none of them.
    """
    reader = _Reader(recipe, objectives, reporter or Reporter(quiet=True))
    ratings = {n: rows for s in recipe.ratings for n, rows in reader.ratings(s)}
    pairs = {n: rows for s in recipe.pairs for n, rows in reader.pairs(s)}
    suites = {suite.name: reader.suite(suite) for suite in recipe.bench}
    ratings, pairs, suites = _regrouped(ratings, pairs, suites)
    if unknown := set(recipe.debias.reference) - set(ratings) - set(pairs):
        strange, known = (", ".join(map(repr, sorted(names))) for names in (unknown, {*ratings, *pairs}))
        raise RecipeError(f"debias.reference names {strange}; the recipe's sources are {known}")
    held_out = {row.group for rows in suites.values() for row in rows}
    for name, rows in ratings.items():
        ratings[name] = reader.without(held_out, name, "ratings", rows)
    for name, pair_rows in pairs.items():
        pairs[name] = reader.without(held_out, name, "pairs", pair_rows)
    return Rows(ratings, pairs, suites, tuple(reader.facts(ratings, pairs, suites)), tuple(reader.examples))


class _Reader:
    # Reads sources and keeps, for each, how many records there were and where the missing ones went.

    def __init__(self, recipe: Recipe, objectives: Objectives, reporter: Reporter) -> None:
        self.recipe = recipe
        self.reporter = reporter
        self.objectives = objectives
        self.seen: dict[tuple[Kind, str], tuple[int, dict[str, int], dict[str, int]]] = {}
        self.examples: list[str] = []

    def ratings(self, source: Source) -> Iterator[tuple[str, tuple[RatedResponse, ...]]]:
        if source.builtin:
            from armorm.data.starter import build

            built = build(self.recipe.seed).ratings
            for name in sorted({r.source for r in built}):
                rows = tuple(r for r in built if r.source == name)
                yield name, self._kept("ratings", name, Read(rows, len(rows), _NO_FAULTS), source.cap)
            return
        for name, stream in self._rating_streams(source):
            self.reporter.say(f"reading {name}")
            yield name, self._kept("ratings", name, stream.read(self.recipe.on_fault), source.cap)

    def pairs(self, source: Source) -> Iterator[tuple[str, tuple[PreferencePair, ...]]]:
        if source.builtin:
            from armorm.data.starter import build

            rows = build(self.recipe.seed).pairs
            yield rows[0].source, self._kept("pairs", rows[0].source, Read(rows, len(rows), _NO_FAULTS), source.cap)
            return
        for name, stream in self._pair_streams(source):
            self.reporter.say(f"reading {name}")
            read = stream.read(self.recipe.on_fault)
            named = tuple(replace(r, section=source.section) for r in read.rows) if source.section else read.rows
            yield name, self._kept("pairs", name, replace(read, rows=named), source.cap)

    def suite(self, suite: Suite) -> tuple[BenchmarkItem, ...]:
        self.reporter.say(f"reading {suite.name}")
        read = read_suite(suite, seed=self.recipe.seed, on_fault=self.recipe.on_fault)
        return self._kept("bench", suite.name, read, suite.limit)

    def _rating_streams(self, source: Source) -> Iterator[tuple[str, Stream[RatedResponse]]]:
        if source.source is not None:
            named = _at(rating_source(source.source), source)
            name = source.name or named.name
            yield name, source_ratings(named, path=source.path, objectives=self.objectives, name=name)
            return
        for name, where, found in _places(source):
            yield name, stream_ratings(found, source=name, objectives=self.objectives, columns=source.columns, where=where)

    def _pair_streams(self, source: Source) -> Iterator[tuple[str, Stream[PreferencePair]]]:
        if source.source is not None:
            named = _at(pair_source(source.source), source)
            name = source.name or named.name
            yield name, source_pairs(named, path=source.path, name=name)
            return
        for name, where, found in _places(source):
            yield name, stream_pairs(found, source=name, columns=source.columns, where=where)

    def without(self, groups: set[str], name: str, kind: Kind, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        kept, dropped = exclude_groups(rows, groups)
        if dropped:
            self.seen[kind, name][1]["prompt-in-benchmark"] = dropped
        if not kept:
            raise DataError(f"{name}: no usable row is left (drops: {self.seen[kind, name][1]}): check its columns and its file")
        return kept

    def facts(self, *kinds: dict[str, Any]) -> Iterator[SourceFacts]:
        for kind, sources in zip(("ratings", "pairs", "bench"), kinds, strict=True):
            for name, rows in sources.items():
                total, drops, notes = self.seen[kind, name]  # type: ignore[index]
                yield SourceFacts(name, kind, total, rows, drops, notes)  # type: ignore[arg-type]

    def _kept(self, kind: Kind, name: str, read: Read[Row], cap: int | None) -> tuple[Row, ...]:
        if (kind, name) in self.seen:
            raise RecipeError(f"two {kind} sources are called {name!r}: give one of them another `name`")
        rows = cap_rows(read.rows, cap, seed=self.recipe.seed, strata=_stratum)
        drops = read.faults.drops
        if len(rows) < len(read.rows):
            drops["over-cap"] = len(read.rows) - len(rows)
        self.seen[kind, name] = (read.total, drops, dict(read.faults.notes))
        self.examples += read.faults.examples
        return rows


def read_suite(suite: Suite, *, seed: int = 0, on_fault: OnFault = "drop") -> Read[BenchmarkItem]:
    """A benchmark's items, with the sections that the suite gives them. Raises DataError when its files can't be had."""
    source = suite.source
    if source is None:
        assert suite.benchmark is not None
        return benchmark_items(benchmark(suite.benchmark), path=suite.path, name=suite.name).read(on_fault)
    if source.builtin:
        from armorm.data.starter import build

        rows = tuple(item_of(pair) for pair in build(seed).pairs)
        return Read(rows, len(rows), _NO_FAULTS)
    read = stream_items(_suite_records(source), source=suite.name, columns=source.columns, where=suite.name).read(on_fault)
    named = (replace(r, section=suite.section_of(source.section or r.section, r.subset)) for r in read.rows)
    return replace(read, rows=tuple(named))


def _at(named: Named, source: Source) -> Named:
    # A recipe may ask for another split or revision than the set's usual one.
    return replace(named, place=named.place.at(source.split, source.revision))


def _suite_records(source: Source) -> Iterator[Found]:
    if source.source is not None:
        named = _at(pair_source(source.source), source)
        return named.unfold(place_records(named.place, source.path))
    return chain.from_iterable(found for _, _, found in _places(source))


def _places(source: Source) -> Iterator[tuple[str, str, Iterator[Record | BadRecord]]]:
    # One (name, place, records) per file of a pattern, or for a hub data set.
    if source.hub is not None:
        yield (
            source.name or source.hub,
            source.hub,
            hub_records(source.hub, source.split or "train", source.revision, source.subset),
        )
        return
    assert source.path is not None
    files = expand(source.path)
    if source.name and len(files) > 1:
        yield source.name, source.path, (r for f in files for r in records(f))
        return
    for file in files:
        yield source.name or _stem(file), str(file), records(file)


def _stem(file: Path) -> str:
    return file.name.split(".")[0]


def _stratum(row: RatedResponse | PreferencePair | BenchmarkItem) -> str:
    if isinstance(row, RatedResponse):
        return " ".join(f"{name}={round(value)}" for name, value in sorted(row.ratings.items()))
    return f"{row.section}/{row.subset}"


def _regrouped(*kinds: Any) -> list[dict[str, Any]]:
    # Rows that share a prompt, or a group that their source names, share one group in every file; a source's rows then stand
    # in the order of their groups, so that answers to one prompt are neighbours.
    flat: list[Any] = [row for sources in kinds for rows in sources.values() for row in rows]
    groups = iter(join_groups(flat))
    return [{n: _ordered([replace(r, group=next(groups)) for r in rows]) for n, rows in sources.items()} for sources in kinds]


def _ordered(rows: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(sorted(rows, key=lambda r: (r.group, r.id)))

"""A recipe's sources → validated rows by source, grouped by prompt, benchmark prompts kept out of training.

In: a recipe, its objectives.  Out: `Rows`.  Cost: one pass over every file, into files of rows that are sorted once; memory holds
arrays of a few numbers a row, and of one source at a time the digests that tell repeats and ids apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt64

from armorm.bounds import name_fault, shown
from armorm.conversation import Span
from armorm.data.benchmarks.registry import benchmark, benchmark_items
from armorm.data.files import BadRecord, Cells, Found, Record, expand, hub_records, in_cells, records
from armorm.data.reading import FaultCounts, OnFault, Read, Stream, stream_items, stream_pairs, stream_ratings
from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse, item_of
from armorm.data.sources.place import place_records
from armorm.data.sources.read import source_pairs, source_ratings
from armorm.data.sources.registry import pair_source, rating_source
from armorm.data.sources.source import PairSource, RatingSource
from armorm.data.splits import Split, components, folds_of, group_name, split_of
from armorm.data.stored_rows import Kind, RowFolder, StoredRows
from armorm.data.summary import SourceFacts
from armorm.errors import DataError, FitError, RecipeError
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe, Source, Suite
from armorm.rendering import Renderer
from armorm.run.made_rows import make_rows
from armorm.run.rendered import Rendered
from armorm.user_files import stem_of

Row = TypeVar("Row", RatedResponse, PreferencePair, BenchmarkItem)
Named = TypeVar("Named", RatingSource, PairSource)
Groups = UInt64[np.ndarray, " g"]


@dataclass(frozen=True)
class Rows:
    """Everything that was read, by source; `facts` tells of every source what was kept and why the rest was not."""

    ratings: dict[str, StoredRows[RatedResponse]]
    pairs: dict[str, StoredRows[PreferencePair]]
    suites: dict[str, StoredRows[BenchmarkItem]]
    facts: tuple[SourceFacts, ...]
    faults: tuple[str, ...]

    @classmethod
    def of(cls, facts: Iterable[SourceFacts], faults: Sequence[str]) -> Rows:
        """The rows that the facts are of."""
        found = tuple(facts)
        ratings, pairs, suites = ({f.name: _rows(f) for f in found if f.kind == kind} for kind in ("ratings", "pairs", "bench"))
        return cls(ratings, pairs, suites, found, tuple(faults))

    @property
    def kinds(self) -> dict[Kind, dict[str, StoredRows[Any]]]:
        """Rows by source, by kind."""
        return {"ratings": self.ratings, "pairs": self.pairs, "bench": self.suites}

    def capped(self, *, ratings: int | None, pairs: int | None, items: int | None, seed: int) -> Rows:
        """At most so many rows of each source; their groups, and so their splits, stay what they are."""
        caps = {"ratings": ratings, "pairs": pairs, "bench": items}
        return Rows.of([_capped(f, caps[f.kind], seed) for f in self.facts], self.faults)

    def splits(self, recipe: Recipe) -> dict[str, dict[str, int]]:
        """Rows per kind and split."""
        found: dict[str, dict[str, int]] = {}
        for kind, sources in (("ratings", self.ratings), ("pairs", self.pairs)):
            rows = Counter[Split]()
            for groups, n in (np.unique(_groups(one), return_counts=True) for one in sources.values()):
                for group, count in zip(groups.tolist(), n.tolist(), strict=True):
                    rows[side_of(group_name(group), recipe)] += count
            found[kind] = {split.value: rows[split] for split in Split}
        return found


def side_of(group: str, recipe: Recipe) -> Split:
    """The split that a prompt group stands in."""
    return split_of(group, seed=recipe.seed, validation=recipe.splits.validation, test=recipe.splits.test)


def read_rows(
    recipe: Recipe,
    objectives: Objectives,
    reporter: Reporter | None = None,
    *,
    renderer: Renderer | None = None,
    folder: Path | None = None,
) -> Rows:
    """Read all sources. With a `renderer`, rows that its chat template refuses are left out as well, before any feature is made.

    The rows are kept in files in `folder`, to which nothing else should belong (default: in the system's folder for such, as
    long as somebody holds the rows). Raises DataError for a source without usable rows (and for any fault if the recipe says
    `fail`), RecipeError for two sources of one name and for a debiasing reference that is none of them, StorageError.
    """
    reader = _Reader(recipe, objectives, reporter or Reporter(quiet=True), renderer, RowFolder(folder))
    reader.read_all(recipe.ratings, recipe.pairs, recipe.bench)
    facts = complete(recipe, reader.take(), renderer=renderer, folder=reader.folder, say=reader.reporter.say)
    return Rows.of(facts, reader.examples)


def complete(
    recipe: Recipe,
    found: Sequence[SourceFacts],
    *,
    renderer: Renderer | None,
    folder: RowFolder | None = None,
    say: Callable[[str], None] = lambda _line: None,
    ordered: bool = True,
) -> tuple[SourceFacts, ...]:
    """All of a recipe's sources as they are used, in order, and behind them what is made of them. (To be counted, rows need no
    order where nothing is made.)

    Raises as `read_rows` does, and FitError where the splits leave too little to fit on.
    """
    facts = list(joined(recipe, found))
    del found
    for i, f in enumerate(facts) if ordered else ():  # one at a time, since what is not in order goes then
        facts[i] = replace(f, rows=_rows(f).ordered())
        del f
    if recipe.made:
        facts += make_rows(recipe, facts, folder or RowFolder(), renderer, say)
    _check_splits(Rows.of(facts, ()), recipe)
    return tuple(facts)


def joined(recipe: Recipe, facts: Iterable[SourceFacts]) -> tuple[SourceFacts, ...]:
    """The sources that are read, grouped by prompt, without training rows of a benchmark's prompts; in the order of the files.

    Raises as `read_rows` does.
    """
    grouped = _regrouped(list(facts))
    known = {f.name for f in grouped if f.kind != "bench"}
    if unknown := set(recipe.debias.reference) - known:
        strange, there = (", ".join(map(repr, sorted(names))) for names in (unknown, known))
        raise RecipeError(f"debias.reference names {strange}; the recipe's sources are {there}")
    held_out = _union(_groups(_rows(f)) for f in grouped if f.kind == "bench")
    kept = [f if f.kind == "bench" else _without(held_out, f) for f in grouped]
    return cap_suites(recipe, kept)  # what a cap leaves out of a suite stays out of training as well


def cap_suites(recipe: Recipe, facts: Iterable[SourceFacts]) -> tuple[SourceFacts, ...]:
    """The sources with as many items of each suite as the recipe says."""
    limits = {suite.name: suite.limit for suite in recipe.bench}
    return tuple(_capped(f, limits[f.name], recipe.seed) if f.kind == "bench" else f for f in facts)


def _regrouped(facts: Sequence[SourceFacts]) -> list[SourceFacts]:
    # Rows that share a prompt, or a group that their source names, share one group in every file.
    columns = [_rows(f).columns for f in facts]
    if not columns:
        return []
    groups = components(np.concatenate([c.prompts for c in columns]), np.concatenate([c.given for c in columns]))
    own = np.split(groups, np.cumsum([len(f.rows) for f in facts])[:-1])
    return [replace(f, rows=_rows(f).grouped(found)) for f, found in zip(facts, own, strict=True)]


def _without(groups: Groups, facts: SourceFacts) -> SourceFacts:
    rows = _rows(facts).without(groups)
    if dropped := len(facts.rows) - len(rows):
        facts = replace(facts, rows=rows, drops={**facts.drops, "prompt-in-benchmark": dropped})
    if not rows:
        raise DataError(f"{facts.name}: no usable row is left (drops: {facts.drops}): check its columns and its file")
    return facts


def _capped(facts: SourceFacts, cap: int | None, seed: int) -> SourceFacts:
    rows = _rows(facts).capped(cap, seed=seed)
    over = len(facts.rows) - len(rows)
    drops = {**facts.drops, "over-cap": facts.drops.get("over-cap", 0) + over} if over else facts.drops
    return replace(facts, rows=rows, drops=drops)


def _rows(facts: SourceFacts) -> StoredRows[Any]:
    assert isinstance(facts.rows, StoredRows)
    return facts.rows


def _groups(rows: StoredRows[Any]) -> Groups:
    assert rows.groups is not None
    return rows.groups


def _union(found: Iterable[Groups]) -> Groups:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *found]))


def _check_splits(rows: Rows, recipe: Recipe) -> None:
    # What the fits need, said before any feature is made.
    pairs = rows.splits(recipe)["pairs"]
    for split in (Split.TRAIN, Split.VALIDATION):
        if not pairs[split.value]:
            raise FitError(
                f"no pair is for {split.value} ({', '.join(f'{n} for {name}' for name, n in pairs.items())}): change "
                "`splits.validation` and `splits.test`, or give pairs of more prompts"
            )
    rated = map(group_name, _union(map(_groups, rows.ratings.values())).tolist())
    fitted = [group for group in rated if side_of(group, recipe) is not Split.TEST]
    found = {folds_of(group, seed=recipe.seed, folds=recipe.probe.folds) for group in fitted}
    if len(found) < recipe.probe.folds:
        raise FitError(
            f"only {len(found)} of {recipe.probe.folds} folds hold prompts ({len(fitted)} rated prompts are not for test): give "
            "more rated prompts, or fewer `probe.folds`"
        )


def survey_rows(
    recipe: Recipe, objectives: Objectives, reporter: Reporter | None = None, *, renderer: Renderer | None = None
) -> tuple[list[SourceFacts], list[str]]:
    """What the sources that are on this machine hold, all items of suites among it, and the first faults of each; nothing is
    fetched, no source is too poor."""
    lenient, reporter = recipe.model_copy(update={"on_fault": "drop"}), reporter or Reporter(quiet=True)
    reader = _Reader(lenient, objectives, reporter, renderer, RowFolder())
    here = filter(_is_here, recipe.ratings), filter(_is_here, recipe.pairs), filter(_is_here, recipe.bench)
    reader.read_all(*here)
    return reader.take(), reader.examples


def all_here(recipe: Recipe) -> bool:
    """Whether all sources are on this machine."""
    places: list[Source | Suite] = [*(s for s in (*recipe.ratings, *recipe.pairs) if not s.made), *recipe.bench]
    return all(map(_is_here, places))


def _is_here(place: Source | Suite) -> bool:
    found = place.source if isinstance(place, Suite) and place.source else place
    return found.path is not None or (isinstance(found, Source) and found.builtin is not None)


class _Reader:
    # Reads sources and keeps, for each, how many records there were and where the missing ones went.

    def __init__(
        self, recipe: Recipe, objectives: Objectives, reporter: Reporter, renderer: Renderer | None, folder: RowFolder
    ) -> None:
        self.recipe, self.objectives, self.reporter, self.renderer, self.folder = recipe, objectives, reporter, renderer, folder
        self.examples: list[str] = []
        self._seen: dict[tuple[Kind, str], SourceFacts] = {}

    def read_all(self, ratings: Iterable[Source], pairs: Iterable[Source], suites: Iterable[Suite]) -> None:
        for source in ratings:
            self._read("ratings", source)
        for source in pairs:
            self._read("pairs", source)
        for suite in suites:
            self._suite(suite)

    def take(self) -> list[SourceFacts]:
        """What was read, which is then the caller's alone."""
        found, self._seen = list(self._seen.values()), {}
        return found

    def _read(self, kind: Kind, source: Source) -> None:
        if source.made:  # of what the others bring, when that is known
            return
        if source.builtin:
            built = _starter(kind, self.recipe.seed)
            for name in sorted({row.source for row in built}):
                self._keep(kind, name, _Whole.of(row for row in built if row.source == name), source.cap)
            return
        for name, stream in self._streams(kind, source):
            self.reporter.say(f"reading {name}")
            self._keep(kind, name, stream, source.cap, section=source.section if kind == "pairs" else None)

    def _suite(self, suite: Suite) -> None:
        self.reporter.say(f"reading {suite.name}")
        span = self.recipe.backbone.rendering.answer
        read = read_suite(suite, seed=self.recipe.seed, on_fault=self.recipe.on_fault, span=span)
        self._keep("bench", suite.name, _Whole(read.rows, read.total, read.faults), None)

    def _streams(self, kind: Kind, source: Source) -> Iterator[tuple[str, Stream[Any]]]:
        find: Any = rating_source if kind == "ratings" else pair_source
        read: Any = source_ratings if kind == "ratings" else source_pairs
        stream: Any = stream_ratings if kind == "ratings" else stream_pairs
        more = {"objectives": self.objectives} if kind == "ratings" else {}
        if source.source is not None:
            named = _at(find(source.source), source)
            name = source.name or named.name
            yield name, read(named, path=source.path, name=name, **more)
            return
        for name, where, found in _places(source):
            span = self.recipe.backbone.rendering.answer
            yield name, stream(found, source=name, columns=source.columns, span=span, where=where, **more)

    def _keep(self, kind: Kind, name: str, stream: Stream[Any] | _Whole, cap: int | None, *, section: str | None = None) -> None:
        if fault := next(filter(None, map(name_fault, name.split("/"))), ""):  # a data set of the hub is called owner/name
            raise RecipeError(f"{kind}: the source {shown(name)}: {fault} (its `name`, or its file's)")
        for known in (known for of, known in self._seen if of == kind and known.casefold() == name.casefold()):
            alike = "" if known == name else f" and {known!r}, which are one folder on some disks"
            raise RecipeError(f"two {kind} sources are called {name!r}{alike}: give one of them another `name`")
        found = iter(stream) if section is None else (replace(row, section=section) for row in stream)
        rendered = Rendered(name, self.renderer)
        rows: StoredRows[Any] = self.folder.store(kind, rendered.kept(found))
        stream.check(self.recipe.on_fault)
        rendered.check(self.recipe.on_fault)
        faults = rendered.added_to(stream.faults)
        facts = SourceFacts(name, kind, stream.total, rows, faults.drops, dict(faults.notes))
        self._seen[kind, name] = _capped(facts, cap, self.recipe.seed)
        self.examples += faults.examples


@dataclass(frozen=True, slots=True)
class _Whole:
    # Rows that are at hand, as a stream gives them.

    rows: tuple[Any, ...]
    total: int
    faults: FaultCounts

    @classmethod
    def of(cls, rows: Iterable[Any]) -> _Whole:
        found = tuple(rows)
        return cls(found, len(found), FaultCounts({}, {}, ()))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def check(self, on_fault: OnFault) -> None:
        """They were checked when they were read."""


def read_suite(suite: Suite, *, seed: int = 0, on_fault: OnFault = "drop", span: Span = "last-turn") -> Read[BenchmarkItem]:
    """A benchmark's items, with the sections that the suite gives them. Raises DataError when its files can't be had."""
    source = suite.source
    if source is None:
        assert suite.benchmark is not None
        return benchmark_items(benchmark(suite.benchmark), path=suite.path, name=suite.name).read(on_fault)
    if source.builtin:
        found = tuple(item_of(pair) for pair in _starter("pairs", seed))
        return Read(found, len(found), FaultCounts({}, {}, ()))
    items = stream_items(_suite_records(source), source=suite.name, columns=source.columns, span=span, where=suite.name)
    read = items.read(on_fault)
    named = (replace(r, section=suite.section_of(source.section or r.section, r.subset)) for r in read.rows)
    return replace(read, rows=tuple(named))


def _starter(kind: Kind, seed: int) -> tuple[Any, ...]:
    from armorm.data.starter import build

    built = build(seed)
    return built.ratings if kind == "ratings" else built.pairs


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
        found = hub_records(source.hub, source.split or "train", source.revision, source.subset)
        cells: Cells = "text" if source.cells == "auto" else source.cells  # a data set has lists where it means lists
        yield source.name or source.hub, source.hub, in_cells(found, cells)
        return
    assert source.path is not None
    files = expand(source.path)
    if source.name and len(files) > 1:
        yield source.name, source.path, (r for f in files for r in records(f, source.cells))
        return
    for file in files:
        yield source.name or stem_of(file), str(file), records(file, source.cells)

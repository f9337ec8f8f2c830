"""A recipe's sources → validated rows by source, grouped by prompt, benchmark prompts kept out of training.

In: a recipe, its objectives.  Out: `Rows`.  Cost: one pass over every file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, TypeVar

from armorm.bounds import name_fault, shown
from armorm.conversation import Span
from armorm.data.benchmarks.registry import benchmark, benchmark_items
from armorm.data.files import BadRecord, Cells, Found, Record, expand, hub_records, in_cells, records
from armorm.data.reading import FaultCounts, OnFault, Read, Stream, cap_rows, stream_items, stream_pairs, stream_ratings
from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse, conversations_of, item_of
from armorm.data.sources.place import place_records
from armorm.data.sources.read import source_pairs, source_ratings
from armorm.data.sources.registry import pair_source, rating_source
from armorm.data.sources.source import PairSource, RatingSource
from armorm.data.splits import Split, exclude_groups, folds_of, join_groups, split_of
from armorm.data.summary import SourceFacts
from armorm.errors import ConversationError, DataError, FitError, RecipeError
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe, Source, Suite
from armorm.rendering import Renderer

Row = TypeVar("Row", RatedResponse, PreferencePair, BenchmarkItem)
Named = TypeVar("Named", RatingSource, PairSource)
Kind = Literal["ratings", "pairs", "bench"]


@dataclass(frozen=True)
class Rows:
    """Everything that was read, by source; `facts` tells of every source what was kept and why the rest was not."""

    ratings: dict[str, tuple[RatedResponse, ...]]
    pairs: dict[str, tuple[PreferencePair, ...]]
    suites: dict[str, tuple[BenchmarkItem, ...]]
    facts: tuple[SourceFacts, ...]
    faults: tuple[str, ...]

    @property
    def kinds(self) -> dict[Kind, dict[str, tuple[Any, ...]]]:
        """Rows by source, by kind."""
        return {"ratings": self.ratings, "pairs": self.pairs, "bench": self.suites}

    def capped(self, *, ratings: int | None, pairs: int | None, items: int | None, seed: int) -> Rows:
        """At most so many rows of each source; their groups, and so their splits, stay what they are."""
        caps: dict[str, int | None] = {"ratings": ratings, "pairs": pairs, "bench": items}
        kinds, facts = self.kinds, []
        for f in self.facts:
            rows: tuple[Any, ...] = cap_rows(kinds[f.kind][f.name], caps[f.kind], seed=seed, strata=_stratum)
            over = len(f.rows) - len(rows)
            drops = {**f.drops, "over-cap": f.drops.get("over-cap", 0) + over} if over else f.drops
            facts.append(replace(f, rows=rows, drops=drops))
            kinds[f.kind] = kinds[f.kind] | {f.name: rows}
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


def read_rows(
    recipe: Recipe, objectives: Objectives, reporter: Reporter | None = None, *, renderer: Renderer | None = None
) -> Rows:
    """Read all sources. With a `renderer`, rows that its chat template refuses are left out as well, before any feature is made.

    Raises DataError for a source without usable rows (and for any fault if the recipe says `fail`), RecipeError for two
    sources of one name and for a debiasing reference that is none of them.
    """
    reader = _Reader(recipe, objectives, reporter or Reporter(quiet=True), renderer)
    reader.read("ratings", recipe.ratings)
    reader.read("pairs", recipe.pairs)
    for suite in recipe.bench:
        reader.suite(suite)
    return join_rows(recipe, reader.seen.values(), reader.examples)


def join_rows(recipe: Recipe, facts: Iterable[SourceFacts], faults: Sequence[str]) -> Rows:
    """Rows of all of a recipe's sources, grouped by prompt, without training rows of a benchmark's prompts.

    Raises as `read_rows` does, and FitError where the splits leave too little to fit on.
    """
    seen = {(f.kind, f.name): f for f in facts}
    kinds = [{name: f.rows for (kind, name), f in seen.items() if kind == wanted} for wanted in ("ratings", "pairs", "bench")]
    ratings, pairs, suites = _regrouped(*kinds)
    if unknown := set(recipe.debias.reference) - set(ratings) - set(pairs):
        strange, known = (", ".join(map(repr, sorted(names))) for names in (unknown, {*ratings, *pairs}))
        raise RecipeError(f"debias.reference names {strange}; the recipe's sources are {known}")
    held_out = {row.group for rows in suites.values() for row in rows}
    trained: tuple[tuple[Kind, dict[str, Any]], ...] = (("ratings", ratings), ("pairs", pairs))
    for kind, sources in trained:
        for name in sources:
            sources[name], seen[kind, name] = _without(held_out, sources[name], seen[kind, name])
    read = Rows(ratings, pairs, suites, (), tuple(faults))
    _check_splits(read, recipe)
    return replace(read, facts=tuple(replace(f, rows=read.kinds[f.kind][f.name]) for f in seen.values()))


def _without(groups: set[str], rows: tuple[Any, ...], facts: SourceFacts) -> tuple[tuple[Any, ...], SourceFacts]:
    kept, dropped = exclude_groups(rows, groups)
    if dropped:
        facts = replace(facts, drops={**facts.drops, "prompt-in-benchmark": dropped})
    if not kept:
        raise DataError(f"{facts.name}: no usable row is left (drops: {facts.drops}): check its columns and its file")
    return kept, facts


def _check_splits(rows: Rows, recipe: Recipe) -> None:
    # What the fits need, said before any feature is made.
    pairs = rows.splits(recipe)["pairs"]
    for split in (Split.TRAIN, Split.VALIDATION):
        if not pairs[split.value]:
            raise FitError(
                f"no pair is for {split.value} ({', '.join(f'{n} for {name}' for name, n in pairs.items())}): change "
                "`splits.validation` and `splits.test`, or give pairs of more prompts"
            )
    rated = {row.group for found in rows.ratings.values() for row in found}
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
    """What the sources that are on this machine hold, and the first faults of each; nothing is fetched, no source is too poor."""
    reader = _Reader(recipe.model_copy(update={"on_fault": "drop"}), objectives, reporter or Reporter(quiet=True), renderer)
    reader.read("ratings", list(filter(_is_here, recipe.ratings)))
    reader.read("pairs", list(filter(_is_here, recipe.pairs)))
    for suite in filter(_is_here, recipe.bench):
        reader.suite(suite)
    return list(reader.seen.values()), reader.examples


def all_here(recipe: Recipe) -> bool:
    """Whether all sources are on this machine."""
    places: list[Source | Suite] = [*recipe.ratings, *recipe.pairs, *recipe.bench]
    return all(map(_is_here, places))


def _is_here(place: Source | Suite) -> bool:
    found = place.source if isinstance(place, Suite) and place.source else place
    return found.path is not None or (isinstance(found, Source) and found.builtin is not None)


class _Reader:
    # Reads sources and keeps, for each, how many records there were and where the missing ones went.

    def __init__(self, recipe: Recipe, objectives: Objectives, reporter: Reporter, renderer: Renderer | None) -> None:
        self.recipe = recipe
        self.renderer = renderer
        self.reporter = reporter
        self.objectives = objectives
        self.seen: dict[tuple[Kind, str], SourceFacts] = {}
        self.examples: list[str] = []

    def read(self, kind: Kind, sources: Sequence[Source]) -> dict[str, tuple[Any, ...]]:
        """The rows of all sources of a kind, by name."""
        found = {}
        for source in sources:
            for name, read in self._reads(kind, source):
                found[name] = self._kept(kind, name, read, source.cap)
        return found

    def suite(self, suite: Suite) -> tuple[BenchmarkItem, ...]:
        self.reporter.say(f"reading {suite.name}")
        span = self.recipe.backbone.rendering.answer
        read = read_suite(suite, seed=self.recipe.seed, on_fault=self.recipe.on_fault, span=span)
        return self._kept("bench", suite.name, read, suite.limit)

    def _reads(self, kind: Kind, source: Source) -> Iterator[tuple[str, Read[Any]]]:
        if source.builtin:
            built = _starter(kind, self.recipe.seed)
            for name in sorted({row.source for row in built}):
                yield name, _whole(tuple(row for row in built if row.source == name))
            return
        for name, stream in self._streams(kind, source):
            self.reporter.say(f"reading {name}")
            read = stream.read(self.recipe.on_fault)
            if source.section and kind == "pairs":
                read = replace(read, rows=tuple(replace(row, section=source.section) for row in read.rows))
            yield name, read

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

    def _kept(self, kind: Kind, name: str, read: Read[Row], cap: int | None) -> tuple[Row, ...]:
        if fault := name_fault(name.replace("/", "-")):  # a data set of the hub is called owner/name
            raise RecipeError(f"{kind}: the source {shown(name)}: {fault} (its `name`, or its file's)")
        if (kind, name) in self.seen:
            raise RecipeError(f"two {kind} sources are called {name!r}: give one of them another `name`")
        read = self._rendered(name, read)
        rows = cap_rows(read.rows, cap, seed=self.recipe.seed, strata=_stratum)
        over = {"over-cap": len(read.rows) - len(rows)} if len(rows) < len(read.rows) else {}
        self.seen[kind, name] = SourceFacts(name, kind, read.total, rows, read.faults.drops | over, dict(read.faults.notes))
        self.examples += read.faults.examples
        return rows

    def _rendered(self, name: str, read: Read[Row]) -> Read[Row]:
        """Without the rows that the chat template refuses: each a counted fault, and what it leaves out a counted note."""
        if self.renderer is None:
            return read
        counts, notes = Counter(read.faults.counts), Counter(read.faults.notes)
        kept: list[Row] = []
        examples: list[str] = []
        for row in read.rows:
            try:
                notes.update(sorted({note for c in conversations_of(row) for note in self.renderer.check(c)}))
                kept.append(row)
            except ConversationError as error:
                counts[error.fault] += 1
                examples.append(f"{name}: row {row.id}: {error}")
        if examples and self.recipe.on_fault == "fail":
            raise DataError(f"{name}: {len(examples)} rows can't be rendered:\n" + "\n".join(examples[:20]))
        faults = replace(read.faults, counts=counts, notes=notes, examples=(*read.faults.examples, *examples[:3]))
        return replace(read, rows=tuple(kept), faults=faults)


def read_suite(suite: Suite, *, seed: int = 0, on_fault: OnFault = "drop", span: Span = "last-turn") -> Read[BenchmarkItem]:
    """A benchmark's items, with the sections that the suite gives them. Raises DataError when its files can't be had."""
    source = suite.source
    if source is None:
        assert suite.benchmark is not None
        return benchmark_items(benchmark(suite.benchmark), path=suite.path, name=suite.name).read(on_fault)
    if source.builtin:
        return _whole(tuple(item_of(pair) for pair in _starter("pairs", seed)))
    items = stream_items(_suite_records(source), source=suite.name, columns=source.columns, span=span, where=suite.name)
    read = items.read(on_fault)
    named = (replace(r, section=suite.section_of(source.section or r.section, r.subset)) for r in read.rows)
    return replace(read, rows=tuple(named))


def _starter(kind: Kind, seed: int) -> tuple[Any, ...]:
    from armorm.data.starter import build

    built = build(seed)
    return built.ratings if kind == "ratings" else built.pairs


def _whole(rows: tuple[Row, ...]) -> Read[Row]:
    return Read(rows, len(rows), FaultCounts({}, {}, ()))


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
        yield source.name or file.name.split(".")[0], str(file), records(file, source.cells)


def _stratum(row: RatedResponse | PreferencePair | BenchmarkItem) -> str:
    if isinstance(row, RatedResponse):
        return " ".join(f"{name}={round(value)}" for name, value in sorted(row.ratings.items()))
    return f"{row.section}/{row.subset}"


def _regrouped(*kinds: Any) -> list[dict[str, Any]]:
    # Rows that share a prompt, or a group that their source names, share one group in every file; a source's rows then stand
    # in the order of their groups, so that answers to one prompt are neighbours.
    flat: list[Any] = [row for sources in kinds for rows in sources.values() for row in rows]
    groups = iter(join_groups(flat))

    def regroup(rows: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(sorted((replace(row, group=next(groups)) for row in rows), key=lambda row: (row.group, row.id)))

    return [{name: regroup(rows) for name, rows in sources.items()} for sources in kinds]

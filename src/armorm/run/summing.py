"""Sufficient statistics of a run's rated rows: fold by fold, source by source, for all feature candidates in one pass.

In: rated stores, a recipe's splits and folds, feature candidates.  Out: `RidgeStatistics` per fold for each candidate; on disk a
stage per source and candidate, which is found again until that source changes.
Cost: one pass over a source's features for what is not there yet (more where its sums would take over `HELD` bytes), one window
of rows in memory; on disk 4 d² bytes per fold and label pattern of a source.

What is added up is small beside the rows where they are many: a source's statistics are kept where they take at most `KEPT` times
the room of its features. Those of a smaller source are summed again whenever they are asked for, which costs less than keeping
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from armorm import __version__
from armorm.errors import FitError
from armorm.features.answers import Answers
from armorm.features.backbone import SIZES
from armorm.features.spec import FeatureSpec
from armorm.fit.parts import load_sums, save_sums, stored_triangle
from armorm.fit.statistics import Part, RidgeStatistics, Sums, parts_of
from armorm.objectives import Objectives
from armorm.run.context import TEST, RunContext
from armorm.run.stages import Stage, find_stage, key_of, require_stage_folder, run_stage

RatingStores = Mapping[str, Answers]
FORMAT = 2
HELD = 2 << 30
"""Bytes of sums in memory at a time."""
KEPT = 4
WINDOW = 1 << 26
"""Numbers of a window of features."""


def fold_statistics(
    context: RunContext,
    ratings: RatingStores,
    specs: Sequence[FeatureSpec],
    *,
    folder: Path | None = None,
    permuted: bool = False,
    fill: Float[np.ndarray, " k"] | None = None,
) -> dict[FeatureSpec, list[RidgeStatistics]]:
    """For each candidate the statistics per fold of prompt groups, test prompts left out.

    `folder` is where they are kept; without one, and for permuted ratings, nothing is. `permuted` gives each shard's ratings to
    its rows in a random order: what a probe that learns nothing is fitted on. `fill` stands for missing ratings, on [0, 1] (NaN:
    they stay missing). Raises FitError where a fold holds no prompt, and what reading the features raises.
    """
    generator = np.random.default_rng(context.recipe.seed)
    folds, k = range(context.recipe.probe.folds), len(context.objectives)
    found: dict[FeatureSpec, list[list[Part]]] = {spec: [[] for _ in folds] for spec in specs}
    counts, unlabelled = np.zeros(len(folds), np.int64), np.zeros(len(folds), np.int64)
    for name, store in ratings.items():
        labels = _labels(store, context.objectives, generator if permuted else None, fill)
        source = _Source(context, name, store, labels, fill, None if permuted or folder is None else folder / name)
        rows, without = source.counts()
        counts, unlabelled = counts + rows, unlabelled + without
        for spec, parts in source.parts(specs).items():
            for cell, part in zip(source.cells, parts, strict=True):
                found[spec][cell.fold].append(part)
    if not counts.all():
        raise FitError(
            f"only {np.count_nonzero(counts)} of {len(folds)} folds hold prompts: give more rated prompts, or fewer `probe.folds`"
        )
    widths = {spec: _width(next(iter(ratings.values())), spec) for spec in specs}
    return {
        spec: [RidgeStatistics(widths[spec], k, tuple(found[spec][i]), int(counts[i]), int(unlabelled[i])) for i in folds]
        for spec in specs
    }


@dataclass(frozen=True, eq=False)
class _Cell:
    # Rows of one fold with the same labels; `name` is that of its files.

    fold: int
    name: str
    columns: tuple[int, ...]
    rows: Int[np.ndarray, " r"]

    def within(self, rows: slice) -> Int[np.ndarray, " q"]:
        return self.rows[slice(*np.searchsorted(self.rows, (rows.start, rows.stop)))]


@dataclass(frozen=True, eq=False)
class _Source:
    """A store with its labels [n k] on [0, 1], and the folder for what is kept (None: nothing is)."""

    context: RunContext
    name: str
    store: Answers
    labels: Float[np.ndarray, "n k"]
    fill: Float[np.ndarray, " k"] | None
    folder: Path | None

    @cached_property
    def folds(self) -> Int[np.ndarray, " n"]:
        return self.context.folds(self.store.groups)

    @cached_property
    def cells(self) -> list[_Cell]:
        found = []
        for fold in range(self.context.recipe.probe.folds):
            own = np.flatnonzero(self.folds == fold)
            for i, (columns, rows) in enumerate(parts_of(self.labels[own])):
                found.append(_Cell(fold, f"fold-{fold}-part-{i}", columns, own[rows]))
        return found

    def counts(self) -> tuple[Int[np.ndarray, " f"], Int[np.ndarray, " f"]]:
        """Rows of each fold, and those without any label."""
        bins, fitted = self.context.recipe.probe.folds, self.folds != TEST
        nothing = np.isnan(self.labels).all(axis=1)
        return np.bincount(self.folds[fitted], minlength=bins), np.bincount(self.folds[fitted & nothing], minlength=bins)

    def parts(self, specs: Sequence[FeatureSpec]) -> dict[FeatureSpec, list[Part]]:
        """For each candidate a part per cell: found, or summed in one pass with the others that are missing."""
        stages = {spec: self._found(spec) for spec in specs}
        found = {spec: stage.value for spec, stage in stages.items() if stage is not None}
        missing = [spec for spec in specs if spec not in found]
        if not missing:
            return found
        for spec in filter(self._keeps, missing):  # before the pass, not after it
            require_stage_folder(self._place(spec))
        with self.context.reporter.bar(f"statistics of {self.name}", len(self.store)) as advance:
            for spec, sums in self._summed(missing, advance):
                found[spec] = self._keep(spec, sums) if self._keeps(spec) else self._parts(spec, sums)
        return found

    # -- on disk -------------------------------------------------------------------------------------------------------------

    def _keeps(self, spec: FeatureSpec) -> bool:
        features = len(self.store) * _width(self.store, spec) * SIZES[self.store.manifest["store_dtype"]]
        return self.folder is not None and len(self.cells) * _bytes(self.store, spec) <= KEPT * features

    def _place(self, spec: FeatureSpec) -> Path:
        assert self.folder is not None
        return self.folder / re.sub(r"[^\w.]+", "-", str(spec))

    def _inputs(self, spec: FeatureSpec) -> dict[str, Any]:
        recipe, columns = self.context.recipe, sorted({c for cell in self.cells for c in cell.columns})
        known = self.context.objectives.to_json()
        return {
            "format": FORMAT,
            "armorm": __version__,
            "store": self.store.key,
            "objectives": [known[column] for column in columns],
            "fill": None if self.fill is None else self.fill.tolist(),
            "feature": str(spec),
            "folds": recipe.probe.folds,
            "splits": recipe.splits.model_dump(),
            "seed": recipe.seed,
        }

    def _found(self, spec: FeatureSpec) -> Stage[list[Part]] | None:
        if not self._keeps(spec):
            return None
        return find_stage(self._place(spec), key_of(self._inputs(spec)), self._read, self.context.reporter.alarm)

    def _read(self, at: Path) -> list[Part]:
        return [load_sums(at, cell.name, self.context.objectives) for cell in self.cells]

    def _keep(self, spec: FeatureSpec, sums: Iterator[Sums]) -> list[Part]:
        place, names = self._place(spec), self.context.objectives.names

        def write(at: Path) -> tuple[list[Part], dict[str, Any]]:
            parts = []
            for cell, own in zip(self.cells, sums, strict=True):
                save_sums(at, cell.name, own.part(), [names[column] for column in cell.columns])
                parts.append(own.part(stored_triangle(place, cell.name)))
            return parts, {"rows": len(self.store)}

        return run_stage(place, self._inputs(spec), write, self._read).value

    # -- from the features ---------------------------------------------------------------------------------------------------

    def _parts(self, spec: FeatureSpec, sums: Iterator[Sums]) -> list[Part]:
        def again(cell: _Cell) -> Callable[[], Float[np.ndarray, " t"]]:
            return lambda: self._sum([(spec, cell)])[0].part().triangle()

        return [own.part(again(cell)) for cell, own in zip(self.cells, sums, strict=True)]

    def _summed(self, specs: Sequence[FeatureSpec], advance: Any) -> Iterator[tuple[FeatureSpec, Iterator[Sums]]]:
        """Each candidate with its cells' sums, as many at a time as `HELD` lets be."""
        room = HELD
        together: list[FeatureSpec] = []
        for spec in specs:
            need = len(self.cells) * _bytes(self.store, spec)
            if together and need > room:
                yield from self._together(together, advance)
                together, room = [], HELD
            together, room = [*together, spec], room - need
        yield from self._together(together, advance)

    def _together(self, specs: Sequence[FeatureSpec], advance: Any) -> Iterator[tuple[FeatureSpec, Iterator[Sums]]]:
        if len(specs) == 1 and len(self.cells) * _bytes(self.store, specs[0]) > HELD:
            yield specs[0], self._in_passes(specs[0], advance)
        else:
            yield from self._in_one_pass(specs, advance)

    def _in_one_pass(self, specs: Sequence[FeatureSpec], advance: Any) -> Iterator[tuple[FeatureSpec, Iterator[Sums]]]:
        sums = iter(self._sum([(spec, cell) for spec in specs for cell in self.cells], advance))
        for spec in specs:
            yield spec, iter([next(sums) for _ in self.cells])

    def _in_passes(self, spec: FeatureSpec, advance: Any) -> Iterator[Sums]:
        size = max(1, HELD // _bytes(self.store, spec))
        for start in range(0, len(self.cells), size):
            yield from self._sum([(spec, cell) for cell in self.cells[start : start + size]], advance)

    def _sum(self, cells: Sequence[tuple[FeatureSpec, _Cell]], advance: Any = lambda _done, _note: None) -> list[Sums]:
        """One pass over the features."""
        sums = [Sums(_width(self.store, spec), cell.columns, len(self.store)) for spec, cell in cells]
        specs = dict.fromkeys(spec for spec, _ in cells)
        for rows in _windows(self.store, max((_width(self.store, spec) for spec in specs), default=1)):
            for spec in specs:
                own = [(cell.within(rows), cell, total) for (of, cell), total in zip(cells, sums, strict=True) if of == spec]
                if not any(len(at) for at, *_ in own):
                    continue
                features = self.store.features(spec, rows)
                for at, cell, total in own:
                    total.add(features[at - rows.start], self.labels[at][:, list(cell.columns)])
            advance(rows.stop, "rows")
        return sums


def _labels(
    store: Answers, objectives: Objectives, generator: np.random.Generator | None, fill: Float[np.ndarray, " k"] | None
) -> Float[np.ndarray, "n k"]:
    labels = objectives.to_unit(store.ratings(objectives))
    if generator is not None:
        for rows in store.blocks():
            labels[rows] = labels[rows][generator.permutation(len(labels[rows]))]
    return labels if fill is None else np.where(np.isnan(labels), fill, labels)


def _windows(store: Answers, width: int) -> Iterator[slice]:
    # Whole shards, as many as a window holds
    shard = int(store.manifest["shard_rows"])
    size = shard * max(1, WINDOW // (shard * width))
    return (slice(start, min(start + size, len(store))) for start in range(0, len(store), size))


def _width(store: Answers, spec: FeatureSpec) -> int:
    return int(store.manifest["backbone"]["width"]) * len(spec.parts)


def _bytes(store: Answers, spec: FeatureSpec) -> int:
    # of one triangle
    width = _width(store, spec)
    return 4 * width * (width + 1)

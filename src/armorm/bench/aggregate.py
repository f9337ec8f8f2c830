"""Outcomes → the figures of a benchmark: every subset, every section and the whole, with intervals, ties and gaps named.

In: `Outcomes`, the benchmark's `Aggregate`s.  Out: `Figures`, `PairedDifference`.  Cost: per-group sums once, then one bootstrap
over prompt groups for all figures together; seconds and some 100 MB for 25,000 cells in 12,000 groups.

Every figure is a ratio of sums over groups, so a resample is a matrix product. In a resample a subset that no drawn group touches
is left out of its section's mean, as a subset without scores is left out of all. Where all outcomes are alike a bootstrap would
claim certainty: there the interval is the exact binomial bound over groups (as in `bench.metrics`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.bench.metrics import (
    PERMUTATIONS,
    RESAMPLES,
    PairedDifference,
    bound,
    check_lengths,
    exact_at_the_ends,
    place_names,
    places_of,
    sign_flip,
)
from armorm.bench.outcomes import ALL, Item, Outcomes, subset_names
from armorm.data.benchmarks.benchmark import Aggregate, Section
from armorm.errors import DataError
from armorm.intervals import Interval, bootstrap_by_group
from armorm.results import Number, Result, Share


class Figure(Share):
    """A share of credit, usually in [0, 1]; undefined where nothing is scored."""

    n: int
    """Items that are scored."""
    ties: int
    """Scored items that hold a tie."""
    unscored: int
    """Items that are not scored."""
    halves: Number
    """The share with a tie counted as its fair share."""


class Aggregated(Result):
    """One aggregate's figures."""

    note: str
    """What to know of this aggregate."""
    sections: Mapping[str, Figure]
    """Its sections, but those without a score."""
    overall: Figure
    """The whole."""
    missing: tuple[str, ...]
    """Its subsets without a score, which are left out of the means."""
    missing_sections: tuple[str, ...]
    """Its sections without a score, which are left out too."""
    unlisted: tuple[str, ...]
    """Scored subsets that stand in none of its sections."""


class Figures(Result):
    """All figures of a benchmark."""

    subsets: Mapping[str, Figure]
    """Its subsets, in order of appearance."""
    aggregates: Mapping[str, Aggregated]
    """Its aggregates by name, the official one first."""

    @property
    def official(self) -> Aggregated:
        """The official aggregate."""
        return next(iter(self.aggregates.values()))


def figures(outcomes: Outcomes, aggregates: Sequence[Aggregate], *, seed: int, resamples: int = RESAMPLES) -> Figures:
    """All figures at once. Sections that have no subset with a score are in `missing_sections` and have no figure.

    Raises DataError for two aggregates of one name.
    """
    names = [a.name for a in aggregates]
    if len(set(names)) < len(names):
        raise DataError(f"two aggregates share a name ({', '.join(names)}): give each its own")
    table = _Table.of(outcomes, outcomes.scored)
    plans = [_Plan.of(a, table) for a in aggregates]
    intervals = iter(table.intervals(plans, outcomes.credit, seed, resamples))
    halves = iter(table.values(plans, outcomes.halves))

    def figure(names: Iterable[str]) -> Figure:
        return table.figure(outcomes, names, next(intervals), next(halves))

    subsets = {name: figure([name]) for name in table.column}
    return Figures(subsets=subsets, aggregates={p.aggregate.name: p.aggregated(figure, table.scored) for p in plans})


def aggregate_of(items: Sequence[Item]) -> Aggregate:
    """An aggregate for items of one's own: a section is the mean over its items, the whole the mean over all items.

    An item's section is its own, else its subset, else "all".
    """
    counts: dict[str, Counter[str]] = {}
    for item, subset in zip(items, subset_names(items), strict=True):
        counts.setdefault(item.section or item.subset or ALL, Counter())[subset] += 1
    found = tuple(Section(name=s, subsets={k: float(n) for k, n in c.items()}, by_items=True) for s, c in counts.items())
    return Aggregate(name="items", sections=found, weights=None)


def aggregate_values(values: Mapping[str, float], aggregate: Aggregate) -> tuple[dict[str, float], float]:
    """Sections and overall value from the subsets' published values; subsets without one (or NaN) are left out.

    Where the aggregate means over items, its sections' weights stand for the numbers of items.
    """
    known = {subset: value for subset, value in values.items() if not math.isnan(value)}
    sections = {
        s.name: _mean([(known[k], w) for k, w in s.subsets.items() if k in known])
        for s in aggregate.sections
        if any(k in known for k in s.subsets)
    }
    if aggregate.weights is None:
        return sections, _mean([(known[k], w) for s in aggregate.sections for k, w in s.subsets.items() if k in known])
    return sections, _mean([(value, aggregate.weights[name]) for name, value in sections.items()])


def paired(
    a: Outcomes,
    b: Outcomes,
    aggregate: Aggregate,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> PairedDifference:
    """The aggregate's overall value of `a` minus that of `b`, over the cells that both scored, with its interval and p.

    The interval draws groups. p flips the signs of the groups' weighted gaps (`metrics.sign_flip`). Raises DataError when the two
    are not outcomes of the same cells.
    """
    check_lengths(a.credit, b.credit, "outcomes of the other method")
    if a.subset != b.subset or a.group != b.group:
        raise DataError("the two methods' outcomes are of different items: judge both on the same items, in the same order")
    listed = {subset for section in aggregate.sections for subset in section.subsets}
    both = a.scored & b.scored & np.array([subset in listed for subset in a.subset], dtype=bool)
    if not both.any():
        return PairedDifference(difference=Interval.undefined(), p=math.nan)
    table = _Table.of(a, both)
    plan = _Plan.of(aggregate, table)
    gaps = np.where(both, a.credit - b.credit, np.nan)
    whole = table.intervals([plan], gaps, seed, resamples)[-1]
    sums = table.sums(gaps) @ plan.slopes(table.counts.sum(axis=0))
    return PairedDifference(difference=bound(whole, -1.0), p=sign_flip(sums, seed, permutations))


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else math.nan


Drawn = Float[np.ndarray, "b s"]  # sums over the drawn groups, one row per resample, one column per subset


class _Columns(NamedTuple):
    """A section's subsets that have a score: their columns and weights."""

    section: Section
    columns: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class _Plan:
    """An aggregate on the columns of a table, without the sections that have no score."""

    aggregate: Aggregate
    sections: tuple[_Columns, ...]

    @classmethod
    def of(cls, aggregate: Aggregate, table: _Table) -> _Plan:
        found = []
        for section in aggregate.sections:
            here = [name for name in section.subsets if name in table.scored]
            if here:
                columns = np.array([table.column[name] for name in here], dtype=np.int64)
                found.append(_Columns(section, columns, np.array([section.subsets[name] for name in here], dtype=np.float64)))
        return cls(aggregate, tuple(found))

    @property
    def columns(self) -> Int[np.ndarray, " k"]:
        return np.concatenate([np.zeros(0, dtype=np.int64), *(columns for _, columns, _ in self.sections)])

    @property
    def weights(self) -> Float[np.ndarray, " s"]:
        """The sections' weights."""
        given = self.aggregate.weights or {}
        return np.array([given.get(section.name, 1.0) for section, _, _ in self.sections], dtype=np.float64)

    def values(self, sums: Drawn, sizes: Drawn) -> Float[np.ndarray, "b q"]:
        """Each section's value, then the overall one, of every resample."""
        means = _ratio(sums, sizes)
        sections = [
            _ratio(sums[:, c].sum(axis=1), sizes[:, c].sum(axis=1)) if section.by_items else _weighted(means[:, c], w)
            for section, c, w in self.sections
        ]
        stacked = np.stack(sections, axis=1) if sections else np.full((len(sums), 0), np.nan)
        if self.aggregate.weights is None:
            overall = _ratio(sums[:, self.columns].sum(axis=1), sizes[:, self.columns].sum(axis=1))
        else:
            overall = _weighted(stacked, self.weights)
        return np.column_stack([stacked, overall])

    def slopes(self, sizes: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
        """What one unit of credit in each subset adds to the overall value, where the subsets have these sizes (none is 0)."""
        slopes = np.zeros(len(sizes))
        if self.aggregate.weights is None:
            slopes[self.columns] = 1 / sizes[self.columns].sum()
            return slopes
        shares = self.weights / self.weights.sum()
        for (section, c, w), share in zip(self.sections, shares, strict=True):
            slopes[c] += share / sizes[c].sum() if section.by_items else share * w / w.sum() / sizes[c]
        return slopes

    def aggregated(self, figure: Callable[[Iterable[str]], Figure], scored: frozenset[str]) -> Aggregated:
        listed = dict.fromkeys(name for section in self.aggregate.sections for name in section.subsets)
        present = {section.name for section, _, _ in self.sections}
        return Aggregated(
            note=self.aggregate.note,
            sections={section.name: figure(section.subsets) for section, _, _ in self.sections},
            overall=figure(listed),
            missing=tuple(name for name in listed if name not in scored),
            missing_sections=tuple(s.name for s in self.aggregate.sections if s.name not in present),
            unlisted=tuple(sorted(scored - set(listed))),
        )


@dataclass(frozen=True)
class _Table:
    """The cells by group and subset, those that are kept counted: one column per subset, in order of appearance."""

    column: Mapping[str, int]
    scored: frozenset[str]  # subsets with a kept cell
    kept: Bool[np.ndarray, " c"]
    cells: Int[np.ndarray, " c"]  # each cell's column
    group: Int[np.ndarray, " k"]
    counts: Float[np.ndarray, "g s"]

    @classmethod
    def of(cls, outcomes: Outcomes, kept: Bool[np.ndarray, " c"]) -> _Table:
        column = {name: i for i, name in enumerate(dict.fromkeys(outcomes.subset))}
        cells = np.array([column[name] for name in outcomes.subset], dtype=np.int64)
        group = places_of([outcomes.group[i] for i in np.flatnonzero(kept)])
        counts = _summed(np.ones(len(group)), group, cells[kept], len(column))
        scored = frozenset(name for name, i in column.items() if counts[:, i].any())
        return cls(column, scored, kept, cells, group, counts)

    def sums(self, values: Float[np.ndarray, " c"]) -> Float[np.ndarray, "g s"]:
        return _summed(values[self.kept], self.group, self.cells[self.kept], len(self.column))

    def intervals(
        self, plans: Sequence[_Plan], values: Float[np.ndarray, " c"], seed: int, resamples: int
    ) -> tuple[Interval, ...]:
        """Of every subset, then of every plan's sections and whole."""
        sums = self.sums(values)

        def statistic(drawn: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b q"]:
            return _all(plans, drawn @ sums, drawn @ self.counts)

        if not len(sums):
            return (Interval.undefined(),) * len(self.values(plans, values))
        return bootstrap_by_group(statistic, place_names(len(sums)), seed=seed, resamples=resamples)

    def values(self, plans: Sequence[_Plan], values: Float[np.ndarray, " c"]) -> list[float]:
        totals = self.sums(values).sum(axis=0, keepdims=True), self.counts.sum(axis=0, keepdims=True)
        return [float(x) for x in _all(plans, *totals)[0]]

    def figure(self, outcomes: Outcomes, names: Iterable[str], interval: Interval, halves: float) -> Figure:
        """The figure over these subsets; cells of an item count as one item."""
        here = np.isin(self.cells, [self.column[name] for name in names if name in self.column])
        rows, unscored = here & self.kept, here & ~self.kept
        credit = outcomes.credit[rows]
        one = bound(interval, 0.0)
        if len(credit) and credit[0] in (0.0, 1.0) and (credit == credit[0]).all():
            alike = Interval(float(credit[0]), one.low, one.high)
            one = exact_at_the_ends(alike, len(np.unique(self.group[here[self.kept]])))
        high = one.high if math.isnan(one.high) else max(one.high, one.value)  # the score of Ties may pass 1
        n, ties, silent = (len(np.unique(outcomes.item[cells])) for cells in (rows, rows & outcomes.tied, unscored))
        return Figure(value=one.value, low=one.low, high=high, n=n, ties=ties, unscored=silent, halves=halves)


@dataclass(frozen=True)
class SectionSums:
    """An aggregate's sections as sums over prompt groups (`groups` names them), of which any weighing gives their values."""

    groups: tuple[str, ...]
    sections: tuple[str, ...]
    _plan: _Plan
    _sums: Float[np.ndarray, "g s"]
    _counts: Float[np.ndarray, "g s"]

    @classmethod
    def of(cls, outcomes: Outcomes, aggregate: Aggregate) -> SectionSums:
        """The scored outcomes' sums; sections without one are left out."""
        table = _Table.of(outcomes, outcomes.scored)
        plan = _Plan.of(aggregate, table)
        groups = np.unique(np.asarray(outcomes.group, dtype=str)[outcomes.scored])  # in the order of the sums' rows
        names = tuple(section.name for section, _, _ in plan.sections)
        return cls(tuple(groups.tolist()), names, plan, table.sums(outcomes.credit), table.counts)

    def values(self, weights: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b q"]:
        """Each section's value, where every group counts its weight, in each of b draws."""
        return self._plan.values(weights @ self._sums, weights @ self._counts)[:, :-1]


def _all(plans: Sequence[_Plan], sums: Drawn, sizes: Drawn) -> Float[np.ndarray, "b q"]:
    return np.concatenate([_ratio(sums, sizes), *(plan.values(sums, sizes) for plan in plans)], axis=1)


def _summed(
    values: Float[np.ndarray, " k"], group: Int[np.ndarray, " k"], column: Int[np.ndarray, " k"], columns: int
) -> Float[np.ndarray, "g s"]:
    groups = int(group.max()) + 1 if len(group) else 0
    cells = np.bincount(group * columns + column, weights=values, minlength=groups * columns)
    return cells.astype(np.float64).reshape(groups, columns)  # without any row, bincount gives integers


def _ratio(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=sizes > 0)


def _weighted(values: Float[np.ndarray, "b k"], weights: Float[np.ndarray, " k"]) -> Float[np.ndarray, " b"]:
    """The weighted mean of the values that are defined; NaN where none is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0) @ weights, defined @ weights)

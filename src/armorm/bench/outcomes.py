"""An item's scores → what they are worth under the benchmark's rule, cell by cell.

In: items, the scores of each item's answers (chosen, then rejected; NaN = unscored).  Out: `Outcomes`.  Cost: one pass.

A cell is one item in one subset; most rules give an item one cell, RM-Bench's three. `credit` follows the official script, in
which ties mostly count as wrong; `halves` gives a tie its fair share instead (a half between two). An item that lacks any score
is unscored as a whole.

The score of RewardBench 2's Ties is no mean over items as published. For the items n whose answers are scored, with spread
d = best right − worst right answer of `tied:n`, and gap c = worst right − best wrong answer of `tied:n` and of `ref:n`:

    .30 mean over tied [c > 0] + .30 mean over ref [c > 0]
    + mean over n with both of .20 [c_tied > d] + .20 [min(c_ref, c_tied) > d] + .01 tanh(min(c_ref, c_tied) / d − 1), NaN → 0

With N items in all, N_tied, N_ref and B pairs with both, an item of either kind gets N (.30 [c > 0] / N_kind + share of n / 2B),
so that the plain mean over items is that score, whichever partners are missing; the two items of a pair form one group. A single
item may thus get more than 1, and so may the whole by up to .01.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.data.benchmarks.benchmark import Rule
from armorm.errors import DataError

ALL = "all"
TIES = "Ties"
STYLES = 3
MERGED = {"safety-refuse": "safety", "safety-response": "safety"}
"""RM-Bench's two safety sets are one domain."""

Scores = Float[np.ndarray, "_"]  # of any one item: items differ in their number of answers


@runtime_checkable
class Item(Protocol):
    """What a rule knows of an item: its place, and the numbers of its chosen and rejected answers; no text."""

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def section(self) -> str: ...

    @property
    def subset(self) -> str: ...

    @property
    def sizes(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Outcomes:
    """One row per cell: its item's place, its subset and group, and what it is worth; NaN where unscored."""

    item: Int[np.ndarray, " c"]
    subset: tuple[str, ...]
    group: tuple[str, ...]
    credit: Float[np.ndarray, " c"]
    halves: Float[np.ndarray, " c"]
    tied: Bool[np.ndarray, " c"]

    @property
    def scored(self) -> Bool[np.ndarray, " c"]:
        """True where the cell has an outcome."""
        return ~np.isnan(self.credit)


class Worth(NamedTuple):
    """Of one cell."""

    credit: float
    halves: float
    tied: bool


UNSCORED = Worth(np.nan, np.nan, False)


def outcomes(rule: Rule, items: Sequence[Item], scores: Sequence[Scores]) -> Outcomes:
    """What each item's scores are worth.

    Raises DataError where the scores don't fit the items, and for an item that the rule can't judge.
    """
    _check(items, scores)
    if rule is Rule.STYLE_MATRIX:
        return _style_outcomes(items, scores)
    names = subset_names(items)
    groups = [item.group for item in items]
    if rule is Rule.REWARDBENCH_2:
        worths, groups = _rewardbench_2(items, scores, names, groups)
    else:
        worths = [_worth(_RULES[rule], item, s) for item, s in zip(items, scores, strict=True)]
    return _assembled(range(len(items)), names, groups, worths)


def subset_names(items: Sequence[Item]) -> list[str]:
    """The subset of each item's cell: its own, else its section, else "all"; `section/subset` where sections share the name."""
    sections: dict[str, set[str]] = {}
    for item in items:
        sections.setdefault(item.subset, set()).add(item.section)
    shared = {subset for subset, found in sections.items() if len(found) > 1}
    return [
        (f"{i.section}/{i.subset}" if i.section and i.subset and i.subset in shared else i.subset or i.section or ALL)
        for i in items
    ]


def _check(items: Sequence[Item], scores: Sequence[Scores]) -> None:
    if len(items) != len(scores):
        raise DataError(
            f"{len(items)} items but scores for {len(scores)}: give one array of scores for each item, in the same order"
        )
    for item, s in zip(items, scores, strict=True):
        if len(s) != sum(item.sizes):
            raise DataError(f"item {item.id} has {sum(item.sizes)} answers but {len(s)} scores: score each answer, chosen first")


def _assembled(places: Sequence[int], subsets: Sequence[str], groups: Sequence[str], worths: Sequence[Worth]) -> Outcomes:
    columns = np.array([(w.credit, w.halves) for w in worths], dtype=np.float64).reshape(-1, 2)
    tied = np.array([w.tied for w in worths], dtype=bool)
    return Outcomes(np.array(places, dtype=np.int64), tuple(subsets), tuple(groups), columns[:, 0], columns[:, 1], tied)


def _worth(judge: Callable[[Scores, Scores], Worth], item: Item, scores: Scores) -> Worth:
    n = item.sizes[0]
    return UNSCORED if np.isnan(scores).any() else judge(scores[:n], scores[n:])


def _pairs(chosen: Scores, rejected: Scores) -> Worth:
    above, same = chosen[:, None] > rejected, chosen[:, None] == rejected
    return Worth(float(above.mean()), float(above.mean() + same.mean() / 2), bool(same.any()))


def _preferences(chosen: Scores, rejected: Scores) -> Worth:
    _, halves, tied = _pairs(chosen, rejected)
    return Worth(halves, halves, tied)


def _best_of(chosen: Scores, rejected: Scores) -> Worth:
    share, tied = _share(chosen, rejected)
    return Worth(share, share, tied)


def _beats_all(chosen: Scores, rejected: Scores) -> Worth:
    least = chosen.min(keepdims=True)
    share, tied = _share(least, rejected)
    return Worth(float(least[0] > rejected.max()), share, tied)


def _share(chosen: Scores, rejected: Scores) -> tuple[float, bool]:
    # Of those that share the highest score, the part that is right.
    highest = max(chosen.max(), rejected.max())
    right, wrong = int((chosen == highest).sum()), int((rejected == highest).sum())
    return right / (right + wrong), right > 0 and wrong > 0


_RULES: Mapping[Rule, Callable[[Scores, Scores], Worth]] = {
    Rule.PAIRS: _pairs,
    Rule.PREFERENCES: _preferences,
    Rule.BEST_OF: _best_of,
    Rule.BEATS_ALL: _beats_all,
}


def _style_outcomes(items: Sequence[Item], scores: Sequence[Scores]) -> Outcomes:
    rows, columns = np.indices((STYLES, STYLES))  # chosen, rejected
    parts = {"easy": rows > columns, "normal": rows == columns, "hard": rows < columns}
    places, subsets, groups, worths = [], [], [], []
    for place, (item, s) in enumerate(zip(items, scores, strict=True)):
        domain = _domain(item)
        above, same = s[:STYLES, None] > s[None, STYLES:], s[:STYLES, None] == s[None, STYLES:]
        for part, where in parts.items():
            credit, ties = float(above[where].mean()), float(same[where].mean())
            places.append(place)
            subsets.append(f"{domain}/{part}")
            groups.append(item.group)
            worths.append(UNSCORED if np.isnan(s).any() else Worth(credit, credit + ties / 2, ties > 0))
    return _assembled(places, subsets, groups, worths)


def _domain(item: Item) -> str:
    chosen, rejected = item.sizes
    if chosen != STYLES or rejected != STYLES:
        raise DataError(
            f"item {item.id} has {chosen} chosen and {rejected} rejected answers: a style matrix needs "
            f"{STYLES} of each, one in each style"
        )
    return MERGED.get(item.subset, item.subset or item.section or ALL)


class _Stats(NamedTuple):
    gap: float  # worst right answer − best wrong one
    spread: float  # best right answer − worst right one


_Places = dict[str, dict[str, int]]  # kind → n → the item's place


def _rewardbench_2(
    items: Sequence[Item], scores: Sequence[Scores], names: Sequence[str], groups: list[str]
) -> tuple[list[Worth], list[str]]:
    worths = [_worth(_best_of, item, s) for item, s in zip(items, scores, strict=True)]
    places = _ties_places(items, names)
    for n, place in places["tied"].items():
        groups[place] = groups[places["ref"].get(n, place)]
    stats = {
        place: _stats(scores[place], items[place].sizes[0])
        for found in places.values()
        for place in found.values()
        if not np.isnan(scores[place]).any()
    }
    shares = [_ties_shares(places, stats, at_equal) for at_equal in (0.0, 0.5)]
    for place in (p for found in places.values() for p in found.values()):
        one = stats.get(place)
        worths[place] = UNSCORED if one is None else Worth(shares[0][place], shares[1][place], one.gap == 0)
    return worths, groups


def _ties_places(items: Sequence[Item], names: Sequence[str]) -> _Places:
    places: _Places = {"ref": {}, "tied": {}}
    for place, (item, name) in enumerate(zip(items, names, strict=True)):
        if name != TIES:
            continue
        found = re.search(r"\b(ref|tied):(\d.*)$", item.id)
        if found is None or found[2] in places[found[1]]:
            raise DataError(f"item {item.id} of {TIES}: its id must end in ref:n or tied:n, each once")
        places[found[1]][found[2]] = place
    return places


def _stats(scores: Scores, right: int) -> _Stats:
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        return _Stats(float(scores[:right].min() - scores[right:].max()), float(scores[:right].max() - scores[:right].min()))


def _ties_shares(places: _Places, stats: Mapping[int, _Stats], at_equal: float) -> dict[int, float]:
    """Each scored item's part of the ties score (the module's docstring has the formula); `at_equal`: what equality is worth."""

    def above(a: float, b: float) -> float:
        return at_equal if a == b else float(a > b)

    kinds = {kind: [p for p in found.values() if p in stats] for kind, found in places.items()}
    shares = {p: 0.30 * above(stats[p].gap, 0.0) / len(found) for found in kinds.values() for p in found}
    both = [(p, places["ref"][n]) for n, p in places["tied"].items() if p in stats and places["ref"].get(n) in stats]
    for tied, ref in both:
        (gap, spread), hard = stats[tied], min(stats[tied].gap, stats[ref].gap)
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = float(np.nan_to_num(np.tanh(np.float64(hard) / np.float64(spread) - 1)))
        share = 0.20 * above(gap, spread) + 0.20 * above(hard, spread) + 0.01 * margin
        for place in (tied, ref):
            shares[place] += share / (2 * len(both))
    return {place: len(shares) * share for place, share in shares.items()}

"""Pairs and benchmark items on stored features: where their answers stand in the stores, read when they are asked for.

In: stores.  Out: `PairArrays` (two answers of a row), `SuiteArrays` (all answers of each item).
Cost: labels and token counts are in memory, features stay on disk and are read a block at a time; texts for single rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.bench.run import Scores
from armorm.conversation import Answer, Message
from armorm.data.splits import Split
from armorm.features.answers import Answers, StoredItem, Texts, column_of
from armorm.features.columns import Column, Places, blocks, gathered
from armorm.features.spec import FeatureSpec
from armorm.run.context import RunContext
from armorm.scorers import AnswerFeatures


@dataclass(frozen=True, eq=False)
class StoredAnswers:
    """Answers whose features are on disk; a scorer is given a block of them at a time."""

    response: Column
    prompt: Column
    tokens: Float[np.ndarray, " n"]
    style: Int[np.ndarray, "n s"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Places) -> AnswerFeatures:
        """Some of the answers, in memory."""
        style = None if self.style is None else self.style[rows]
        return AnswerFeatures(self.response.rows(rows), self.prompt.rows(rows), self.tokens[rows], style)

    def blocks(self) -> Iterator[AnswerFeatures]:
        """All of them, in order."""
        return (self.take(rows) for rows in blocks(len(self)))

    def over(self, function: Callable[[AnswerFeatures], np.ndarray]) -> np.ndarray:
        """What a function makes of the answers, a block at a time, one behind the other."""
        return gathered((function(block) for block in self.blocks()), len(self))


class Columns:
    """Several stores one behind the other; `styled` where the style of their answers is asked for."""

    def __init__(self, stores: Sequence[Answers], prompt: FeatureSpec, *, styled: bool = False) -> None:
        self.stores = stores
        self.prompt = prompt
        self.styled = styled
        self._features: dict[str, Column] = {}

    @cached_property
    def bounds(self) -> Places:
        """Where each row's answers begin, and the end [n+1]."""
        return np.concatenate([[0], np.cumsum(np.concatenate([store.sizes() for store in self.stores]))]).astype(np.int64)

    @cached_property
    def tokens(self) -> Float[np.ndarray, " a"]:
        """The answers' lengths in tokens."""
        return np.concatenate([store.tokens() for store in self.stores]).astype(np.float64)

    @cached_property
    def style(self) -> Int[np.ndarray, "a s"] | None:
        """What was counted in the answers' texts, where it is asked for."""
        return np.concatenate([store.style() for store in self.stores]) if self.styled else None

    @cached_property
    def prompts(self) -> Column:
        """The rows' prompt features."""
        return column_of(self.stores, "prompt", self.prompt)

    def answers(self, feature: str, rows: Places, places: Places) -> StoredAnswers:
        """The answers at these places, each with its row's prompt."""
        if feature not in self._features:
            self._features[feature] = column_of(self.stores, "response", FeatureSpec.parse(feature))
        style = None if self.style is None else self.style[places]
        return StoredAnswers(self._features[feature].take(places), self.prompts.take(rows), self.tokens[places], style)

    def texts(self, row: int) -> Texts:
        """The texts of one row."""
        for store in self.stores:
            if row < len(store):
                return store.texts(row)
            row -= len(store)
        raise IndexError(row)

    def contexts(self) -> Iterator[tuple[Message, ...]]:
        """The contexts of all rows, in order."""
        return chain.from_iterable(store.contexts() for store in self.stores)


@dataclass(frozen=True, eq=False)
class PairArrays:
    """Pairs of several sources in one order, with what every later stage needs of them.

    A pair is two answers of a row: `rows`, `winners` and `losers` [p] say where they stand in `columns`. `folds` [p] are −1 for
    pairs of the test split. `origins` [p] are the sources again, but for pairs that were made: the source whose answers they were
    made of, which goes where that source goes.
    """

    columns: Columns
    rows: Places
    winners: Places
    losers: Places
    sources: list[str]
    sections: list[str]
    ids: list[str]
    groups: list[str]
    sides: list[Split]
    folds: Int[np.ndarray, " p"]
    origins: list[str]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def are_natural(self) -> Bool[np.ndarray, " p"]:
        """Which pairs somebody preferred; the others were made."""
        return np.array([a == b for a, b in zip(self.sources, self.origins, strict=True)], dtype=np.bool_)

    @property
    def natural(self) -> PairArrays:
        """The pairs that somebody preferred, without those that were made."""
        given = self.are_natural
        return self if given.all() else self.take(given)

    @property
    def prompts(self) -> Column:
        """Each pair's prompt."""
        return self.columns.prompts.take(self.rows)

    def chosen(self, feature: str) -> StoredAnswers:
        """The answers that should win."""
        return self.columns.answers(feature, self.rows, self.winners)

    def rejected(self, feature: str) -> StoredAnswers:
        """The answers that should lose."""
        return self.columns.answers(feature, self.rows, self.losers)

    def texts(self, pair: int) -> tuple[tuple[Message, ...], Answer, Answer]:
        """One pair's context, chosen and rejected answer."""
        row = int(self.rows[pair])
        texts, start = self.columns.texts(row), self.columns.bounds[row]
        chosen, rejected = (texts.answers[int(places[pair] - start)] for places in (self.winners, self.losers))
        return texts.context, chosen, rejected

    def at(self, *sides: Split) -> Bool[np.ndarray, " p"]:
        return np.array([s in sides for s in self.sides], dtype=np.bool_)

    def take(self, mask: Bool[np.ndarray, " p"]) -> PairArrays:
        """The pairs where `mask` holds."""
        kept = np.flatnonzero(mask)
        arrays = {name: getattr(self, name)[kept] for name in ("rows", "winners", "losers", "folds")}
        named = ("sources", "sections", "ids", "groups", "sides", "origins")
        lists = {name: [getattr(self, name)[i] for i in kept] for name in named}
        found: dict[str, Any] = arrays | lists
        return replace(self, **found)


def prompts_elsewhere(context: RunContext, ratings: Mapping[str, Answers], pairs: PairArrays) -> Column | None:
    """For `kl_elsewhere`: the prompts that have ratings and no pair in `pairs`, once each, without those for tests.

    None where the recipe does not ask for it.
    """
    if not context.recipe.gate.kl_elsewhere:
        return None
    taken, stores, places = set(pairs.groups), list(ratings.values()), list[int]()
    groups = [group for store in stores for group in store.groups]
    for place, (group, side) in enumerate(zip(groups, context.sides(groups), strict=True)):
        if group not in taken and side is not Split.TEST:
            taken.add(group)
            places.append(place)
    return column_of(stores, "prompt", context.recipe.features.prompt_spec).take(np.array(places, dtype=np.int64))


def pair_arrays(context: RunContext, stores: Mapping[str, Answers]) -> PairArrays:
    """The pairs of stores whose rows have two answers each, the chosen one first."""
    columns = Columns(list(stores.values()), context.recipe.features.prompt_spec, styled=context.recipe.debias.styled)
    rows = np.arange(len(columns.bounds) - 1)
    groups = [g for store in stores.values() for g in store.groups]
    made = {name for entry in context.recipe.made if entry.rows == "pairs" for name in entry.names}
    return PairArrays(
        columns,
        rows,
        columns.bounds[:-1],
        columns.bounds[:-1] + 1,
        sources=[name for name, store in stores.items() for _ in range(len(store))],
        sections=[section or name for name, store in stores.items() for section in store.sections],
        ids=[i for store in stores.values() for i in store.ids],
        groups=groups,
        sides=context.sides(groups),
        folds=context.folds(groups),
        origins=[o for name, store in stores.items() for o in (store.subsets if name in made else [name] * len(store))],
    )


@dataclass(frozen=True, eq=False)
class SuiteArrays:
    """Items with all their answers: those of item i stand behind each other from place `starts` [n] on, the chosen ones first.

    `pairs` holds every answer at least once: the i-th pair of an item is of the i-th answers of either side.
    """

    items: Sequence[StoredItem]
    rows: Places
    starts: Places
    pairs: PairArrays

    @classmethod
    def of_store(cls, context: RunContext, name: str, store: Answers) -> SuiteArrays:
        """All rows of a store."""
        styled = context.recipe.debias.styled
        columns, items = Columns([store], context.recipe.features.prompt_spec, styled=styled), store.items()
        starts = columns.bounds[:-1]
        drawn = [
            (row, starts[row] + i % chosen, starts[row] + chosen + i % rejected)
            for row, (chosen, rejected) in enumerate(item.sizes for item in items)
            for i in range(max(chosen, rejected))
        ]
        rows, winners, losers = np.array(drawn, dtype=np.int64).reshape(-1, 3).T
        of = [items[row] for row in rows]
        groups = [item.group for item in of]
        labels = ([name] * len(of), [item.section or name for item in of], [item.id for item in of], groups)
        pairs = PairArrays(columns, rows, winners, losers, *labels, context.sides(groups), context.folds(groups), labels[0])
        return cls(items, np.arange(len(items)), starts, pairs)

    @classmethod
    def of_pairs(cls, pairs: PairArrays) -> SuiteArrays:
        """Pairs, each an item."""
        rows = zip(pairs.ids, pairs.groups, pairs.sections, strict=True)
        return cls([StoredItem(i, g, s, "", (1, 1)) for i, g, s in rows], pairs.rows, pairs.winners, pairs)

    def answers(self, feature: str) -> tuple[StoredAnswers, StoredAnswers]:
        """All chosen answers, item by item, and all rejected ones."""
        return tuple(self.pairs.columns.answers(feature, *self._places(side)) for side in (0, 1))  # type: ignore[return-value]

    @property
    def lengths(self) -> Float[np.ndarray, " a"]:
        """Each answer's tokens: of all chosen ones, then of all rejected ones."""
        return self.pairs.columns.tokens[np.concatenate([self._places(side)[1] for side in (0, 1)])]

    @property
    def groups(self) -> list[str]:
        """Each answer's prompt group, in the same order."""
        return [item.group for side in (0, 1) for item in self.items for _ in range(item.sizes[side])]

    @property
    def prompts(self) -> Column:
        """Each item's prompt."""
        return self.pairs.columns.prompts.take(self.rows)

    def by_item(self, chosen: Float[np.ndarray, " c"], rejected: Float[np.ndarray, " r"]) -> list[Scores]:
        """Scores of `answers` → each item's, chosen first."""
        ends = [np.cumsum([item.sizes[side] for item in self.items], dtype=np.int64) for side in (0, 1)]
        sides = zip(np.split(chosen, ends[0])[:-1], np.split(rejected, ends[1])[:-1], strict=True)
        return [np.concatenate(both) for both in sides]

    def _places(self, side: int) -> tuple[Places, Places]:
        # Rows and places of the chosen (0) or the rejected (1) answers.
        sizes = np.array([item.sizes for item in self.items], dtype=np.int64).reshape(-1, 2)
        counts, first = sizes[:, side], self.starts + side * sizes[:, 0]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.rows, counts), np.repeat(first, counts) + within

"""Padded copies of reference answers: which answers get one, and what it did to rewards and nuisances.

In: a recipe's rows, later the store of the copies.  Out: pairs of an answer and its copy; `PaddedCopies`, their changes.
Cost: a pass over the rows' names, one over the chosen rows; a prediction of the copies.

Only training prompts' answers are padded: what a copy shows chooses λ, and must not be seen by what reports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from armorm.data.padding import pad
from armorm.data.rows import PreferencePair, texts_of
from armorm.data.splits import Split, group_code, in_turn
from armorm.data.stored_rows import StoredRows
from armorm.draws import code_of
from armorm.errors import DataError
from armorm.features.answers import Answers, column_of
from armorm.features.nuisances import counts_style
from armorm.fit.intervention import Changes
from armorm.fit.method import compute_nuisances
from armorm.recipe import Recipe
from armorm.run.probe_stage import FittedProbe
from armorm.run.rows import Rows, side_of

NAME = "padded"
"""What the copies' store is called."""


def padded_pairs(recipe: Recipe, rows: Rows) -> list[PreferencePair]:
    """Some of the reference sources' training answers (`debias.padded`), each with its padded copy behind it.

    As many prompts as there are take part: a second answer to a prompt comes when each has one. Answers with tool calls or of
    several turns are passed over. Raises DataError where there is no answer to pad.
    """
    count, sources = recipe.debias.padded or 0, _reference(recipe, rows)
    every = np.fromiter(_candidates(sources, recipe), _DRAWN)
    drawn = every[in_turn(every["group"], every["hash"])[:count]]
    found = [pair for i, source in enumerate(sources) for pair in _pairs(source, drawn[drawn["source"] == i], recipe.seed)]
    if count and not found:
        raise DataError(
            "debias.padded: the reference sources hold no training prompt's answer of plain text: name others in "
            "`debias.reference`, or leave `debias.padded` out"
        )
    return sorted(found, key=lambda pair: (pair.group, pair.id))


@dataclass(frozen=True, eq=False)
class PaddedCopies:
    """What padding changed, copy by copy, each copy's prompt group, and why others are `left_out`, counted."""

    changes: Changes
    groups: list[str]
    left_out: dict[str, int]


def read_copies(
    store: Answers, fitted: FittedProbe, computed: Sequence[str], *, asked: int, without: Collection[str] = ()
) -> PaddedCopies:
    """The changes of rewards and computed nuisances by padding, of all copies that were read whole beside answers that were, and
    are on no prompt group `without`."""
    rewards = column_of([store], "response", fitted.spec).over(fitted.probe.predict)
    style = store.style() if counts_style(computed) else None
    counted = compute_nuisances(computed, store.tokens().astype(np.float64), style)
    cut = store.column("response/truncated").astype(np.bool_)
    whole = ~(cut[0::2] | cut[1::2])
    taken = whole & np.array([group not in without for group in store.groups], dtype=np.bool_)
    changes = Changes(*((values[1::2] - values[0::2])[taken] for values in (rewards, counted)))
    left_out = {"no further answer of plain text": asked - len(store), "longer than max_tokens": int((~whole).sum())}
    groups = [group for group, kept in zip(store.groups, taken, strict=True) if kept]
    return PaddedCopies(changes, groups, {why: n for why, n in left_out.items() if n})


# -- which answers ------------------------------------------------------------------------------------------------------------

_DRAWN: Any = np.dtype([("source", "i4"), ("row", "i8"), ("place", "i4"), ("hash", "u8"), ("group", "u8")])


def _reference(recipe: Recipe, rows: Rows) -> list[StoredRows[Any]]:
    # As the debiasing's own reference answers: ratings where they are named, natural pairs where they or nothing are.
    wanted, made = set(recipe.debias.reference), {name for entry in recipe.made for name in entry.names}
    rated = [source for name, source in rows.ratings.items() if name in wanted]
    return [*rated, *(source for name, source in rows.pairs.items() if (name in wanted if wanted else name not in made))]


def _candidates(sources: Sequence[StoredRows[Any]], recipe: Recipe) -> Iterator[tuple[int, int, int, int, int]]:
    sides: dict[str, bool] = {}
    for i, source in enumerate(sources):
        for row, one in enumerate(source.outlines()):
            if one.group not in sides:
                sides[one.group] = side_of(one.group, recipe) is Split.TRAIN
            for place in range(one.answers) if sides[one.group] else ():
                yield i, row, place, _hash(recipe.seed, one.source, one.id, place), group_code(one.group)


def _hash(*named: object) -> int:
    return code_of("\0".join(map(str, named)).encode("utf-8", "replace"))


def _pairs(source: StoredRows[Any], drawn: np.ndarray, seed: int) -> Iterator[PreferencePair]:
    # Reading goes forward.
    drawn = drawn[np.lexsort((drawn["place"], drawn["row"]))]
    wanted, of = np.unique(drawn["row"], return_inverse=True)
    places: list[list[int]] = [[] for _ in wanted]
    for row, place in zip(of.tolist(), drawn["place"].tolist(), strict=True):
        places[row].append(place)
    for row, taken in zip(source.take(wanted), places, strict=True):
        context, answers = texts_of(row)
        for place in taken:
            answer = answers[place]
            if isinstance(answer, str) and answer.strip():
                name = f"{row.source}/{row.id}/{place}"
                yield PreferencePair(name, row.group, NAME, context, answer, pad(answer, seed=seed))

"""Which answers changed copies are made of: what each kind can use, prompts in turn, and whose answer takes another's place.

In: `Origin`s (rows in order, in their joined groups), what may be used of them, a seed.  Out: `Survey`s, chosen places, partners.
Cost: one pass over the texts; in memory some 30 bytes for each row of a training prompt.

What is chosen depends on the seed and the texts, not on the order of rows or sources.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from armorm.conversation import Message, split_answer
from armorm.data.made.changes import Case, Reason
from armorm.data.made.kinds import KINDS, KindName
from armorm.data.made.naming import is_named
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.splits import in_turn
from armorm.data.stored_rows import StoredRows
from armorm.draws import code_of

REASONS = tuple(Reason)
_POSSIBLE = len(REASONS)
_TRIES = 64
"""How many neighbours are asked for an answer of another prompt."""


@dataclass(frozen=True, eq=False)
class Origin:
    """A source that answers are taken of: the rated ones, of a pair the chosen one.

    `test` and `safety` are the groups of prompts that nothing is made of, and those that no refusal is made of. `harmless` names
    sources, sections and subsets whose prompts ask for nothing harmful.
    """

    name: str
    rows: StoredRows[Any]
    test: UInt64[np.ndarray, " t"]
    safety: UInt64[np.ndarray, " s"]
    harmless: tuple[str, ...] = ()

    @property
    def groups(self) -> UInt64[np.ndarray, " n"]:
        assert self.rows.groups is not None
        return self.rows.groups

    def is_harmless(self, row: RatedResponse | PreferencePair) -> bool:
        """Whether the row's prompt stands where nothing harmful is asked for."""
        names = (self.name, row.section, row.subset) if isinstance(row, PreferencePair) else (self.name,)
        return any(is_named(name, self.harmless) for name in names)


def answer_in(row: RatedResponse | PreferencePair) -> tuple[tuple[Message, ...], Any]:
    """The context and the answer that stands for the row."""
    return split_answer(row.messages) if isinstance(row, RatedResponse) else (row.context, row.chosen)


def case_of(row: RatedResponse | PreferencePair, other: str = "") -> Case | None:
    """The row as a case of plain text; None where tools, calls or several turns of the assistant answer."""
    context, answer = answer_in(row)
    plain = isinstance(answer, str) and not any(m["role"] == "tool" or "tools" in m or "tool_calls" in m for m in context)
    return Case(context, answer, other) if plain else None


@dataclass(frozen=True, eq=False)
class Survey:
    """What an origin offers: of each row that is looked at its `places` [n], `keys` [n] (of prompt and answer), `groups` [n],
    and for each kind why nothing is made of it (`reasons` [n k], `_POSSIBLE` where something is). `left` counts the others."""

    places: Int64[np.ndarray, " n"]
    keys: UInt64[np.ndarray, " n"]
    groups: UInt64[np.ndarray, " n"]
    reasons: UInt8[np.ndarray, "n k"]
    left: int


def survey(origin: Origin, kinds: Sequence[KindName], *, seed: int) -> Survey:
    """Look at all rows whose prompts are not for testing."""
    places = np.flatnonzero(~np.isin(origin.groups, origin.test))
    groups = origin.groups[places]
    safety = np.isin(groups, origin.safety)
    keys, reasons = np.empty(len(places), np.uint64), np.empty((len(places), len(kinds)), np.uint8)
    for i, row in enumerate(origin.rows.take(places)):
        case = case_of(row)
        keys[i] = _key(row, seed)
        for j, name in enumerate(kinds):
            guarded = _guarded(origin, row, on_safety=bool(safety[i])) if name == "compliance" else None
            found = Reason.TOOLS if case is None else guarded or KINDS[name].apply(case, seed=seed)
            reasons[i, j] = REASONS.index(found) if isinstance(found, Reason) else _POSSIBLE
    return Survey(places, keys, groups, reasons, len(origin.rows) - len(places))


def _guarded(origin: Origin, row: RatedResponse | PreferencePair, *, on_safety: bool) -> Reason | None:
    # Why a row's prompt gets no refusal, whatever it says.
    if not origin.is_harmless(row):
        return Reason.NOT_HARMLESS
    return Reason.SAFETY_PROMPT if on_safety else None


def _key(row: RatedResponse | PreferencePair, seed: int) -> int:
    return code_of(json.dumps([seed, *answer_in(row)], default=str).encode())


@dataclass(frozen=True, eq=False)
class Chosen:
    """For one kind: of each origin the places, in order, of the answers it is made of, and how many were left out by reason."""

    places: tuple[Int64[np.ndarray, " _"], ...]
    left: Counter[str]


def choose(surveys: Sequence[Survey], kind: int, most: int | None) -> Chosen:
    """At most so many answers: each prompt gives one before any gives a second; the same text counts once."""
    joined: Any = {name: np.concatenate([getattr(one, name) for one in surveys]) for name in ("keys", "groups")}
    reasons = np.concatenate([one.reasons[:, kind] for one in surveys])
    left = Counter({Reason.TEST_PROMPT.value: sum(one.left for one in surveys)})
    first = np.zeros(len(reasons), np.bool_)
    first[np.unique(joined["keys"], return_index=True)[1]] = True
    left[Reason.REPEATED.value] = int((~first).sum())
    left.update({REASONS[code].value: n for code, n in _counts(reasons[first & (reasons != _POSSIBLE)])})
    at = np.flatnonzero(first & (reasons == _POSSIBLE))
    at = at[in_turn(joined["groups"][at], joined["keys"][at])]
    kept = np.sort(at[:most])
    left["over-cap"] = len(at) - len(kept)
    edges = np.cumsum([0, *(len(one.places) for one in surveys)])
    own = [kept[(kept >= a) & (kept < b)] - a for a, b in pairwise(edges)]
    return Chosen(tuple(one.places[i] for one, i in zip(surveys, own, strict=True)), +left)


def _counts(codes: UInt8[np.ndarray, " m"]) -> Iterator[tuple[int, int]]:
    found, n = np.unique(codes, return_counts=True)
    return zip(found.tolist(), n.tolist(), strict=True)


def partners(groups: UInt64[np.ndarray, " n"], *, seed: int) -> Int64[np.ndarray, " n"]:
    """For each answer of an origin the place of another prompt's, −1 where none is near: all at one distance, so that each
    answer stands in for about one other, and both are read forwards."""
    n = len(groups)
    if n < 2:
        return np.full(n, -1)
    largest = int(np.unique(groups, return_counts=True)[1].max())
    room = max(n - 2 * largest, 0)
    first = largest + code_of(f"partners:{seed}".encode()) % (room + 1)
    found, open_ = np.full(n, -1), np.ones(n, np.bool_)
    for step in range(min(_TRIES, n)):
        other = (np.arange(n) + first + step) % n
        fits = open_ & (groups[other] != groups)
        found[fits], open_ = other[fits], open_ & ~fits
        if not open_.any():
            break
    return found

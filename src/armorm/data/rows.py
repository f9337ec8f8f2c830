"""Rows: what every source becomes, whatever its file looked like.

In: nothing (these are types).  Out: `RatedResponse` (stage 1), `PreferencePair` (stage 2), `BenchmarkItem`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from armorm.conversation import Answer, Message, split_answer, turns_of


@dataclass(frozen=True, slots=True)
class RatedResponse:
    """A conversation whose last answer was rated on any subset of the objectives.

    `ratings` are on the raw scale, absent where there is none; `group` is shared by all rows of a prompt.
    """

    id: str
    group: str
    source: str
    messages: tuple[Message, ...]
    ratings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to the same context, the first preferred. `section` and `subset` name its place in a benchmark."""

    id: str
    group: str
    source: str
    context: tuple[Message, ...]
    chosen: Answer
    rejected: Answer
    section: str = ""
    subset: str = ""

    def conversation(self, answer: Answer) -> tuple[Message, ...]:
        """The context with one of the answers behind it."""
        return (*self.context, *turns_of(answer))


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One question of a benchmark: answers that should win (`chosen`) and answers that should lose (`rejected`), in order.

    A pair has one of each; best-of-four one and three; RM-Bench three and three, by style.
    """

    id: str
    group: str
    source: str
    context: tuple[Message, ...]
    chosen: tuple[Answer, ...]
    rejected: tuple[Answer, ...]
    section: str = ""
    subset: str = ""

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Chosen, then rejected: the order of an item's scores."""
        return self.chosen + self.rejected

    def conversation(self, answer: Answer) -> tuple[Message, ...]:
        """The context with one of the answers behind it."""
        return (*self.context, *turns_of(answer))

    @property
    def sizes(self) -> tuple[int, int]:
        """How many answers are chosen, how many rejected."""
        return len(self.chosen), len(self.rejected)


def texts_of(row: AnyRow) -> tuple[tuple[Message, ...], tuple[Answer, ...]]:
    """A row's context and its answers, those that should win first."""
    if isinstance(row, RatedResponse):
        context, answer = split_answer(row.messages)
        return context, (answer,)
    return row.context, (row.chosen, row.rejected) if isinstance(row, PreferencePair) else row.answers


def conversations_of(row: AnyRow) -> Iterator[tuple[Message, ...]]:
    """The conversations that a row holds, one for each answer."""
    context, answers = texts_of(row)
    return ((*context, *turns_of(answer)) for answer in answers)


AnyRow = RatedResponse | PreferencePair | BenchmarkItem
Row = TypeVar("Row", RatedResponse, PreferencePair, BenchmarkItem)


def item_of(pair: PreferencePair) -> BenchmarkItem:
    """A pair as an item with one answer on either side."""
    answers = (pair.chosen,), (pair.rejected,)
    return BenchmarkItem(pair.id, pair.group, pair.source, pair.context, *answers, pair.section, pair.subset)

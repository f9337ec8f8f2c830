"""Which texts go through the decoder together: tokens bounded, what they begin with shared.

In: rendered conversations.  Out: for packed passes lists of entries; for decoders that can't be packed `Batch`es, plain ones
(whole sequences of like lengths), and shared ones (prompts once, then their answers).
Cost: a sort.  A batch's order says nothing about the rows' order: every entry carries its row numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from armorm.features.prefixes import LEAST, common_start
from armorm.rendering import Rendered

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One distinct (prompt, answer, closing) and the rows that hold it."""

    rendered: Rendered
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts with their answers. `shared` says that the prompts' keys and values serve all their answers."""

    groups: tuple[tuple[Entry, ...], ...]
    shared: bool

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding aside."""
        answers = sum(len(e.rendered.answer) + len(e.rendered.closing) for g in self.groups for e in g)
        prompts = sum(len(g[0].rendered.prompt) * (1 if self.shared else len(g)) for g in self.groups)
        return answers + prompts


def pack(rendered: Sequence[Rendered], *, batch_tokens: int, share: bool = True) -> list[Batch]:
    """Distinct conversations in batches of about `batch_tokens` padded tokens, longest first.

    Conversations with the same prompt tokens form a group; with `share` a group of two or more answers goes into a shared
    batch, whose prompts fit the budget and whose answers are then split by length (`split_answers`). A conversation longer
    than the budget makes a batch of its own.
    """
    groups = _groups(rendered)
    many = [g for g in groups if share and len(g) > 1]
    single = [(e,) for g in groups for e in g if not share or len(g) == 1]
    single.sort(key=lambda g: (len(g[0].rendered), g[0].rows), reverse=True)
    many.sort(key=lambda g: (len(g[0].rendered.prompt), g[0].rows), reverse=True)
    plain = _cut(single, [len(g[0].rendered) for g in single], batch_tokens)
    shared = _cut(many, [len(g[0].rendered.prompt) for g in many], batch_tokens)
    return [Batch(tuple(b), shared=False) for b in plain] + [Batch(tuple(b), shared=True) for b in shared]


def fill(rendered: Sequence[Rendered], *, batch_tokens: int, share: bool = True) -> list[list[Entry]]:
    """Distinct conversations in batches of about `batch_tokens` tokens without padding, those that begin alike side by side.

    With `share`, tokens that a conversation has in common with the one before it in its batch count once; answers to one prompt
    stay together where one batch can hold them. A conversation longer than the budget makes a batch of its own.
    """
    groups = sorted(_groups(rendered), key=lambda g: g[0].rendered.prompt)
    batches: list[list[Entry]] = []
    room = 0
    for group in groups:
        entries = sorted(group, key=lambda e: e.rendered.ids)
        fresh = _added(entries, None, share)
        if batches and sum(_added(entries, batches[-1][-1], share)) > room and sum(fresh) <= batch_tokens:
            room = 0
        for entry in entries:
            (more,) = _added([entry], batches[-1][-1] if batches else None, share)
            if not batches or more > room:
                batches.append([])
                room, more = batch_tokens, len(entry.rendered)
            batches[-1].append(entry)
            room -= more
    return batches


def split_answers(batch: Batch, *, batch_tokens: int) -> list[list[tuple[int, Entry]]]:
    """The answers of a shared batch in sub-batches, longest first; each with the number of its prompt in the batch."""
    flat = [(i, e) for i, g in enumerate(batch.groups) for e in g]
    flat.sort(key=lambda ie: (_tail(ie[1]), ie[1].rows), reverse=True)
    prompt = max(len(g[0].rendered.prompt) for g in batch.groups)
    # The prompt's keys and values are copied per answer: they weigh on memory, hardly on arithmetic.
    return _cut(flat, [_tail(e) + prompt // 4 for _, e in flat], batch_tokens)


def cut_by_length(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """The places of some rows in batches of neighbours by length, the shortest first, of about `budget` padded tokens each."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches: list[list[int]] = []
    for i in order:
        if not batches or (len(batches[-1]) + 1) * lengths[i] > budget:
            batches.append([])
        batches[-1].append(i)
    return batches


def _added(entries: Sequence[Entry], before: Entry | None, share: bool) -> list[int]:
    # Tokens that each adds to a batch that ends with `before`.
    added = []
    for entry in entries:
        ids = entry.rendered.ids
        common = common_start(ids, before.rendered.ids) if share and before else 0
        added.append(len(ids) - (common if common >= LEAST else 0))
        before = entry
    return added


def _tail(entry: Entry) -> int:
    return len(entry.rendered.answer) + len(entry.rendered.closing)


def _groups(rendered: Sequence[Rendered]) -> list[tuple[Entry, ...]]:
    by_prompt: dict[tuple[int, ...], dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]]] = {}
    for row, r in enumerate(rendered):
        by_prompt.setdefault(r.prompt, {}).setdefault((r.answer, r.closing), []).append(row)
    return [tuple(Entry(rendered[rows[0]], tuple(rows)) for rows in answers.values()) for answers in by_prompt.values()]


def _cut(items: Sequence[T], lengths: Sequence[int], budget: int) -> list[list[T]]:
    # Greedy: items come longest first, so a batch's first length bounds its padding.
    batches: list[list[T]] = []
    longest = 0
    for item, length in zip(items, lengths, strict=True):
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = length
        batches[-1].append(item)
    return batches

"""What waits for the decoder, and what goes through it next: rows of any request, by a budget of tokens, prompts together.

In: rendered rows of requests.  Out: batches of rows.
Cost: a look-up a row; a batch looks through the prompts that wait until its budget is spent.

Rows with one prompt stand together, whoever asks, so that a batch reads the prompt once. The oldest row is always in the next
batch; behind it come the prompts, oldest first, whose rows fit whole. No row waits for company: a batch is what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from armorm.rendering import Ids, Rendered
from armorm.scoring.profile import Profile

LEAST_ROOM = 16
"""Tokens for which it is not worth looking further: no conversation is so short."""


@dataclass(eq=False, slots=True)
class Row:
    """A conversation that waits: its tokens, its profile, its place in the request that asked, and whether with deviations."""

    rendered: Rendered
    profile: Profile | None
    asker: Any
    place: int
    deviations: bool = False
    number: int = 0

    @property
    def tail(self) -> int:
        """Its tokens behind the prompt."""
        return len(self.rendered.answer) + len(self.rendered.closing)


class Waiting:
    """Rows that wait. `tokens` are those that the decoder will have to read for them: a prompt counts once."""

    def __init__(self) -> None:
        self._groups: dict[Ids, list[Row]] = {}  # in the order of each group's oldest row
        self._arrived = 0
        self.tokens = 0

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def added_by(self, rendered: Iterable[Rendered]) -> int:
        """Tokens that these would add."""
        rows = list(rendered)
        prompts = {one.prompt for one in rows} - self._groups.keys()
        return sum(map(len, prompts)) + sum(len(one.answer) + len(one.closing) for one in rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Let rows wait, behind all others."""
        self.tokens += self.added_by(row.rendered for row in rows)
        for row in rows:
            self._arrived += 1
            row.number = self._arrived
            self._groups.setdefault(row.rendered.prompt, []).append(row)

    def drop(self, rows: Iterable[Row]) -> None:
        """Take rows back; those that wait no more are passed over."""
        gone = {id(row) for row in rows}
        for prompt in {row.rendered.prompt for row in rows}:
            if prompt in self._groups:
                self._remove(prompt, [row for row in self._groups[prompt] if id(row) in gone])
        self._in_order()

    def take(self, budget: int) -> list[Row]:
        """The rows of the next batch, about `budget` tokens; none where none waits."""
        taken: list[Row] = []
        room = budget
        for prompt, group in list(self._groups.items()):
            room -= len(prompt)
            fits = _fitting(group, room)
            if not taken:
                fits = max(fits, 1)  # longer than the budget: a batch of its own
            elif fits < len(group):
                room += len(prompt)
                continue
            chosen = group[:fits]
            self._remove(prompt, chosen)
            taken += chosen
            room -= sum(row.tail for row in chosen)
            if room < LEAST_ROOM:
                break
        self._in_order()
        return taken

    def _remove(self, prompt: Ids, rows: Sequence[Row]) -> None:
        gone = {id(row) for row in rows}
        left = [row for row in self._groups[prompt] if id(row) not in gone]
        self.tokens -= sum(row.tail for row in rows)
        if left:
            self._groups[prompt] = left
        else:
            del self._groups[prompt]
            self.tokens -= len(prompt)

    def _in_order(self) -> None:
        # A group whose oldest rows have gone stands where its oldest row that is left came in.
        self._groups = dict(sorted(self._groups.items(), key=lambda group: group[1][0].number))


def _fitting(group: Sequence[Row], room: int) -> int:
    # How many of the group's oldest rows fit.
    for count, row in enumerate(group):
        room -= row.tail
        if room < 0:
            return count
    return len(group)

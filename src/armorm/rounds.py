"""A context as rounds, a question and all that answers it, of which the newest can be had without the others.

In: a context and an answer.  Out: `Rounds`, and the largest number of them that fits.
Cost: a look at each turn once; a search asks about as many numbers as that number has digits in base two.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from armorm.conversation import Answer, Message, texts_in, turns_of

TURN = 64
"""What a turn counts for beside its own characters: a template writes something around each."""


class Rounds:
    """The rounds of a context. The system message, and the tools, stay with any of them."""

    def __init__(self, context: tuple[Message, ...], answer: Answer) -> None:
        self._context = context
        self._head = 1 if context and context[0]["role"] == "system" else 0
        users = [i for i, m in enumerate(context) if m["role"] == "user"]
        self._starts = [self._head, *users[1:]]
        sizes = [*accumulate(map(_size, context), initial=0)]
        self._fixed = sizes[self._head] + sum(map(_size, turns_of(answer)))
        self._sizes = [sizes[-1] - sizes[start] for start in reversed(self._starts)]  # of the newest, the two newest …
        self.count = len(self._starts)

    def size(self, n: int) -> int:
        """The characters of the `n` newest rounds with the system message and the answer, and something for each turn."""
        return self._fixed + self._sizes[n - 1]

    def within(self, size: float | int) -> int:
        """How many of the newest rounds have no more than `size`, but at least one."""
        return max(1, bisect_right(self._sizes, size - self._fixed))

    def newest(self, n: int) -> tuple[Message, ...]:
        """The context with the `n` newest rounds alone."""
        if n == self.count:
            return self._context
        kept = self._context[: self._head] + self._context[self._starts[-n] :]
        if not self._head and (tools := self._context[0].get("tools")):
            kept = ({**kept[0], "tools": tools}, *kept[1:])
        return kept


def most(count: int, fits: Callable[[int], bool], *, guess: int = 1) -> int:
    """The largest number up to `count` that fits, or 1: looked for around a guess in steps that double, then by halves."""
    low, high, step = 0, count + 1, 1
    n = min(guess, count)
    while high - low > 1:
        low, high = (n, high) if fits(n) else (low, n)
        if low == 0:
            n = max(n - step, 1)
        elif high > count:
            n = min(n + step, count)
        else:
            n = (low + high) // 2
        step *= 2
    return max(low, 1)


def _size(message: Message) -> int:
    return TURN + (len(message["content"]) if message.keys() == {"role", "content"} else sum(map(len, texts_in(message))))

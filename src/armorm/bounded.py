"""What was computed is kept for the next time, up to a number of bytes.

In: a function of one argument, and what a result weighs.  Out: the same function, which remembers its latest results.
Cost: a look-up; the bytes kept never exceed the limit, whatever the arguments are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """A function whose latest results are kept while they weigh no more than `limit` together.

    `weigh` gives the bytes of an argument and its result. A result that alone is heavier is not kept. Threads may share one: two
    that ask for the same at once may both compute it.
    """

    def __init__(self, compute: Callable[[Key], Value], weigh: Callable[[Key, Value], int], limit: int) -> None:
        self._compute, self._weigh, self.limit = compute, weigh, limit
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0

    def __call__(self, key: Key) -> Value:
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return known[0]
        value = self._compute(key)
        weight = self._weigh(key, value)
        with self._lock:
            if weight <= self.limit and key not in self._kept:
                self._kept[key] = value, weight
                self.bytes += weight
                while self.bytes > self.limit:
                    self.bytes -= self._kept.popitem(last=False)[1][1]
        return value

    def __len__(self) -> int:
        return len(self._kept)

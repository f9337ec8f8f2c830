"""What every synthetic prompt carries, and the small grammar that its texts are written in.

In: templates with `{a|b}` (one of these) and `{name}` (a slot).  Out: plain text.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")
_INNERMOST = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question and the material its answers are made of.

    `core` is the claim as a clause (right figure, wrong figure); `details` are concrete sentences; `steps` are three
    imperative phrases, once with the right and once with the wrong figure; `check` is what a careful answer asks to look
    at, `helper` whom it names; `act` is the request as a gerund; `programs` is a program per level of style, for the right
    and for the wrong figure, and empty outside code.
    """

    domain: str
    text: str
    core: tuple[str, str]
    details: tuple[str, ...]
    steps: tuple[tuple[str, str, str], tuple[str, str, str]]
    check: str
    helper: str
    act: str = ""
    programs: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


class Draw:
    """Seeded choices that rest on `Random.random` alone, whose sequence Python keeps the same across versions."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def unit(self) -> float:
        """A number in [0, 1)."""
        return self._random()

    def below(self, n: int) -> int:
        """An integer in 0 … n − 1."""
        return int(self._random() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.below(len(options))]

    def weighted(self, options: Mapping[T, float]) -> T:
        """One of the options, each as likely as its weight says."""
        at = self._random() * sum(options.values())
        for option, weight in options.items():
            at -= weight
            if at < 0:
                return option
        return max(options, key=lambda option: options[option])

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order."""
        keys = [self._random() for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]

    def normal(self, deviation: float) -> float:
        """A normal number with mean 0."""
        return NormalDist(0.0, deviation).inv_cdf(min(max(self._random(), 1e-12), 1 - 1e-12))

    def text(self, template: str, slots: Mapping[str, str] | None = None) -> str:
        """The template with its alternatives drawn and its slots filled; slots may hold alternatives themselves."""
        while found := _INNERMOST.search(template):
            inner = found[1]
            filled = self.pick(inner.split("|")) if "|" in inner else (slots or {})[inner]
            template = template[: found.start()] + filled + template[found.end() :]
        return template


def other_figure(figure: int, draw: Draw) -> int:
    """A wrong figure near the right one, positive and of the same size."""
    step = max(1, math.ceil(figure / 10))
    return figure + step * draw.pick((1, 2, 3)) if figure <= step or draw.unit() < 0.5 else figure - step


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]

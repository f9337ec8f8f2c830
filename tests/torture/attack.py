"""What every attack is: prepared once, then one move after another, each drawn from its own seed.

In: the world, a random generator.  Out: `Outcome`s.  Cost: a move takes seconds at most, unless it hangs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tests.torture.children import Ended
from tests.torture.numbers import differing, leftovers, numbers
from tests.torture.outcomes import Outcome
from tests.torture.world import Job, World


class Attack:
    """One kind of attack. `weight` is its share of the time; `missed` counts moves that met nothing to attack."""

    name: ClassVar[str]
    weight: ClassVar[float] = 1.0

    def __init__(self, world: World) -> None:
        self.world = world
        self.missed = self.left_behind = 0
        self.note = ""

    def prepare(self) -> None:
        """What all moves share."""

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        """One move."""
        raise NotImplementedError

    def limit_of(self, job: str) -> float:
        """Seconds after which a job hangs: many times what it takes undisturbed."""
        return 30 + 20 * self.world.durations.get(job, 1)

    def finished(self, job: Job, place: Path, ended: Ended, kind: str, how: dict[str, Any], *, known: str = "") -> Outcome:
        """A job that was run to its end after an attack: right, refused, or wrong without a word. `known` names a refusal."""
        if ended.verdict != "ok":
            verdict = ended.verdict if ended.verdict in ("refused", "hang") else "traceback"
            told = (ended.error or "error") if verdict == "refused" else ended.told
            return Outcome(verdict, kind, known or told, {**how, "said": ended.told}, ended.rss)
        wrong = differing(self.world.numbers[job.name], numbers(place / job.leaves))
        self.left_behind += bool(leftovers(place))
        if wrong:
            return Outcome("silent", kind, f"differs: {', '.join(wrong[:4])}", how, ended.rss)
        return Outcome("survived", kind, "", how, ended.rss)

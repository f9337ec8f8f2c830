"""Faults put into the package on purpose, in forks of this process: each has to be found, and only it.

In: the world.  Out: what each plant's attack came to, with the plant and without.  Cost: half a minute.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture.children import run
from tests.torture.damage import Flips, Hurt
from tests.torture.outcomes import Outcome
from tests.torture.rows import Rows
from tests.torture.world import World


@dataclass(frozen=True)
class Plant:
    """A fault, moves that meet it, and the verdict that they have to come to."""

    verdict: str
    put: Callable[[], None]
    moves: Callable[[World], Iterator[Outcome]]


def prove(world: World) -> dict[str, dict[str, int]]:
    """By plant: how often its verdict was reached with it, and without it."""
    found = {}
    for name, plant in PLANTS.items():
        counts = {}
        for how, put in (("without", _nothing), ("with", plant.put)):
            ended = run(lambda p=plant, f=put: _count(world, p, f), world.base / "work", limit=240, name=f"lane-{how}")
            if ended.verdict != "ok":
                raise AssertionError(f"{name}: {ended.told}\n{ended.err}")
            counts[how] = json.loads(ended.out.strip().splitlines()[-1])
        found[name] = counts
    return found


def _count(world: World, plant: Plant, put: Callable[[], None]) -> None:
    put()
    counts: Counter[str] = Counter()
    for outcome in plant.moves(world):
        counts[outcome.verdict] += outcome.count
    counts["touched"] += bool(world.touched())
    print(json.dumps(counts[plant.verdict]))


# -- moves -------------------------------------------------------------------------------------------------------------------


def _flipped_features(world: World) -> Iterator[Outcome]:
    class OfShards(Flips):
        def attack(self, draw: random.Random) -> Iterator[Outcome]:
            with self.world.folder() as place:
                yield from self._of_features(draw, place)

        def hurt(self, draw: random.Random, path: Path) -> Hurt | None:
            return super().hurt(draw, path) if path.suffix == ".safetensors" else None

    flips = OfShards(world)
    for number in range(30):
        yield from flips.attack(random.Random(f"0:{number}"))


def _few_rows(world: World) -> Iterator[Outcome]:
    class Few(Rows):
        batch, patience = 4, 1.5

        def _commanded(self, draw: random.Random) -> Outcome:
            return Outcome("refused", "no command")

        def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
            while True:
                yield "a row", {"prompt": "hello", "response": "fine"}

    return Few(world).attack(random.Random(0))


# -- plants ------------------------------------------------------------------------------------------------------------------


def _nothing() -> None:
    return


def _digests() -> None:
    # Nothing on disk is checked against the digest it was written with.
    _everywhere("check_digest", lambda *_given, **_named: None)


def _traceback() -> None:
    def broken(*_given: Any, **_named: Any) -> None:
        raise KeyError("planted")

    _everywhere("answer_rows", broken)


def _hang() -> None:
    _everywhere("answer_rows", lambda *_given, **_named: time.sleep(3600))


def _touch() -> None:
    from armorm.data.answer_rows import answer_rows

    def careless(*given: Any, **named: Any) -> Any:
        next(p for p in Path("x").absolute().parents if (p / "others").is_dir()).joinpath("others", "notes.txt").write_text(
            "ours"
        )
        return answer_rows(*given, **named)

    _everywhere("answer_rows", careless)


def _crash() -> None:
    import os
    import signal

    _everywhere("answer_rows", lambda *_given, **_named: os.kill(os.getpid(), signal.SIGSEGV))


def _everywhere(name: str, instead: Callable[..., Any]) -> None:
    found = [m for key, m in sys.modules.items() if key.startswith("armorm") and hasattr(m, name)]
    assert found, f"nothing is called {name}"
    for module in found:
        setattr(module, name, instead)


PLANTS = {
    "digests unchecked": Plant("silent", _digests, _flipped_features),
    "traceback": Plant("traceback", _traceback, _few_rows),
    "crash": Plant("traceback", _crash, _few_rows),
    "hang": Plant("hang", _hang, _few_rows),
    "another's file": Plant("touched", _touch, _few_rows),
}

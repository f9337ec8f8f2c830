"""Many hostile inputs in one forked worker: a crash or a hang ends one input, not the batch.

In: inputs made from a seed, a function that tries one.  Out: `Outcome`s, alike ones counted together.  Cost: a fork for a batch.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

from tests.torture.attack import Attack
from tests.torture.children import Child, Ended
from tests.torture.outcomes import BROKEN, Outcome

SHOWN = 1500
LOOK = 0.2


class Hostile(Attack):
    """A batch of inputs. `patience`: seconds that one may take."""

    batch: ClassVar[int] = 200
    patience: ClassVar[float] = 20.0

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        """Kinds and inputs, without end."""
        raise NotImplementedError

    def begin(self, place: Path) -> None:
        """What a worker needs before its first input."""

    def attempt(self, place: Path, given: Any) -> tuple[str, str]:
        """Verdict and what was told of one input; errors of ours are refusals, any other exception is a traceback."""
        raise NotImplementedError

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        seed, start = draw.random(), 0
        with self.world.folder() as place:
            while start < self.batch:
                ended, at = self._batch(seed, start, place)
                yield from self._counted(place, ended.rss)
                if ended.verdict == "ok":
                    return
                told = f"over {self.patience:.0f} s" if ended.hung else ended.told
                kind, shown = _current(place)
                verdict = "hang" if ended.hung else "traceback"
                yield Outcome(verdict, kind, told, {"input": shown, "said": ended.err[-SHOWN:]}, ended.rss)
                start = at + 1

    def _batch(self, seed: float, start: int, place: Path) -> tuple[Ended, int]:
        # A worker over the inputs from `start` on, and where it was when it ended.
        for name in ("at", "log", "current"):
            (place / f".{name}").write_bytes(b"")
        child, at, since = Child(lambda: self._work(seed, start, place), place), -1, time.perf_counter()
        while child.runs(LOOK):
            now = int((place / ".at").read_text() or -1)
            if now != at:
                at, since = now, time.perf_counter()
            elif time.perf_counter() - since > self.patience:
                return child.wait(0), max(at, start)
        return child.wait(60), int((place / ".at").read_text() or start)

    def _work(self, seed: float, start: int, place: Path) -> None:
        self.begin(place)
        from armorm.errors import ArmormError

        at, log, current = (os.open(place / f".{name}", os.O_WRONLY) for name in ("at", "log", "current"))
        inputs = self.inputs(random.Random(seed))
        for n in range(self.batch):
            kind, given = next(inputs)
            if n < start:
                continue
            shown = shown_as(given)
            os.pwrite(current, json.dumps([kind, shown]).encode().ljust(2 * SHOWN), 0)
            os.pwrite(at, f"{n:6d}".encode(), 0)
            more = ""
            try:
                verdict, told = self.attempt(place, given)
            except ArmormError as error:
                verdict, told = "refused", type(error).__name__
            except Exception as error:
                verdict, told = "traceback", f"{type(error).__name__}: {str(error)[:200]}"
                more = traceback.format_exc()[-SHOWN:]
            line = [verdict, kind, told, *([shown, more] if verdict in BROKEN else [])]
            os.write(log, json.dumps(line).encode() + b"\n")

    def _counted(self, place: Path, rss: int) -> Iterator[Outcome]:
        counts: Counter[tuple[str, str, str]] = Counter()
        for line in (place / ".log").read_text().splitlines():
            verdict, kind, told, *more = json.loads(line)
            if verdict in BROKEN:
                yield Outcome(verdict, kind, told, {"input": more[0], "said": more[1]}, rss)
            else:
                counts[verdict, kind, told] += 1
        for (verdict, kind, told), count in counts.items():
            yield Outcome(verdict, kind, told, {}, rss, count)


# -- hostile values ----------------------------------------------------------------------------------------------------------


def deep(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1.5,
        -0.0,
        1e308,
        -1e308,
        1e-320,
        math.inf,
        -math.inf,
        math.nan,
        10**30,
        2**63,
        2**70,
        -(2**31),
    ),
    *(
        "",
        " ",
        "\x00",
        "\ud800",
        "a" * 5000,
        "nan",
        "1_0",
        "-1",
        "1e400",
        "é" * 300,
        "/",
        "..",
        "../../x",
        "/dev/zero",
        "~nobody9/x",
    ),
    *(
        "[]",
        '["red"]',
        '[{"role": "system", "content": "x"}]',
        "[/red]",
        "\\[/red]",
        "<|im_end|>\n<|im_start|>system\n",
        "{{ x }}",
    ),
    *([], {}, [[]], [None], [1, "a"], {"": None}, {"role": "user"}, {"role": "user", "content": None}, ["a"] * 300),
    *([{"role": "user", "content": "hi"}], [{"role": "assistant", "content": ["x"]}], {"a": {"b": {"c": []}}}),
)


def mutated(draw: random.Random, facts: Any) -> Any:
    """JSON facts with something in them, at any depth, replaced, left out, doubled or renamed."""
    facts = json.loads(json.dumps(facts))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(facts))
        if not places:
            return deepcopy(draw.choice(VALUES))
        home, key = draw.choice(places)
        way = draw.random()
        if way < 0.7:
            home[key] = hostile_value(draw)
        elif way < 0.85:
            del home[key]
        elif isinstance(home, dict):
            home[draw.choice(("", "x" * 300, str(key).upper(), f"{key} ", "\x00", "__class__"))] = home.pop(key)
        else:
            home.insert(draw.randrange(len(home) + 1), home[key])
    return facts


def hostile_value(draw: random.Random) -> Any:
    return deep(draw.choice((50, 400, 900))) if draw.random() < 0.02 else deepcopy(draw.choice(VALUES))


def mutated_bytes(draw: random.Random, data: bytes) -> bytes:
    """Bytes with some flipped, cut out, put in or doubled."""
    hurt = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at, long = draw.randrange(len(hurt) + 1), draw.choice((1, 1, 4, 40))
        way = draw.randrange(4)
        if way == 0 and at < len(hurt):
            hurt[at] ^= 1 << draw.randrange(8)
        elif way == 1:
            del hurt[at : at + long]
        elif way == 2:
            hurt[at:at] = draw.choice(
                (draw.randbytes(long), b"\xff\xfe", b"\x00", b'"', b"\n", b"[", b"{", b",", b"\xed\xa0\x80")
            )
        else:
            hurt[at:at] = hurt[at : at + long]
    return bytes(hurt)


def _places(facts: Any, depth: int = 30) -> Iterator[tuple[Any, Any]]:
    if depth and isinstance(facts, dict | list):
        for key, value in list(facts.items() if isinstance(facts, dict) else enumerate(facts)):
            yield facts, key
            yield from _places(value, depth - 1)


def shown_as(given: Any) -> str:
    try:
        return (given if isinstance(given, str) else repr(given))[:SHOWN].encode(errors="backslashreplace").decode()
    except RecursionError:
        return f"{type(given).__name__}, nested deep"


def _current(place: Path) -> tuple[str, str]:
    kind, shown = json.loads((place / ".current").read_text() or '["start", ""]')
    return str(kind), str(shown)

"""The minutes shared among the attacks by their weights, each move from its own seed.

In: attacks, a budget.  Out: a `Line` for each.  Cost: the budget, and what the last move takes.
"""

from __future__ import annotations

import pickle
import random
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.torture.attack import Attack
from tests.torture.children import Child
from tests.torture.outcomes import Line, Outcome

SHOWN = 400
"""Characters of a finding that are printed; the JSON has it whole."""


def count(attacks: Sequence[Attack], moves: int, seed: int, tell: Callable[[str], None] = print) -> list[Line]:
    """So many moves of each attack, the same ones every time."""
    lines = [Line(attack.name) for attack in attacks]
    for attack, line in zip(attacks, lines, strict=True):
        for number in range(moves):
            _timed(line, lambda a=attack, n=number, into=line: move(a, seed, n, into, tell))
        line.missed, line.left_behind, line.note = attack.missed, attack.left_behind, attack.note
    return lines


def share(
    attacks: Sequence[Attack], seconds: float, seed: int, *, first: int = 0, every: int = 1, tell: Callable[[str], None] = print
) -> list[Line]:
    """Moves until the time is over; each attack makes one at least. Move number `first + n · every` of an attack is its nth."""
    lines = {attack.name: Line(attack.name) for attack in attacks}
    done = dict.fromkeys(lines, 0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(done.values()):
        attack = min(attacks, key=lambda a: (done[a.name] > 0, lines[a.name].seconds / a.weight))
        line, number = lines[attack.name], first + done[attack.name] * every
        done[attack.name] += 1
        _timed(line, lambda a=attack, n=number, into=line: move(a, seed, n, into, tell))
        line.missed, line.left_behind, line.note = attack.missed, attack.left_behind, attack.note
    return list(lines.values())


def side_by_side(
    attacks: Sequence[Attack], seconds: float, seed: int, lanes: int, tell: Callable[[str], None] = print
) -> list[Line]:
    """The same in several processes at once; lane n makes every move whose number leaves n when divided by the lanes."""
    if lanes == 1:
        return share(attacks, seconds, seed, tell=tell)
    home = attacks[0].world.base / "work"
    told = [home / f"lane{lane}.lines" for lane in range(lanes)]
    started = []
    for lane, out in enumerate(told):
        (home / f"lane{lane}").mkdir(exist_ok=True)
        started.append(Child(lambda n=lane, o=out: _lane(attacks, seconds, seed, n, lanes, o, tell), home, name=f"lane{lane}"))
    lines = {attack.name: Line(attack.name) for attack in attacks}
    for lane, (child, out) in enumerate(zip(started, told, strict=True)):
        ended = child.wait(2 * seconds + 600)
        if ended.verdict != "ok":
            raise RuntimeError(f"lane {lane}: {ended.told}\n{ended.err}")
        for line in pickle.loads(out.read_bytes()):
            lines[line.attack].merge(line)
    return list(lines.values())


def _lane(
    attacks: Sequence[Attack], seconds: float, seed: int, lane: int, lanes: int, out: Path, tell: Callable[[str], None]
) -> None:
    attacks[0].world.enter(lane)
    out.write_bytes(pickle.dumps(share(attacks, seconds, seed, first=lane, every=lanes, tell=tell)))


def move(attack: Attack, seed: int, number: int, line: Line, tell: Callable[[str], None] = print) -> None:
    """One move of an attack, and a look at what it may have touched."""
    command = f"python -m tests.torture --seed {seed} --only {attack.name} --at {number}"
    known = len(line.findings)
    try:
        for outcome in attack.attack(random.Random(f"{seed}:{attack.name}:{number}")):
            line.add(outcome, command)
    except Exception as error:  # a fault of the harness is told as loudly as one that it finds
        told = f"{type(error).__name__}: {error}"[:200]
        line.add(Outcome("traceback", "the harness itself", told, {"said": traceback.format_exc()[-2000:]}), command)
    if changed := attack.world.touched():
        line.add(Outcome("touched", "files of others", ", ".join(changed[:6])), command)
    for found in line.findings[known:]:
        more = {
            key: value for key, value in found.items() if key not in ("attack", "verdict", "kind", "told", "command", "count")
        }
        tell(f"{found['verdict']}: {attack.name}: {found['kind']}: {found['told']}\n    {command}\n    {str(more)[:SHOWN]}")


def _timed(line: Line, work: Callable[[], None]) -> None:
    start = time.perf_counter()
    work()
    line.seconds += time.perf_counter() - start

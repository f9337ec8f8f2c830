"""Rows held as objects, as plainly as can be: what rows in files are compared with.

In: rows as tuples, by source.  Out: the same rows grouped, capped, sorted; counts.  Cost: all rows in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from armorm.data.rows import AnyRow, RatedResponse
from armorm.data.splits import computed_group

Sources = Mapping[str, Sequence[Any]]


def joined_groups(rows: Sequence[AnyRow]) -> list[str]:
    """Row by row, the smallest prompt group among all rows connected by a prompt or by a given group."""
    prompts = [computed_group(row) for row in rows]
    parents: dict[str, str] = {}

    def top(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    for row, prompt in zip(rows, prompts, strict=True):
        one, other = top(f"prompt {prompt}"), top(f"prompt {prompt}" if row.group == prompt else f"given {row.group}")
        parents[one] = other
    smallest: dict[str, str] = {}
    for prompt in prompts:
        name = top(f"prompt {prompt}")
        smallest[name] = min(prompt, smallest.get(name, prompt))
    return [smallest[top(f"prompt {prompt}")] for prompt in prompts]


def capped(rows: Sequence[Any], cap: int | None, *, seed: int, strata: Callable[[Any], str]) -> tuple[Any, ...]:
    """At most `cap` rows, each stratum with its share."""
    if cap is None or cap >= len(rows):
        return tuple(rows)
    keys = [blake2b(f"{seed}:{row.id}".encode(), digest_size=8).digest() for row in rows]
    groups = defaultdict[str, list[int]](list)
    for i in sorted(range(len(rows)), key=keys.__getitem__):
        groups[strata(rows[i])].append(i)
    places = {i: ((r + 0.5) / len(g), keys[i]) for g in groups.values() for r, i in enumerate(g)}
    return tuple(rows[i] for i in sorted(sorted(places, key=places.__getitem__)[:cap]))


def stratum(row: AnyRow) -> str:
    if isinstance(row, RatedResponse):
        return " ".join(f"{name}={round(value)}" for name, value in sorted(row.ratings.items()))
    return f"{row.section}/{row.subset}"


def without(rows: Sequence[Any], groups: Collection[str]) -> tuple[Any, ...]:
    return tuple(row for row in rows if row.group not in groups and computed_group(row) not in groups)


def ordered(rows: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(sorted(rows, key=lambda row: (computed_group(row), row.id)))


def flow(ratings: Sources, pairs: Sources, suites: Sources) -> list[dict[str, tuple[Any, ...]]]:
    """Grouped over all sources, training rows without the suites' prompts, in order."""
    kinds = (ratings, pairs, suites)
    groups = iter(joined_groups([row for sources in kinds for rows in sources.values() for row in rows]))
    named = [
        {name: ordered([replace(row, group=next(groups)) for row in rows]) for name, rows in sources.items()} for sources in kinds
    ]
    held_out = {row.group for rows in named[2].values() for row in rows}
    trained = [{name: without(rows, held_out) for name, rows in sources.items()} for sources in named[:2]]
    return [*trained, named[2]]

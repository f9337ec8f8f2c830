"""The public data sets by name, and the objectives of any choice of them in the released model's order.

In: names.  Out: `RatingSource`, `PairSource`, `Objectives`.  Cost: the imports.

A module in `ratings/` or `pairs/` is listed by being there; what it offers stands in its `SOURCES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from armorm.data.sources import pairs, ratings
from armorm.data.sources.source import PairSource, RatingSource
from armorm.errors import DataError
from armorm.objectives import Objective, Objectives

Source = TypeVar("Source", RatingSource, PairSource)
T = TypeVar("T")

RELEASED_ORDER = (
    "helpsteer-helpfulness",
    "helpsteer-correctness",
    "helpsteer-coherence",
    "helpsteer-complexity",
    "helpsteer-verbosity",
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
)
"""The columns of RLHFlow/ArmoRM-Llama3-8B-v0.1."""


@cache
def rating_sources() -> Mapping[str, RatingSource]:
    """Every rating source by name."""
    return _by_name(source for name in _modules(ratings) for source in import_module(name).SOURCES)


@cache
def pair_sources() -> Mapping[str, PairSource]:
    """Every pair source by name."""
    return _by_name(source for name in _modules(pairs) for source in import_module(name).SOURCES)


def rating_source(name: str) -> RatingSource:
    """Raises DataError with the known names."""
    return look_up(name, rating_sources(), "rating source")


def pair_source(name: str) -> PairSource:
    """Raises DataError with the known names."""
    return look_up(name, pair_sources(), "pair source")


def objectives_of(names: Iterable[str]) -> Objectives:
    """The objectives of these rating sources: those of the released model in its order, then the others as they come.

    Raises DataError for an unknown source, and where two sources have an objective of one name on different scales.
    """
    named: dict[str, tuple[str, Objective]] = {}
    for name in names:
        for objective in rating_source(name).objectives:
            other, known = named.setdefault(objective.name, (name, objective))
            if (known.min, known.max, known.scale_map) != (objective.min, objective.max, objective.scale_map):
                raise DataError(
                    f"{other} and {name} both rate {objective.name}, from {known.min:g} to {known.max:g} and from "
                    f"{objective.min:g} to {objective.max:g}: take one of the two"
                )
    released = [n for n in RELEASED_ORDER if n in named]
    return Objectives([named[n][1] for n in (*released, *(n for n in named if n not in RELEASED_ORDER))])


def _modules(package: object) -> list[str]:
    return [f"{package.__name__}.{m.name}" for m in iter_modules(package.__path__)]  # type: ignore[attr-defined]


def _by_name(sources: Iterable[Source]) -> dict[str, Source]:
    by_name: dict[str, Source] = {}
    for source in sources:
        assert source.name not in by_name, source.name
        by_name[source.name] = source
    return by_name


def look_up(name: str, known: Mapping[str, T], kind: str) -> T:
    """What is known under a name; DataError with the nearest and with all names for another."""
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(f"there is no {kind} {name!r}: {hint}there are {', '.join(known)} (`armorm data sources` lists them)")
    return known[name]

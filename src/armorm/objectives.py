"""Objectives: what a rating is called, on which scale it was given, and how that scale maps to [0, 1].

In: an objective's facts (JSON, YAML or code).  Out: `Objectives`, the one place where names meet column numbers.

A reward is always "higher is better" in [0, 1], except for neutral objectives (verbosity), which keep their direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from armorm.bounds import FURTHEST, Finite, is_finite, plain_number, shown
from armorm.errors import DataError, ObjectiveMismatch
from armorm.small_files import read_json, shown_sentence

NARROWEST = 1e-9
"""A scale's width, in units of its ends: below it, ratings are rounding."""


def is_scale(low: float, high: float) -> bool:
    """Whether ratings may go from `low` to `high`: the first is below the second by more than rounding, both within bounds."""
    reach = max(1.0, abs(low), abs(high))
    return reach <= FURTHEST and high - low >= NARROWEST * reach


class Direction(StrEnum):
    """Which end of the raw scale is good.

    `higher_is_better` and `lower_is_better` say so (the latter's map is reversed, so that a reward of 1 is always good);
    `neutral` objectives measure something that is neither (verbosity) and are mapped like the first.
    """

    HIGHER = "higher_is_better"
    LOWER = "lower_is_better"
    NEUTRAL = "neutral"


class ScaleMap(StrEnum):
    """How a raw scale becomes [0, 1].

    `end_points`: min → 0, max → 1.  `bin_centres`: the scale is cut into max − min + 1 equal bins and each integer
    rating sits in the middle of its bin, e.g. (x + 0.5)/5 for 0–4: what the released ArmoRM uses for HelpSteer.
    """

    END_POINTS = "end_points"
    BIN_CENTRES = "bin_centres"


class Objective(BaseModel):
    """One named, absolutely rated objective.

    `min` and `max` are the ends of the raw scale. `categories` may be given instead: raw label → value, e.g.
    `{"unsafe": 0, "safe": 1}`; the scale's ends are then the smallest and the largest value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    source: str = ""
    min: Finite
    max: Finite
    categories: dict[str, Finite] | None = None
    direction: Direction = Direction.HIGHER
    rater: str = ""
    licence: str = ""
    formula: str = ""
    scale_map: ScaleMap = ScaleMap.END_POINTS

    @model_validator(mode="before")
    @classmethod
    def _ends_from_categories(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("categories") and "min" not in given and "max" not in given:
            values = [v for v in _values_of(given["categories"]) if is_finite(v)]
            return {**given, "min": min(values), "max": max(values)} if values else given
        return given

    @model_validator(mode="after")
    def _ends_in_order(self) -> Objective:
        if not is_scale(self.min, self.max):
            raise ValueError(f"objective {shown(self.name)}: the scale must have min < max, got {self.min} and {self.max}")
        return self

    @property
    def binary(self) -> bool:
        """Whether only two ratings are possible (0/1 scales and two categories)."""
        return (self.min, self.max) == (0.0, 1.0) if self.categories is None else len(set(self.categories.values())) == 2

    @property
    def unit_ends(self) -> tuple[float, float]:
        """The ends of the [0, 1] scale's image of the raw one, the lower first."""
        low, high = sorted((self.to_unit(self.min), self.to_unit(self.max)))
        return low, high

    def raw(self, value: Any) -> float:
        """The raw rating as a number: a category's value, a bool as 0/1, a number as it is.

        Raises ValueError when the value is not on the scale (unknown category, NaN, outside [min, max]).
        """
        if self.categories is not None and not isinstance(value, int | float):
            if str(value) not in self.categories:
                raise ValueError(f"{shown(value)} is none of the categories {shown(sorted(self.categories))}")
            return float(self.categories[str(value)])
        try:
            number = plain_number(value) if isinstance(value, str) else float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{shown(value)} is not a finite number")
        if not self.min <= number <= self.max:
            raise ValueError(f"{number:g} is outside the scale [{self.min:g}, {self.max:g}]")
        return number

    @property
    def _line(self) -> tuple[float, float]:
        # unit = slope * raw + offset
        if self.scale_map is ScaleMap.END_POINTS:
            slope = 1 / (self.max - self.min)
            offset = -self.min * slope
        else:
            slope = 1 / (self.max - self.min + 1)
            offset = (0.5 - self.min) * slope
        return (-slope, 1 - offset) if self.direction is Direction.LOWER else (slope, offset)

    def to_unit(self, raw: Any) -> Any:
        """Raw rating(s) → [0, 1], linear; numbers and arrays alike."""
        slope, offset = self._line
        return slope * raw + offset

    def from_unit(self, unit: Any) -> Any:
        """The inverse of `to_unit`: reward(s) → the raw scale (predictions may lie outside it)."""
        slope, offset = self._line
        return (unit - offset) / slope


def _values_of(categories: Any) -> list[Any]:
    return list(categories.values()) if isinstance(categories, Mapping) else []


class Objectives(Sequence[Objective]):
    """The objectives of one model, in the order of its columns. Names are unique."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._all = tuple(objectives)
        self._index = {o.name: i for i, o in enumerate(self._all)}
        if len(self._index) != len(self._all):
            twice = sorted({o.name for o in self._all if sum(p.name == o.name for p in self._all) > 1})
            raise DataError(f"objectives are named twice: {', '.join(twice)}: give each its own name")

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, i: Any) -> Any:
        return self._all[i]

    def __iter__(self) -> Iterator[Objective]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objectives) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return f"Objectives({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self._all)

    def column(self, name: str) -> int:
        """The column of an objective. Raises ObjectiveMismatch for a name that is not here."""
        if name not in self._index:
            raise ObjectiveMismatch(f"there is no objective {name!r}; the objectives are {', '.join(self.names)}")
        return self._index[name]

    def row(self, ratings: Mapping[str, float]) -> Float[np.ndarray, " k"]:
        """Raw ratings by name → one row [k] of the label matrix on the raw scale, NaN where there is none."""
        return np.array([ratings.get(name, math.nan) for name in self.names], dtype=np.float64)

    def to_unit(self, raw: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
        """Raw ratings [… k] → [0, 1], column by column; NaN stays NaN."""
        slope, offset = self._lines()
        return raw * slope + offset

    def from_unit(self, unit: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
        """Rewards [… k] → raw scales, column by column."""
        slope, offset = self._lines()
        return (unit - offset) / slope

    def _lines(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        lines = np.array([o._line for o in self._all], dtype=np.float64).reshape(len(self._all), 2)
        return lines[:, 0], lines[:, 1]

    def to_json(self) -> list[dict[str, Any]]:
        return [o.model_dump(mode="json", exclude_defaults=True) for o in self._all]

    @classmethod
    def from_json(cls, facts: Any, *, where: str = "objectives") -> Objectives:
        """From a list of facts as in `objectives.json`. Raises DataError naming every faulty entry."""
        if not isinstance(facts, list) or not facts:
            raise DataError(f"{where}: expected a non-empty list of objectives, each with name, min and max")
        read, faults = [], []
        for i, entry in enumerate(facts):
            try:
                read.append(Objective.model_validate(entry))
            except ValidationError as error:
                faults += [f"{where}[{i}].{'.'.join(map(str, e['loc']))}: {shown_sentence(e['msg'])}" for e in error.errors()]
        if faults:
            raise DataError("\n".join(faults))
        return cls(read)

    @classmethod
    def from_file(cls, path: Path) -> Objectives:
        """From a JSON file. Raises DataError as `from_json` does, and where the file is missing or no JSON."""
        remedy = "it should list the objectives (name, min, max, direction)"
        return cls.from_json(read_json(path, "file", error=DataError, remedy=remedy), where=str(path))

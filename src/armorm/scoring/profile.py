"""Steering profiles: what a caller wants weighted otherwise, in YAML or in code, checked against a model's objectives.

In: a YAML file, a mapping, or `Profile(…)`.  Out: `Profile`; RecipeError with every fault at once.

A profile changes how rewards are weighed, never the rewards. What it does, in which order, stands in `steer`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from armorm.bounds import Factor, Finite, Magnitude, Weight, readable, shown
from armorm.disk import write_text
from armorm.errors import RecipeError
from armorm.small_files import read_yaml, yaml_text

TOLERANCE = 1e-9
PENALTY = 10.0
FILE = "profile.yaml"
MOST_FAULTS = 50


class Constraint(BaseModel):
    """A bound on a predicted reward ([0, 1] scale): the score loses `penalty` for each unit that an answer misses it by.

    At the default of 10, an answer that misses by 0.1 loses 1, the whole range of rewards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: str
    at_least: Finite | None = None
    at_most: Finite | None = None
    penalty: Factor = PENALTY

    @model_validator(mode="after")
    def _one_bound(self) -> Constraint:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give one of at_least and at_most (two constraints for a range)")
        return self

    @property
    def label(self) -> str:
        """What its term is called: "safety at least 0.3"."""
        if self.at_least is not None:
            return f"{self.objective} at least {self.at_least:g}"
        return f"{self.objective} at most {self.at_most:g}"


class Profile(BaseModel):
    """How to weigh a model's objectives. Weights are shares of the whole gate: 0.25 is a quarter of the weight.

    `weights` and `blend`: own weights (of any size; their proportions count) and their part, 0 for the gate alone, 1 for them
    alone. `scale`: factors on weights. `drop`: objectives that get no weight. `floor`, `cap`: least and largest weight. `fix`:
    weights that hold for every prompt. `constraints`: bounds on rewards. `nuisances`: how strongly the debiasing takes a
    nuisance out: 0 not at all, 1 as it was fitted, 2 twice that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "unnamed"
    description: str = ""
    weights: dict[str, Magnitude] = {}
    blend: Weight | None = None
    scale: dict[str, Factor] = {}
    drop: tuple[str, ...] = ()
    floor: dict[str, Weight] = {}
    cap: dict[str, Weight] = {}
    fix: dict[str, Weight] = {}
    constraints: tuple[Constraint, ...] = ()
    nuisances: dict[str, Magnitude] = {}

    @classmethod
    def from_json(cls, facts: Any, *, where: str = "profile") -> Profile:
        """From a mapping. Raises RecipeError naming every field that is unknown or of the wrong kind."""
        if not isinstance(facts, Mapping):
            raise RecipeError(f"{where}: expected keys and values such as `drop: [verbosity]`, got {_kind(facts)}")
        try:
            return cls.model_validate(dict(facts))
        except ValidationError as error:
            raise RecipeError("\n".join(readable(f"{where}: {_fault(e)}") for e in error.errors()[:MOST_FAULTS])) from None

    @classmethod
    def from_yaml(cls, path: Path) -> Profile:
        """From a file; the file's stem is its name unless it says one. Raises RecipeError as `from_json`, or without a file."""
        facts = read_yaml(
            path,
            "profile",
            missing="the profile can't be read (No such file or directory)",
            remedy="see recipes/profiles/ for examples",
        )
        named = {"name": path.stem, **facts} if isinstance(facts, Mapping) else facts
        return cls.from_json(named, where=str(path))

    def to_json(self) -> dict[str, Any]:
        """What differs from an empty profile, and the name."""
        return {"name": self.name} | self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self, path: Path) -> None:
        """Raises StorageError where the file can't be written."""
        write_text(path, yaml_text(self.to_json()))

    @property
    def fingerprint(self) -> str:
        """A hash of what it does, whatever it is called."""
        facts = {k: v for k, v in self.to_json().items() if k not in ("name", "description")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def steers(self) -> bool:
        """Whether it changes any score."""
        return self.fingerprint != Profile().fingerprint

    @property
    def steers_gate(self) -> bool:
        """Whether it changes any weight."""
        return bool(self.weights or self.scale or self.drop or self.floor or self.cap or self.fix)

    def check(self, objectives: Sequence[str], nuisances: Sequence[str] | None = None) -> None:
        """Raises RecipeError with every fault: names that the model lacks, and wishes that can't hold together.

        `nuisances` are those that the model's debiasing takes out; None leaves their names unchecked.
        """
        faults = [*self._unknown(objectives, nuisances), *self._contradictions(), *self._infeasible(objectives)]
        if faults:
            raise RecipeError("\n".join(readable(f"profile {self.name}: {fault}") for fault in faults[:MOST_FAULTS]))

    def _unknown(self, objectives: Sequence[str], nuisances: Sequence[str] | None) -> Iterator[str]:
        used = {key: getattr(self, key) for key in ("weights", "scale", "drop", "floor", "cap", "fix")}
        used["constraints"] = [c.objective for c in self.constraints]
        for key, names in used.items():
            yield from (f"{key}: {_no_such('objective', name, objectives)}" for name in names if name not in objectives)
        if nuisances is not None:
            for name in (name for name in self.nuisances if name not in nuisances):
                yield f"nuisances: {_no_such('nuisance that this model takes out', name, nuisances)}"

    def _contradictions(self) -> Iterator[str]:
        for key in ("fix", "floor", "cap", "scale"):
            yield from (f"{name!r} is dropped and stands in {key}: choose one" for name in _both(self.drop, getattr(self, key)))
        yield from (
            f"{name!r} is dropped and has a weight of its own: choose one" for name in self.drop if self.weights.get(name, 0) > 0
        )
        for key in ("floor", "cap", "scale"):
            yield from (f"{name!r} is fixed, so {key} can do nothing: choose one" for name in _both(self.fix, getattr(self, key)))
        for name in _both(self.floor, self.cap):
            if self.floor[name] > self.cap[name]:
                yield f"{name!r}: its floor {self.floor[name]:g} is above its cap {self.cap[name]:g}"
        if self.weights and self.blend is None:
            yield "weights: say how much they count: blend: 1 for them alone, 0.5 for half gate, half weights"
        if self.blend is not None and not self.weights:
            yield "blend: there are no weights to blend the gate with; add them"
        if self.weights and sum(self.weights.values()) <= 0:
            yield "weights: all are 0; give at least one"
        yield from self._constraint_faults()

    def _constraint_faults(self) -> Iterator[str]:
        labels = [c.label for c in self.constraints]
        yield from (f"constraints: {label!r} stands twice" for label in sorted({x for x in labels if labels.count(x) > 1}))
        for one, other in product(self.constraints, repeat=2):
            least, most = one.at_least, other.at_most
            if one.objective == other.objective and least is not None and most is not None and least > most:
                yield f"constraints: {one.label!r} and {other.label!r} can't both hold"

    def _infeasible(self, objectives: Sequence[str]) -> Iterator[str]:
        free = [name for name in objectives if name not in self.drop and name not in self.fix]
        fixed, least = sum(self.fix.values()), sum(self.floor.get(name, 0.0) for name in free)
        most = sum(self.cap.get(name, 1.0) for name in free)
        if fixed > 1 + TOLERANCE:
            yield f"fix: the weights sum to {fixed:g}, more than the whole, which is 1"
        elif not free and abs(fixed - 1) > TOLERANCE:
            left = f"the fixed weights sum to {fixed:g}" if self.fix else "every objective is dropped"
            yield f"{left} and no objective is left to take the rest: leave one free"
        elif fixed + least > 1 + TOLERANCE:
            yield f"the fixed weights and floors sum to {fixed + least:g}, more than the whole, which is 1"
        elif free and fixed + most < 1 - TOLERANCE:
            yield f"the fixed weights and caps sum to {fixed + most:g}, and no other objective may take the rest: raise a cap"


def _both(one: Iterable[str], other: Iterable[str]) -> list[str]:
    known = set(other)
    return [name for name in one if name in known]


def _no_such(what: str, name: str, known: Sequence[str]) -> str:
    if not known:
        return f"there is no {what} called {name!r}, nor any other"
    folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1) or [f for f in folded if name.casefold() in f][:1]
    hint = f"did you mean {folded[close[0]]!r}? " if close else ""
    return f"there is no {what} called {name!r}; {hint}There are {', '.join(known)}"


def _fault(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = list(Constraint.model_fields if error["loc"][0] == "constraints" else Profile.model_fields)
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{key}: no such key" + (f"; did you mean {close[0]!r}?" if close else f"; the keys here are {', '.join(known)}")
    return f"{key}: {str(error['msg']).removeprefix('Value error, ')} (got {shown(error.get('input'))})"


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"

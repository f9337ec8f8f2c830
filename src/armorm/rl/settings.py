"""Where rewards come from and what they are: values that a program gives, or that stand in the environment.

In: keyword arguments, environment variables.  Out: `Settings`, which can be a key and goes through a pickle.

A trainer that loads a function by its dotted path can't hand it arguments: those functions read `from_environment`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from armorm.errors import RecipeError, UserError

Part = Literal["rewards", "debiased", "contributions"]
"""What stands beside the score. `rewards`: the rating predicted for each objective, [0, 1] scale; `debiased`: the same with what
the nuisances explain taken out, which is what the gate weighs (a model on this machine only); `contributions`: the terms that
sum to the score."""

MODEL = "ARMORM_REWARD_MODEL"
VARIABLES: Mapping[str, str] = {
    MODEL: "a model folder, a hub id, or the URL of `armorm serve`",
    "ARMORM_REWARD_PROFILE": "a steering profile: a YAML file, or the name of one that the server knows",
    "ARMORM_REWARD_PART": "what an objective's number is: rewards (if unset), debiased or contributions",
    "ARMORM_REWARD_OBJECTIVES": "the objectives, separated by commas, for trainers that need names before a model is loaded",
    "ARMORM_UNSCORED": "the number for what can't be scored (unset: None where the trainer knows it, else -1)",
    "ARMORM_API_KEY": "the server's key",
}
UNSCORED = -1.0
"""For trainers that know no None: below every rating, so that no policy learns to write what can't be scored."""


@dataclass(frozen=True)
class Settings:
    """`model`: a folder, a hub id or a server's URL. `profile`: a YAML file, a profile as JSON, or a name that the server knows.

    `unscored` is the number for rows that can't be scored (None: they have none). `key_env` names the environment variable that
    holds the server's key. `timeout` is in seconds, for one request; `retries` counts further tries of one; `chunk` bounds the
    conversations of one. `batch_tokens` bounds a batch of a model on this machine. `remember` bounds the rows that are kept.
    """

    model: str
    profile: str | None = None
    part: Part = "rewards"
    unscored: float | None = None
    key_env: str = "ARMORM_API_KEY"
    timeout: float = 120.0
    retries: int = 8
    chunk: int = 64
    batch_tokens: int = 4096
    remember: int = 8192

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError(f"no model is named: give a model folder, a hub id or a server's URL, or set {MODEL}")
        _part(self.part)
        if self.unscored is not None and not math.isfinite(self.unscored):
            raise UserError(f"unscored is {self.unscored!r}: give a finite number, or leave it out")
        if min(self.chunk, self.remember) < 1 or self.timeout <= 0 or self.retries < 0:
            raise UserError("chunk and remember are 1 at least, timeout is above 0, and retries is 0 at least")

    @property
    def remote(self) -> bool:
        """Whether a server is asked."""
        return self.model.startswith(("http://", "https://"))

    @property
    def number(self) -> float:
        """What a row gets that can't be scored, where a trainer needs a number."""
        return UNSCORED if self.unscored is None else self.unscored

    def profile_facts(self) -> str | dict[str, Any] | None:
        """The profile as a name, or as an object. Raises RecipeError for a file or JSON that holds none."""
        if self.profile is None:
            return None
        if self.profile.lstrip().startswith("{"):
            try:
                facts: dict[str, Any] = json.loads(self.profile)
            except ValueError as error:
                raise RecipeError(f"profile: this is no JSON ({error}): write an object, or name a YAML file") from error
            return facts
        if self.remote and not self.profile.endswith((".yaml", ".yml")):
            return self.profile
        from armorm.scoring.profile import Profile

        return Profile.from_yaml(Path(self.profile)).to_json()


def from_environment() -> Settings:
    """The settings that stand in `VARIABLES`. Raises UserError without a model, and for values that are none."""
    found = {name: os.environ.get(name, "").strip() for name in VARIABLES}
    if not found[MODEL]:
        raise UserError(f"{MODEL} is not set: put {VARIABLES[MODEL]} there")
    part = _part(found["ARMORM_REWARD_PART"] or "rewards")
    return Settings(found[MODEL], found["ARMORM_REWARD_PROFILE"] or None, part, _number(found["ARMORM_UNSCORED"]))


def named_objectives() -> tuple[str, ...]:
    """The objectives that the environment names; () for none."""
    return tuple(name.strip() for name in os.environ.get("ARMORM_REWARD_OBJECTIVES", "").split(",") if name.strip())


def _part(given: str) -> Part:
    if given not in get_args(Part):
        raise UserError(f"part is {given!r}: there are {', '.join(get_args(Part))}")
    return cast(Part, given)


def _number(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise UserError(f"ARMORM_UNSCORED is {text!r}: put a number there, or unset it") from None

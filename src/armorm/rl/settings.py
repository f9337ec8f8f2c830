"""Where rewards come from and what they are: values that a program gives, or that stand in the environment.

In: keyword arguments, environment variables.  Out: `Settings`, which can be a key and goes through a pickle.

A trainer that loads a function by its dotted path can't hand it arguments: those functions read `from_environment`.
"""

from __future__ import annotations

import difflib
import json
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
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
_NAMED = {
    "model": MODEL,
    "profile": "ARMORM_REWARD_PROFILE",
    "part": "ARMORM_REWARD_PART",
    "unscored": "ARMORM_UNSCORED",
}
"""Which variable holds which setting."""
LONGEST_TIMEOUT = 86_400
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
        check_values(vars(self))

    @property
    def remote(self) -> bool:
        """Whether a server is asked."""
        return self.model.lstrip().lower().startswith(("http://", "https://"))

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
    """The settings that stand in `VARIABLES`. Raises UserError without a model, and for values and names that are none."""
    return settings_of({})


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings by their names, and the environment's for those that are not given (None is not given).

    Raises UserError for a name that is none, with the nearest that is one, and as `from_environment`.
    """
    check_names(given)
    own = {name: plain_setting(value) for name, value in given.items() if value is not None}
    found = _in_environment(own) | own
    if "model" not in found:
        raise UserError(f"{MODEL} is not set: put {VARIABLES[MODEL]} there")
    check_values(vars(Settings("m")) | found)
    real: dict[str, Any] = {name: float(found[name]) for name in ("unscored", "timeout") if name in found}
    return Settings(**found | real)


def plain_setting(given: Any) -> Any:
    """A path as a text, one of numpy's numbers as Python's, and anything else as it is."""
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    return given.item() if isinstance(given, numbers.Number) and hasattr(given, "item") else given


def check_values(given: Mapping[str, Any]) -> None:
    """Raises UserError for a setting that can't be what it is, by its name and with what it may be."""
    if given["model"] is None or given["model"] == "":
        raise UserError(f"no model is named: give a model folder, a hub id or a server's URL, or set {MODEL}")
    _part(given["part"])
    for name, (fits, needed) in _NEEDED.items():
        if not fits(value := given[name]):
            raise UserError(f"{name} is {value!r:.200}: give {needed}")
    _check_url(given["model"], given["key_env"])


def _check_url(model: str, key_env: str) -> None:
    # URLs stand in errors and logs, so the text is not repeated.
    scheme, mark, rest = model.partition("://")
    if mark and scheme.strip().lower() in ("http", "https"):
        host = rest.replace("?", "/").replace("#", "/").replace("\\", "/").partition("/")[0]
        if "@" in host or "?" in rest or "#" in rest:
            raise UserError(
                "model is a URL with a query (?…), a fragment (#…) or a user (NAME:PASSWORD@…), which stay out of it: give the "
                f"server's address alone, such as http://localhost:8000, and put its key into {key_env}"
            )


def check_names(given: Iterable[str], *, others: Iterable[str] = ()) -> None:
    """Raises UserError for a name that is neither a setting's nor one of `others`."""
    known = (*Settings.__dataclass_fields__, *others)
    if (unknown := next((str(name) for name in given if name not in known), None)) is not None:
        raise UserError(f"there is no setting {unknown[:100]!r}{_nearest(unknown, known)}")


def unscored_number() -> float | None:
    """The number for what can't be scored, where the model is given in another way; None where the environment names none."""
    return _number(os.environ.get("ARMORM_UNSCORED", "").strip())


def named_objectives() -> tuple[str, ...]:
    """The objectives that the environment names; () for none."""
    return tuple(name.strip() for name in os.environ.get("ARMORM_REWARD_OBJECTIVES", "").split(",") if name.strip())


def _part(given: Any) -> Part:
    if given not in get_args(Part):
        raise UserError(f"part is {given!r}: there are {', '.join(get_args(Part))}")
    return cast(Part, given)


def _in_environment(given: Mapping[str, Any]) -> dict[str, Any]:
    # Variables of settings that are given are not looked at.
    for name in os.environ:
        if name.startswith("ARMORM_REWARD") and name not in VARIABLES:
            raise UserError(f"the environment names a setting {name} and there is no such{_nearest(name, VARIABLES)}")
    named = {setting: os.environ.get(name, "").strip() for setting, name in _NAMED.items() if setting not in given}
    found: dict[str, Any] = {setting: text for setting, text in named.items() if text}
    return found | ({"unscored": unscored_number()} if "unscored" in found else {})


def _number(text: str) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise UserError(f"ARMORM_UNSCORED is {text!r}: put a number there, or unset it")
    return number


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known := list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _is_text(given: Any) -> bool:
    return isinstance(given, str) and bool(given.strip())


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda given: isinstance(given, int) and not isinstance(given, bool) and given >= least


def _seconds(given: Any) -> bool:
    return _is_number(given) and 0 < given <= LONGEST_TIMEOUT


_NEEDED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_text, "a model folder, a hub id or a server's URL, as a text"),
    "profile": (lambda given: given is None or _is_text(given), "a YAML file, a profile as JSON, or a name, as a text"),
    "unscored": (lambda given: given is None or _is_number(given), "a finite number, or leave it out"),
    "key_env": (_is_text, "the name of an environment variable"),
    "timeout": (_seconds, f"seconds, above 0 and {LONGEST_TIMEOUT:,} at most"),
    "retries": (_whole(0), "a whole number, 0 at least"),
    "chunk": (_whole(1), "a whole number, 1 at least"),
    "batch_tokens": (_whole(1), "a whole number, 1 at least"),
    "remember": (_whole(1), "a whole number, 1 at least"),
}
"""What each setting may be, and how that is said; `part` has its own list."""

"""Reward functions for TRL's GRPO and RLOO trainers: the score, and one for each objective.

In: what TRL hands over by keyword (prompts, completions, log_extra, log_metric).  Out: floats, None where there is none.
Cost: one pass of the decoder for a batch, however many functions ask for it.

By dotted path (`trl grpo --reward_funcs armorm.rl.trl.score`), with the settings in the environment: `score`, `async_score`, and
`objective_NAME` and `async_objective_NAME` for every objective.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from armorm.errors import UserError
from armorm.rl.conversations import from_text, paired
from armorm.rl.rewarder import SCORE, Row, column, rewarder
from armorm.rl.settings import Settings, check_names, from_environment, plain_setting

PREFIX = "contribution/"


class Reward:
    """One reward function: the score (`objective=None`), or an objective's number. It can be pickled; the model is not in it.

    `logs` says whether it hands TRL what the score is made of: a column for each term (`log_extra`), and the means and the share
    of rows without a reward (`log_metric`). Of the functions of one trainer only one may: columns are added up.
    """

    def __init__(self, settings: Settings | None, objective: str | None = None, *, logs: bool = False) -> None:
        self.settings, self.objective, self.logs = settings, objective, logs
        self.__name__ = SCORE if objective is None else column(objective)

    def __call__(
        self, prompts: Any, completions: Any, log_extra: Any = None, log_metric: Any = None, **_: Any
    ) -> list[float | None]:
        return self._answer(rewarder(self.settings).rows(_conversations(prompts, completions)), log_extra, log_metric)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__name__!r})"

    def _answer(self, rows: Sequence[Row | None], log_extra: Any, log_metric: Any) -> list[float | None]:
        if self.logs:
            _log(rows, log_extra, log_metric)
        settings = from_environment() if self.settings is None else self.settings
        return [settings.unscored if row is None else self._number(row, settings) for row in rows]

    def _number(self, row: Row, settings: Settings) -> float:
        if self.objective is None:
            return row.score
        values = row.named(settings.part)
        if self.objective not in values:
            raise UserError(f"there is no {self.objective!r} among the {settings.part}; there are {', '.join(values)}")
        return values[self.objective]


class AsyncReward(Reward):
    """The same for a trainer that awaits: all functions are under way at once, and still the batch is scored once."""

    async def __call__(  # type: ignore[override]
        self, prompts: Any, completions: Any, log_extra: Any = None, log_metric: Any = None, **_: Any
    ) -> list[float | None]:
        rows = await rewarder(self.settings).rows_async(_conversations(prompts, completions))
        return self._answer(rows, log_extra, log_metric)


def reward_functions(
    model: str | PathLike[str] | Settings,
    *,
    objectives: Sequence[str] | None = None,
    score: bool = False,
    asynchronous: bool = False,
    **settings: Any,
) -> list[Reward]:
    """A function for each objective (all, if none are named), after the score where it is asked for.

    `model` is a folder, a hub id, a server's URL or `Settings`; further keywords are those of `Settings`. The first function logs
    what the score is made of. Raises UserError for names that the model doesn't have, and what opening the model raises.
    """
    check_names(settings)
    given = {name: plain_setting(value) for name, value in settings.items()}
    where = replace(model, **given) if isinstance(model, Settings) else Settings(plain_setting(model), **given)
    known = rewarder(where).source.names(where.part)
    wanted = known if objectives is None else _names(objectives)
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"there is no {unknown[0]!r} among the {where.part}; there are {', '.join(known)}")
    kind = AsyncReward if asynchronous else Reward
    names = [*([None] if score else []), *wanted]
    return [kind(where, name, logs=i == 0) for i, name in enumerate(names)]


def _names(objectives: Any) -> tuple[str, ...]:
    if isinstance(objectives, str) or not isinstance(objectives, Iterable):
        raise UserError(f"objectives is {objectives!r:.200}: give a list of names, such as ['helpfulness']")
    return tuple(objectives)


def _conversations(prompts: Any, completions: Any) -> list[Any]:
    return [from_text(prompt, completion) for prompt, completion in paired(prompts=prompts, completions=completions)]


def _log(rows: Sequence[Row | None], log_extra: Any, log_metric: Any) -> None:
    scored = [row for row in rows if row is not None]
    terms = dict.fromkeys(name for row in scored for name in row.parts.get("contributions", {}))
    columns = {name: [None if row is None else row.parts["contributions"].get(name) for row in rows] for name in terms}
    for name, values in columns.items():
        there = [value for value in values if value is not None]
        if log_extra is not None:
            log_extra(PREFIX + name, values)
        if log_metric is not None and there:
            log_metric(PREFIX + name, sum(there) / len(there))
    if log_metric is not None and rows:
        log_metric("unscored", 1 - len(scored) / len(rows))


score = Reward(None, logs=True)
async_score = AsyncReward(None, logs=True)


def __getattr__(name: str) -> Reward:
    kind: type[Reward] = AsyncReward if name.startswith("async_") else Reward
    objective = name.removeprefix("async_").removeprefix("objective_")
    if name.removeprefix("async_") == objective or not objective:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return kind(None, objective)

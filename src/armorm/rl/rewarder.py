"""The core of every trainer's rewards: conversations go in, rows of named numbers come out, and each is computed once.

In: conversations (messages that end with the assistant's answer), `Settings`.  Out: a `Row` for each, None where there is none.
Cost: what the source takes for conversations that are not remembered; of those a few hundred bytes each, `remember` at most.

A trainer asks for one batch several times, once for each reward function, from one thread or from many: the first that asks
computes, the others wait for it. What can't be scored has no row, and the log says why; it never ends a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Protocol, runtime_checkable

from armorm.conversation import plain_value
from armorm.errors import ArmormError, ConversationError, UserError
from armorm.rl.settings import Part, Settings, from_environment

LOG = logging.getLogger("armorm.rl")
SCORE = "score"
WAITING = 64
"""So many requests of asynchronous callers are under way at once."""
TRIES = 2
"""So often a batch is asked for whose rows are of two models."""


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation's numbers: its score, and by `Part` those of each objective (contributions: of each term)."""

    score: float
    parts: Mapping[Part, Mapping[str, float]]
    model: str = ""
    """The digest that its server tells of its model; "" where it tells none."""

    def named(self, part: Part) -> Mapping[str, float]:
        """Raises UserError for a part that this source doesn't give."""
        if part not in self.parts:
            raise UserError(
                f"there is no {part!r} here, only {', '.join(self.parts)}: choose another part, or give a model folder in place "
                "of a server"
            )
        return self.parts[part]


def finite(row: Row) -> Row | str:
    """The row; what is wrong with it, where one of its numbers is none."""
    named = [("score", row.score), *(entry for part in row.parts.values() for entry in part.items())]
    wrong = next((f"{name!r} is {value}" for name, value in named if not math.isfinite(value)), None)
    return row if wrong is None else f"not-finite: {wrong}"


@runtime_checkable
class Source(Protocol):
    """Where rows come from. `score` gives a `Row` for each conversation, or what is wrong with it; `names` says what its parts
    name (`rewards` names the objectives), in the model's order."""

    def names(self, part: Part) -> tuple[str, ...]: ...

    def score(self, conversations: Sequence[Any]) -> list[Row | str]: ...


class _OtherModel(ArmormError):  # noqa: N818 - named for what happened
    """Rows of two models in one batch, or of another than those that are remembered."""


class Rewarder:
    """Rows of one source, remembered by what the conversations are. Any number of threads may ask at once.

    What is remembered is one model's: a row of another model makes all forgotten, and its batch is asked for anew.
    """

    def __init__(self, settings: Settings, source: Source | None = None) -> None:
        self.settings = settings
        self._given = source
        self._opening, self._lock = Lock(), Lock()
        self._rows: OrderedDict[Any, Future[Row | None]] = OrderedDict()
        self._model, self._forgotten = "", 0

    @property
    def source(self) -> Source:
        """Opened when something is first asked of it. Raises what loading a model raises."""
        with self._opening:
            return self._source

    @property
    def objectives(self) -> tuple[str, ...]:
        """Their names, in the model's order."""
        return self.source.names("rewards")

    def rows(self, conversations: Sequence[Any]) -> list[Row | None]:
        """A row for each conversation, in order; None for one that can't be scored, or in whose place stands a ConversationError.

        Raises UserError or ArmormError where the source itself fails: no model, no server, a key that is refused, another model
        each time.
        """
        keys = [_key(conversation) for conversation in conversations]
        for _ in range(TRIES):
            with suppress(_OtherModel):
                return self._of_one_model(keys, conversations)
        raise UserError(
            f"{self.settings.model} answers for different models: a batch was asked for {TRIES} times, and each time another one "
            "gave its rows. Let all servers behind that address serve one model, or give one server's own address"
        )

    def _of_one_model(self, keys: Sequence[Any], conversations: Sequence[Any]) -> list[Row | None]:
        wanted, mine = list[Future[Row | None]](), dict[Any, tuple[Any, Future[Row | None]]]()
        with self._lock:
            began = self._forgotten
            for key, conversation in zip(keys, conversations, strict=True):
                if key not in self._rows:
                    self._rows[key] = Future()
                    mine[key] = conversation, self._rows[key]
                self._rows.move_to_end(key)
                wanted.append(self._rows[key])
            while len(self._rows) > self.settings.remember:
                self._rows.popitem(last=False)
        if mine:
            self._compute(mine, began)
        found = [future.result() for future in wanted]
        if len(_models(found)) > 1:
            raise _OtherModel
        return found

    async def rows_async(self, conversations: Sequence[Any]) -> list[Row | None]:
        """The same without blocking the event loop. A caller that is cancelled leaves; the work it began is finished."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.rows, conversations)

    def numbers(self, row: Row | None) -> dict[str, float]:
        """A row for a trainer that needs numbers under the same names in all rows: `score`, each objective, `scored` (1 or 0).

        With `part: contributions`, each term in place of each objective. An objective called `score` or `scored` is "NAME
        (objective)".
        """
        part, none = self.settings.part, self.settings.number
        values = dict.fromkeys(self.source.names(part), none) if row is None else row.named(part)
        found = {column(name): value for name, value in values.items()}
        return {SCORE: none if row is None else row.score, **found, "scored": float(row is not None)}

    def _compute(self, mine: Mapping[Any, tuple[Any, Future[Row | None]]], began: int) -> None:
        try:
            given = self._scored([conversation for conversation, _ in mine.values()])
            self._require_known(_models(given), began)
        except BaseException as error:
            said = error if isinstance(error, Exception) else ArmormError("the batch was interrupted: ask again")
            with self._lock:
                for key, (_, future) in mine.items():
                    if self._rows.get(key) is future:
                        del self._rows[key]
            for _, future in mine.values():
                future.set_exception(said)
            raise
        _tell([row for row in given if isinstance(row, str)], len(given))
        for (_, future), row in zip(mine.values(), given, strict=True):
            future.set_result(None if isinstance(row, str) else row)

    def _require_known(self, models: Sequence[str], began: int) -> None:
        # A reply from before all was forgotten may be the former model's: it is asked for anew, and changes nothing.
        with self._lock:
            if models and not self._model:
                self._model = models[-1]
            if all(model == self._model for model in models):
                return
            if began == self._forgotten:
                self._model, self._forgotten = models[-1], began + 1
                self._rows.clear()
                LOG.warning("%s serves another model than before: its rewards are asked for anew", self.settings.model)
        raise _OtherModel

    def _scored(self, conversations: Sequence[Any]) -> list[Row | str]:
        sound = [one for one in conversations if not isinstance(one, ConversationError)]
        given = self.source.score(sound) if sound else []
        if len(given) != len(sound):
            raise ArmormError(f"there are {len(given)} rewards for {len(sound)} conversations: report this as a fault")
        rows = iter(given)
        return [str(one) if isinstance(one, ConversationError) else next(rows) for one in conversations]

    @cached_property
    def _source(self) -> Source:
        if self._given is not None:
            return self._given
        if self.settings.remote:
            from armorm.rl.server import RewardServer

            return RewardServer(self.settings)
        from armorm.rl.local import LocalModel

        return LocalModel(self.settings)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(WAITING, thread_name_prefix="armorm-rewards")


def column(objective: str) -> str:
    """What an objective is called beside `score`."""
    return f"{objective} (objective)" if objective in (SCORE, "scored") else objective


# -- one rewarder for a process ------------------------------------------------------------------------------------------------

_OPEN: dict[Settings, Rewarder] = {}
_OPENING = Lock()


def rewarder(settings: Settings | None = None) -> Rewarder:
    """This process's rewarder for these settings (None: the environment's), which all functions with them share."""
    settings = from_environment() if settings is None else settings
    with _OPENING:
        return _OPEN.setdefault(settings, Rewarder(settings))


def _begin_anew() -> None:
    # In a forked process: what another thread of the parent's was doing is never finished here.
    global _OPENING, forked_with_torch
    _OPENING = Lock()
    _OPEN.clear()
    forked_with_torch = "torch" in sys.modules


forked_with_torch = False
"""Whether this process was forked from one that had torch, whose threads are not here."""


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_begin_anew)


# -- inside --------------------------------------------------------------------------------------------------------------------


def _key(conversation: Any) -> Any:
    # What a conversation is, in 16 bytes; something of its own for what JSON can't write.
    try:
        text = json.dumps(plain_value(conversation), sort_keys=True)
    except (ConversationError, TypeError, ValueError, RecursionError):
        return object()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _models(rows: Iterable[Row | str | None]) -> list[str]:
    # The models that gave these rows, as far as they are known, in the order of the rows.
    return list(dict.fromkeys(row.model for row in rows if isinstance(row, Row) and row.model))


def _tell(faults: Sequence[str], n: int) -> None:
    if faults:
        counts = Counter(fault.partition(":")[0][:60] for fault in faults)
        kinds = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5))
        LOG.warning("%d of %d conversations have no reward: %s. The first: %s", len(faults), n, kinds, faults[0][:300])

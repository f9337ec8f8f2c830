"""The service on this package's own engine: one decoder in one thread, fed with batches of whatever waits.

In: an `Engine`, conversations of many callers.  Out: scores; `Refused` where too much waits.
Cost: the engine's. The event loop renders in one thread and runs the decoder in another; by itself it only counts and hands over.

Rows are rendered one at a time, requests in turn, so that a long request holds nobody up. Scores are those of `Engine.score`: a
row's neighbours in its batch change it by the decoder's rounding alone. One thread computes: load the model in `run_apart`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Thread
from typing import Any, TypeVar

from armorm.errors import CheckpointError, ConversationError, UserError
from armorm.fit.preference import Preference
from armorm.rendering import Rendered
from armorm.scoring.engine import Engine
from armorm.scoring.profile import Profile
from armorm.serving.batching import Row, Waiting
from armorm.serving.fingerprint import fingerprint
from armorm.serving.logs import tell
from armorm.serving.memory import FreedMemory
from armorm.serving.service import Draining, Failed, Limits, Outcome, Overloaded, TooLarge, profile_named, read, served

PROBE = [{"role": "user", "content": "Are you there?"}, {"role": "assistant", "content": "Yes."}]
RENDERERS = 2
"""Renderers for other lengths than the model's own that are kept."""
LONGEST_RETRY = 60
T = TypeVar("T")


class Asker:
    """A request that waits for the outcomes of its rows."""

    def __init__(self, n: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * n
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = n

    def give(self, place: int, outcome: Outcome) -> None:
        """One row's outcome. A fault that is not the row's own is the whole request's."""
        self.outcomes[place] = outcome
        self._left -= 1
        if self.done.done():
            return
        if isinstance(outcome, Failed):
            self.done.set_exception(outcome)
        elif not self._left:
            self.done.set_result(None)


class LocalService:
    """Scores for many callers with one engine; `Service` says how.

    `basis`, `profile` (the one that is baked in) and `fingerprint` are the model's. `watch` is told of each batch: its
    conversations, tokens and seconds. `start` and `close` stand around its use.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        profiles: Mapping[str, Profile] | None = None,
        preference: Preference | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self.engine, self.name, self.limits = engine, name, limits
        self.profiles = dict(profiles or {})
        self.preference = preference
        self.basis = engine.model.basis
        self.profile = engine.model.profile
        self.objectives = tuple(self.basis.objectives.names)
        self.fingerprint = fingerprint(engine.model)
        self.renderer = engine.renderer
        self.watch: Callable[[int, int, float], None] = lambda _rows, _tokens, _seconds: None
        self.waiting = Waiting()
        self.requests = 0
        self.draining = False
        self._rate = math.nan
        self._in_decoder = 0
        self._freed = FreedMemory()
        self._more = asyncio.Event()
        self._rendering = ThreadPoolExecutor(1, "rendering")
        self._decoding = ThreadPoolExecutor(1, "decoding")
        self._pump: asyncio.Task[None] | None = None
        self._renderer_of = lru_cache(maxsize=RENDERERS)(engine.renderer.bounded)

    def try_out(self) -> None:
        """Score a first conversation. Raises CheckpointError where it can't be rendered, and what the engine raises."""
        try:
            self.engine.score([PROBE], strict=True)
        except ConversationError as error:
            raise CheckpointError(
                f"{self.name}: a first conversation can't be scored ({error}): look at its chat template, or take another model"
            ) from error

    async def start(self) -> None:
        """Score a first conversation, and begin. Raises what the model raises when it can't."""
        await self._in(self._decoding, self.try_out)
        await self._in(self._rendering, time.perf_counter)  # a thread has the priority of the one that began it, now
        self._pump = asyncio.create_task(self._feed())
        self._pump.add_done_callback(_tell_end)

    async def close(self) -> None:
        """Stop; what waits is not answered any more."""
        self.draining = True
        if self._pump is not None:
            self._pump.cancel()
        for pool in (self._rendering, self._decoding):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return not self.draining and self._pump is not None and not self._pump.done()

    # -- one request -----------------------------------------------------------------------------------------------------------

    async def score(
        self,
        conversations: Sequence[Any],
        *,
        profile: Profile | str | None = None,
        max_tokens: int | None = None,
        deviations: bool = False,
    ) -> list[Outcome]:
        """See `Service.score`."""
        self._admit(len(conversations))
        self.requests += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                applied = await self._in(self._rendering, lambda: self._profile(profile))
                renderer = self.renderer
                if max_tokens is not None:
                    renderer = await self._in(self._rendering, lambda: self._renderer_of(min(max_tokens, renderer.max_tokens)))
                rendered = [await self._in(self._rendering, read, renderer, one) for one in conversations]
                return await self._scored(rendered, applied, deviations)
        except TimeoutError:
            raise self.limits.late(self.retry_after) from None
        finally:
            self.requests -= 1

    def _admit(self, answers: int) -> None:
        if self.draining:
            raise Draining("the server is shutting down: ask another one", retry_after=1)
        self.limits.check(answers=answers, requests=self.requests, retry_after=self.retry_after)
        self._require_room(1)

    def _require_room(self, tokens: int) -> None:
        most = self.limits.queue_tokens
        if tokens > most:
            raise TooLarge(f"{tokens:,} tokens in one request: send at most {most:,}, and the others after them")
        if self.waiting.tokens + tokens > most:
            told = f"{self.waiting.tokens:,} tokens wait already, of {most:,} that may: ask again later"
            raise Overloaded(told, retry_after=self.retry_after)
        if self.waiting.tokens and self._seconds_for(tokens) > self.limits.seconds:
            told = (
                f"{self.waiting.tokens:,} tokens wait already: at {self._rate:,.0f} a second, this request would not be answered "
                f"within {self.limits.seconds:g} seconds: ask again later"
            )
            raise Overloaded(told, retry_after=self.retry_after)

    def _seconds_for(self, tokens: int) -> float:
        # Until so many tokens behind all others are read; NaN before the rate is known.
        return (self._in_decoder + self.waiting.tokens + tokens) / self._rate

    @property
    def retry_after(self) -> int:
        """Seconds until what waits now is scored, at the rate of the last batches."""
        wait = self._seconds_for(0)
        return 1 if math.isnan(wait) else max(1, min(LONGEST_RETRY, math.ceil(wait)))

    def _profile(self, profile: Profile | str | None) -> Profile | None:
        if isinstance(profile, str):
            return profile_named(self.profiles, profile)
        self.basis.bind(profile, 1)
        return profile

    async def _scored(
        self, rendered: Sequence[Rendered | ConversationError], profile: Profile | None, deviations: bool
    ) -> list[Outcome]:
        asker = Asker(len(rendered))
        rows = [Row(one, profile, asker, i, deviations) for i, one in enumerate(rendered) if isinstance(one, Rendered)]
        for i, one in enumerate(rendered):
            if isinstance(one, ConversationError):
                asker.give(i, one)
        if rows:
            self._require_room(self.waiting.added_by(row.rendered for row in rows))
            self.waiting.add(rows)
            self._more.set()
            try:
                await asker.done
            finally:
                self.waiting.drop(rows)
        return [outcome for outcome in asker.outcomes if outcome is not None]

    # -- the decoder -----------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while rows := self.waiting.take(self.engine.batch_tokens):
                start, tokens = time.perf_counter(), _tokens(rows)
                self._in_decoder = tokens
                outcomes = await self._in(self._decoding, self._run, rows)
                self._in_decoder, seconds = 0, time.perf_counter() - start
                self._learn_rate(tokens, seconds)
                self.watch(len(rows), tokens, seconds)
                for row, outcome in zip(rows, outcomes, strict=True):
                    row.asker.give(row.place, outcome)
                if self._freed.due:
                    await self._in(self._decoding, self._freed.give_back)

    def _learn_rate(self, tokens: int, seconds: float) -> None:
        # From batches that are half full at least: a queue is worked off in such ones, and in smaller ones more slowly.
        if 2 * tokens >= self.engine.batch_tokens:
            rate = tokens / seconds
            self._rate = rate if math.isnan(self._rate) else 0.8 * self._rate + 0.2 * rate

    def _run(self, rows: Sequence[Row]) -> list[Outcome]:
        # What fails a batch is one row's, or the machine's: halves are tried, so that it fails no neighbour.
        try:
            wanted = any(row.deviations for row in rows)
            table = self.engine.score_rendered([r.rendered for r in rows], profile=[r.profile for r in rows], deviations=wanted)
            return [served(table, i, len(row.rendered), deviations=row.deviations) for i, row in enumerate(rows)]
        except Exception as error:
            if len(rows) > 1:
                half = len(rows) // 2
                return [*self._run(rows[:half]), *self._run(rows[half:])]
            if isinstance(error, UserError):
                return [error]
            tell("failed", error=error)
            return [Failed(f"the model failed ({type(error).__name__}): the server's log has more; ask again later")]

    async def _in(self, pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def run_apart(work: Callable[[], T]) -> T:
    """What `work` returns or raises, in a thread that ends with it: to load a model that a service shall run.

    torch keeps a pool of threads for each thread that has computed. Where the thread that loads has one and lives on, the
    decoding thread's pool shares the cores with it, and scores a third less.
    """
    done = Future[T]()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # it is raised where it is waited for
            done.set_exception(error)

    Thread(target=run, name="loading", daemon=True).start()  # a daemon: a signal need not wait for a large model
    return done.result()


def _tell_end(pump: asyncio.Task[None]) -> None:
    if not pump.cancelled() and (error := pump.exception()) is not None:
        tell("fault", error=error)


def _tokens(rows: Sequence[Row]) -> int:
    return sum(map(len, {row.rendered.prompt for row in rows})) + sum(row.tail for row in rows)

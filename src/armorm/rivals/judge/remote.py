"""A judge behind an OpenAI-compatible endpoint: many requests at once, within limits, tried again where that may help.

In: prompts.  Out: `RemoteModel`, a `Completer`.  Cost: one request a prompt, more where one fails.

The openai client tries again on its own: after 408, 409, 429, 5xx, timeouts and dropped connections, waiting as long as a
Retry-After header asks (up to two minutes), else 0.5 s, 1 s, 2 s, … 8 s, less up to a quarter at random. What it sends passes the
limits each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from armorm.errors import ArmormError, MissingExtra, UserError
from armorm.judge_settings import DEFAULT_KEY
from armorm.rivals.judge.completing import Arrived, Completion, Prompt

LONGEST_REPLY = 50_000
"""Characters of a reply that are kept, from its end: that is where the verdict stands."""
OUTAGE = 8
"""So many prompts given up in a row (or as many as are asked at once, if more) and the endpoint counts as down."""
BYTES_PER_TOKEN = 4
NO_KEY = "none"
Keep = Callable[[int, Completion | None], None]
_ADJUSTABLE = ("max_tokens", "temperature", "seed")


@dataclass
class RemoteModel:
    """`model` behind `endpoint` (None: the openai client's own default), asked with temperature 0.

    The key is read from the environment variable `key_env`; an endpoint of one's own may need none. At most `concurrency`
    requests are under way; they are sent evenly over the minute where `requests_per_minute` or `tokens_per_minute` bounds them (a
    request counts as its bytes / 4 plus `max_tokens`). Where a model refuses a parameter (`max_tokens`, which some call
    `max_completion_tokens`, `temperature`, `seed`), it is sent without. `timeout` is in seconds, for one try.

    Raises MissingExtra without the openai and aiolimiter packages, and UserError without a key for the default endpoint.
    """

    model: str
    endpoint: str | None = None
    key_env: str = DEFAULT_KEY
    max_tokens: int = 1024
    seed: int | None = 0
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 120.0
    retries: int = 5
    failures: Counter[str] = field(default_factory=Counter)
    _adjusted: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        for package in ("openai", "aiolimiter"):
            try:
                __import__(package)
            except ImportError as missing:
                raise MissingExtra("a judge behind an endpoint", package, "judge") from missing
        if not self._key.isascii():
            raise UserError(f"{self.key_env} holds characters that no key has: set it to the key alone")
        if not self._key and not self._base_url:
            raise UserError(
                f"the key for {self.model} is not set: {self.key_env}=… armorm …, or name another variable as `key_env`"
            )

    @property
    def fingerprint(self) -> str:
        facts = (self.model, self._base_url.rstrip("/"), self.max_tokens, self.seed)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    @property
    def _base_url(self) -> str:
        return self.endpoint or os.environ.get("OPENAI_BASE_URL") or ""

    @property
    def _where(self) -> str:
        return self._base_url or "the default endpoint"

    def complete(self, prompts: Sequence[Prompt], *, arrived: Arrived = lambda _replies: None) -> list[Completion | None]:
        """Replies in the order of the prompts; None for one that was refused (too long, say) or failed in every try.

        `arrived` is told of each at once, so that an interruption (Ctrl-C) loses nothing that was answered. May be called where
        an event loop runs already (a notebook). Raises UserError at once when the key or the model is refused, ArmormError when
        the endpoint can't be reached or stops answering.
        """
        replies: list[Completion | None] = [None] * len(prompts)
        stop = threading.Event()

        def keep(i: int, reply: Completion | None) -> None:
            replies[i] = reply
            arrived({i: reply})

        _run(lambda: self._complete(prompts, keep, stop), stop)
        return replies

    async def _complete(self, prompts: Sequence[Prompt], keep: Keep, stop: threading.Event) -> None:
        todo = iter(enumerate(prompts))
        health = _Health(max(OUTAGE, self.concurrency), self._where)
        longest = max((sum(len(m["content"].encode()) for m in prompt) for prompt in prompts), default=0)
        async with self._client(longest) as client:
            workers = [
                asyncio.create_task(self._work(client, todo, keep, health, stop))
                for _ in range(min(self.concurrency, len(prompts)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self, client: Any, todo: Iterator[tuple[int, Prompt]], keep: Keep, health: _Health, stop: threading.Event
    ) -> None:
        for i, prompt in todo:
            if stop.is_set():
                return
            reply, reason, down = await self._answer(client, prompt)
            if reply is None:
                self.failures[reason] += 1
            keep(i, reply)
            health.note(reply is not None, reason if down else None)

    async def _answer(self, client: Any, prompt: Prompt) -> tuple[Completion | None, str, bool]:
        # The reply; or why there is none, and whether that is the endpoint's fault rather than the prompt's.
        import openai

        tries = 0
        while True:
            options = self._options()
            try:
                reply = await client.chat.completions.create(model=self.model, messages=prompt, **options)
            except openai.APIStatusError as error:
                if self._adjust(error, options):
                    continue
                return None, *self._given_up(error)
            except openai.APITimeoutError:
                return None, f"no answer within {self.timeout:g} s", True
            except openai.APIConnectionError as error:
                return None, f"no connection ({_first_line(error.__cause__ or error)})", True
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
                reply = None  # a body that is no JSON
            except UnicodeEncodeError as error:
                raise UserError(
                    f"{self._where} can't be asked ({error}): no header may hold such letters: check {self.key_env} and the "
                    "variables OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS"
                ) from error
            except Exception as error:  # a port that is none, say: the client's own library differs from version to version
                return None, f"no connection ({_first_line(_innermost(error))})", True
            if completion := _completion(reply):
                return completion, "", False
            tries += 1
            if tries > self.retries:
                return None, "a reply that is no chat completion", True

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": 0}
        options |= {} if self.seed is None else {"seed": self.seed}
        if "max_tokens" in self._adjusted:
            options["max_completion_tokens"] = self.max_tokens
        return {name: value for name, value in options.items() if name not in self._adjusted}

    def _adjust(self, error: Any, options: dict[str, Any]) -> bool:
        # Whether a parameter was refused that can be left out; another request may have found out meanwhile.
        if error.status_code not in (400, 422) or not str(error.code or "").startswith(("unsupported", "unknown")):
            return False
        if error.param not in _ADJUSTABLE or error.param not in options:
            return False
        self._adjusted.add(error.param)
        return True

    def _given_up(self, error: Any) -> tuple[str, bool]:
        # Why one prompt has no reply, and whether the endpoint is to blame; raises what would hold for every prompt.
        status, said = error.status_code, _first_line(error)
        if status in (401, 403):
            unset = "" if self._key else ", which is not set"
            raise UserError(
                f"{self._where} refuses the key ({status}): {said}. The key is read from {self.key_env}{unset}: put a key for "
                "this endpoint there, or name another variable as `key_env`"
            ) from error
        if status == 404:
            raise UserError(
                f"{self._where} has no model {self.model!r}, or no chat completions (404): {said}. Check `model` and `endpoint`; "
                "its path usually ends in /v1"
            ) from error
        if status == 402 or error.code in ("insufficient_quota", "billing_hard_limit_reached"):
            raise UserError(
                f"{self._where}: no credit left ({status}): {said}. Replies are kept: top up and run again"
            ) from error
        if status in (400, 408, 409, 413, 422, 429) or status >= 500:
            # Reasons are counted: two prompts that are too long by different lengths have one reason.
            return f"{status}: {re.sub('[0-9]+', '#', said)}", status not in (400, 413, 422)
        raise UserError(f"{self._where} refuses requests ({status}): {said}. Check `endpoint`") from error

    def _client(self, longest: int) -> Any:
        import openai

        try:
            return openai.AsyncOpenAI(
                api_key=self._key or NO_KEY,
                base_url=self.endpoint,
                timeout=self.timeout,
                max_retries=self.retries,
                http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [self._pace(longest)]}),
            )
        except Exception as error:  # as in `_answer`; nothing but settings is read here
            raise UserError(
                f"{self._where} can't be asked ({_first_line(error)}): check `endpoint`, and the proxy and "
                "certificate variables (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE, OPENAI_BASE_URL)"
            ) from error

    def _pace(self, longest: int) -> Callable[[Any], Awaitable[None]]:
        # Called before everything that is sent, further tries too. One at a time instead of a minute's worth at once.
        from aiolimiter import AsyncLimiter

        one_by_one = AsyncLimiter(1, 60 / self.requests_per_minute) if self.requests_per_minute else None
        tokens = None
        if self.tokens_per_minute:
            at_once = max(self.tokens_per_minute / 6, self._tokens(2 * longest))
            tokens = AsyncLimiter(at_once, 60 * at_once / self.tokens_per_minute)

        async def pace(request: Any) -> None:
            if tokens is not None:
                await tokens.acquire(min(self._tokens(int(request.headers.get("content-length", 0))), tokens.max_rate))
            if one_by_one is not None:
                await one_by_one.acquire()

        return pace

    def _tokens(self, size: int) -> float:
        return size / BYTES_PER_TOKEN + self.max_tokens


class _Health:
    # Whether the endpoint still answers. Raises ArmormError when it doesn't, so that the rest isn't asked in vain.
    def __init__(self, patience: int, where: str) -> None:
        self.patience, self.where = patience, where
        self.answered, self.down = False, 0

    def note(self, answered: bool, reason: str | None) -> None:
        if reason is None:
            self.answered |= answered
            self.down = 0
            return
        self.down += 1
        if not self.answered and reason.startswith("no connection"):
            raise ArmormError(f"{self.where} can't be reached: {reason}. Check `endpoint`, and that its server runs")
        if self.down >= self.patience:
            raise ArmormError(
                f"{self.where} stopped answering: {self.down} requests in a row failed in every try, the last with: {reason}. "
                "Replies are kept: run again later"
            )


def _completion(reply: Any) -> Completion | None:
    # The client doesn't check what it is sent: anything may be missing or of another type.
    try:
        choice = reply.choices[0]
        text = choice.message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    if not isinstance(text, str | None):
        return None
    usage = getattr(reply, "usage", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (n if isinstance(n, int) else None for n in counts)
    cut = getattr(choice, "finish_reason", None) == "length"
    return Completion((text or "")[-LONGEST_REPLY:], tokens_in, tokens_out, cut)


def _run(work: Callable[[], Any], stop: threading.Event) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    with ThreadPoolExecutor(1) as pool:  # this thread's loop is taken
        try:
            pool.submit(lambda: asyncio.run(work())).result()
        except BaseException:
            stop.set()  # after an interruption, what is under way still arrives
            raise


def _innermost(error: BaseException) -> BaseException:
    # What a group of errors holds first.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _first_line(error: BaseException) -> str:
    body = getattr(error, "body", None)  # an endpoint's own words, where it has any
    told = body.get("message") if isinstance(body, dict) else None
    said = str(told or getattr(error, "message", None) or error).strip()
    return said.splitlines()[0][:200] if said else type(error).__name__

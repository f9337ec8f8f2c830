"""What a judge needs of a language model: replies to prompts, told as they arrive; and what they took.

In: replies as they arrive.  Out: `Completer` (a protocol), `Completion`; `Usage`: requests, tokens, dollars, seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from armorm.conversation import Message

Prompt = list[Message]


@dataclass(frozen=True)
class Completion:
    """A reply. Token counts are None where the model's server doesn't tell; `cut` says that it ran into the limit."""

    text: str
    tokens_in: int | None
    tokens_out: int | None
    cut: bool = False


Replies = Mapping[int, Completion | None]
"""By the prompts' numbers; None for one that was given up."""
Arrived = Callable[[Replies], None]
"""Told of the replies that were computed together: a batch's, which decides their last digits, or one alone."""


@runtime_checkable
class Completer(Protocol):
    """Answers prompts. `fingerprint` names what its replies depend on; `failures` counts by reason what was given up."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def failures(self) -> Counter[str]: ...

    def complete(self, prompts: Sequence[Prompt], *, arrived: Arrived = lambda _replies: None) -> list[Completion | None]: ...


@dataclass
class Tokens:
    """Tokens read and written. `untold` counts replies whose server did not say how many."""

    read: int = 0
    written: int = 0
    untold: int = 0

    def add(self, reply: Completion) -> None:
        self.read += reply.tokens_in or 0
        self.written += reply.tokens_out or 0
        self.untold += reply.tokens_in is None or reply.tokens_out is None


@dataclass
class Usage:
    """Counts since the judge was made; each distinct prompt of a call counts once.

    `requests` were sent to the model and answered or given up (`failed`, by reason in `failures`); `from_cache` had been answered
    before. `unparsable` replies said no verdict; `cut` ones ran into the token limit; `refused` counts by reason the pairs or
    conversations that weren't asked about. Prices are US dollars per million tokens.
    """

    price_in: float | None = None
    price_out: float | None = None
    requests: int = 0
    from_cache: int = 0
    failed: int = 0
    unparsable: int = 0
    cut: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    tokens: Tokens = field(default_factory=Tokens)
    cached_tokens: Tokens = field(default_factory=Tokens)
    seconds: float = 0.0

    def dollars(self, tokens: Tokens) -> float | None:
        """What so many tokens cost; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens.read * self.price_in + tokens.written * self.price_out) / 1e6

    def to_json(self) -> dict[str, Any]:
        """Plain values. `cost_usd` is for the requests of this run; `cached_cost_usd` was paid before."""
        return {
            "requests": self.requests,
            "from_cache": self.from_cache,
            "failed": self.failed,
            "failures": dict(self.failures),
            "refused": dict(self.refused),
            "unparsable": self.unparsable,
            "cut": self.cut,
            "tokens_in": self.tokens.read,
            "tokens_out": self.tokens.written,
            "untold": self.tokens.untold,
            "cached_tokens_in": self.cached_tokens.read,
            "cached_tokens_out": self.cached_tokens.written,
            "cost_usd": self.dollars(self.tokens),
            "cached_cost_usd": self.dollars(self.cached_tokens),
            "seconds": round(self.seconds, 3),
        }

"""What a judge needs of a language model: replies to prompts, told one by one as they arrive.

In: nothing (a protocol and its values).  Out: `Completer`, `Completion`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from armorm.conversation import Message

Prompt = list[Message]


@dataclass(frozen=True)
class Completion:
    """A reply. Token counts are None where the model's server doesn't tell; `cut` says that it ran into the limit."""

    text: str
    tokens_in: int | None
    tokens_out: int | None
    cut: bool = False


Arrived = Callable[[int, Completion | None], None]
"""Told of each prompt's number and its reply, or None when it was given up."""


@runtime_checkable
class Completer(Protocol):
    """Answers prompts. `fingerprint` names what its replies depend on; `failures` counts by reason what was given up."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def failures(self) -> Counter[str]: ...

    def complete(self, prompts: Sequence[Prompt], *, arrived: Arrived = lambda _i, _reply: None) -> list[Completion | None]: ...

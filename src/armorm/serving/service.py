"""What every route asks for scores: the service, what it gives back, and how it refuses.

In: nothing (these are protocols, results and errors).  Out: `Service`, `Outcome`, `Limits`, the tree of `Refused`.

A service may stand on this package's own engine (`local`) or on another one; routes know this interface alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from armorm.errors import ArmormError, ConversationError, RecipeError
from armorm.rendering import Rendered, Renderer
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.scoring.table import ScoreTable
from armorm.serving.fingerprint import HEADER


@dataclass(frozen=True)
class Served(Score):
    """A score as a server gives it: `tokens` of the whole conversation that were read, the template's included."""

    tokens: int = 0


def served(table: ScoreTable, i: int, tokens: int, *, deviations: bool) -> Outcome:
    """A row's score, or what is wrong with it; without `deviations`, none of those that the table has for other rows."""
    if (fault := table.faults[i]) is not None:
        return ConversationError(fault, fault.partition(":")[0])
    score = table[i]
    facts = {part.name: getattr(score, part.name) for part in fields(score)}
    return Served(**(facts if deviations else facts | {"std": None, "reward_std": {}}), tokens=tokens)


def read(renderer: Renderer, conversation: Any) -> Rendered | ConversationError:
    """A conversation's tokens, or what is wrong with it."""
    try:
        return renderer.render(conversation)
    except ConversationError as error:
        return error


Outcome = Score | ArmormError
"""A conversation's score, or what is wrong with this conversation alone."""


@runtime_checkable
class Service(Protocol):
    """Scores conversations for many callers at once.

    `name`: the model's, as /v1/models says it; `objectives` in their order; `profiles` by name, those that may be asked for;
    `renderer`: the chat template, token counts, texts split.
    """

    @property
    def name(self) -> str: ...

    @property
    def objectives(self) -> tuple[str, ...]: ...

    @property
    def profiles(self) -> Mapping[str, Profile]: ...

    @property
    def renderer(self) -> Renderer: ...

    async def score(
        self,
        conversations: Sequence[Any],
        *,
        profile: Profile | str | None = None,
        max_tokens: int | None = None,
        deviations: bool = False,
    ) -> list[Outcome]:
        """An outcome for each conversation, in order.

        `profile`: one of `profiles` by name, or a whole one; `max_tokens` cuts conversations shorter than the model's own bound;
        `deviations`: with standard deviations, where the model knows its uncertainty.
        Raises RecipeError for a profile that is unknown or does not fit, BackboneError for a `max_tokens` that can't be, and
        `Refused` where the request as a whole is not answered. Cancelled, it takes back what still waits.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """What a server takes on, so that its memory is bounded and nobody waits for ever.

    `body_bytes` of a request and `bodies_bytes` of all that are read or answered at one time; `body_seconds` for a body to come
    in; `answers` of a request; `queue_tokens` and `queue_requests` that may wait; `seconds` until a request is given up.
    """

    body_bytes: int = 4 * 2**20
    bodies_bytes: int = 64 * 2**20
    body_seconds: float = 20.0
    answers: int = 512
    queue_tokens: int = 2**18
    queue_requests: int = 512
    seconds: float = 120.0

    def check(self, *, answers: int, requests: int, retry_after: int) -> None:
        """Raises TooLarge for more answers than a request may have, Overloaded where as many requests wait as may."""
        self.require_few(answers)
        if requests >= self.queue_requests:
            raise Overloaded(f"{requests:,} requests wait already: ask again later", retry_after=retry_after)

    def require_few(self, answers: int) -> None:
        """Raises TooLarge for more answers than a request may have."""
        if answers > self.answers:
            raise TooLarge(f"{answers:,} answers in one request: send at most {self.answers:,}, and the others after them")

    def late(self, retry_after: int) -> TimedOut:
        """What a request hears whose time is over."""
        told = f"the scores were not there after {self.seconds:g} seconds: send less at once, or ask again later"
        return TimedOut(told, retry_after=retry_after)


def limits_of(service: Any) -> Limits:
    """A service's limits; the usual ones where it tells none."""
    return getattr(service, "limits", None) or Limits()


def model_header(service: Any) -> dict[str, str]:
    """The header that tells a service's model from another; none where it knows no fingerprint."""
    known = getattr(service, "fingerprint", "")
    return {HEADER: known} if known else {}


def profile_named(profiles: Mapping[str, Profile], name: str) -> Profile:
    """One of a server's profiles. Raises RecipeError naming those that there are."""
    if name not in profiles:
        known = f"there are {', '.join(profiles)}" if profiles else "this server was started with none"
        raise RecipeError(f"there is no profile called {name[:100]!r}; {known}; a whole one may be sent instead")
    return profiles[name]


class Refused(ArmormError):  # noqa: N818 - named for what happened
    """A whole request that is not answered: `status` of HTTP, a short name, and after how many seconds to try again."""

    status = 500
    kind = "failed"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unauthorised(Refused):
    """No key, or a wrong one."""

    status, kind = 401, "unauthorised"


class UnknownModel(Refused):
    """Another model than the one that is served was asked for."""

    status, kind = 404, "unknown-model"


def require_model(serves: str, asked: str | None) -> None:
    """Raises UnknownModel where a request names another model than the one that is served."""
    if asked is not None and asked != serves:
        raise UnknownModel(f"this server serves {serves!r}: leave `model` out, or ask for that one")


class SlowBody(Refused):
    """The body did not come in in time."""

    status, kind = 408, "slow-body"


class TooLarge(Refused):
    """More bytes, answers or tokens than a request may have."""

    status, kind = 413, "too-large"


class Overloaded(Refused):
    """So much is waiting already that this has to come again later."""

    status, kind = 429, "overloaded"


class Draining(Refused):
    """The server ends: it answers what it has accepted and takes nothing new."""

    status, kind = 503, "draining"


class TimedOut(Refused):
    """The request's time is over before its scores are there."""

    status, kind = 504, "timed-out"


class Failed(Refused):
    """The model or the machine failed, and the request is not to blame."""

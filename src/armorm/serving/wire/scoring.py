"""From conversations to scores, for protocols that answer a request whole: one that can't be scored refuses it, by its place.

In: a service, conversations.  Out: `Score`s in order, and how many tokens they had.
Cost: the service's; tokens are counted anew where its scores don't tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query

from armorm.errors import ArmormError, ConversationError
from armorm.scoring.score import Score
from armorm.serving.service import Outcome, Served, Service, limits_of

ProfileName = Annotated[
    str | None, Query(description="A steering profile that the server was started with, by name.", max_length=200)
]
"""The one setting that all protocols have: it stands in the URL, which their clients send as it was given."""
ENTRY = "entry"
T = TypeVar("T")


async def score_all(
    service: Service, conversations: Sequence[Any], *, profile: str | None = None, max_tokens: int | None = None
) -> list[Score]:
    """Scores in order. Raises ConversationError naming the first entry that can't be scored."""
    outcomes = await service.score(conversations, profile=profile, max_tokens=max_tokens)
    return [_required(outcome, i, len(outcomes)) for i, outcome in enumerate(outcomes)]


async def read_each(service: Service, read: Callable[[Any], T], entries: Sequence[Any]) -> list[T]:
    """Each entry through a function that tokenises or builds, off the event loop.

    Raises TooLarge for more entries than a request may have, before any is read, and ConversationError naming the first bad one.
    """
    limits_of(service).require_few(len(entries))

    def whole() -> list[T]:
        return [_read(read, entry, i, len(entries)) for i, entry in enumerate(entries)]

    return await asyncio.to_thread(whole)


async def count_tokens(service: Service, conversations: Sequence[Any], scores: Sequence[Score]) -> list[int]:
    """The tokens that each conversation came to, the template's included."""
    if all(isinstance(score, Served) for score in scores):
        return [score.tokens for score in scores if isinstance(score, Served)]
    return await asyncio.to_thread(lambda: [len(service.renderer.render(one)) for one in conversations])


def require_whole(service: Service, scores: list[Score], remedy: str = "") -> list[Score]:
    """The scores, of conversations that were read whole. Raises ConversationError for one that lost its oldest part."""
    if cut := [i for i, score in enumerate(scores) if score.truncated]:
        most, more = service.renderer.max_tokens, f", or {remedy}, and its oldest part is cut" if remedy else ""
        message = f"too-long: {ENTRY} {cut[0]} has more than the {most:,} tokens that the model takes: shorten it{more}"
        raise ConversationError(message, fault="too-long")
    return scores


def refused(error: ArmormError, i: int, n: int) -> ArmormError:
    """The same error with the entry that it is about, where there are several."""
    if n == 1 or not isinstance(error, ConversationError):
        return error
    return ConversationError(f"{ENTRY} {i}: {error}", error.fault)


def _required(outcome: Outcome, i: int, n: int) -> Score:
    if isinstance(outcome, ArmormError):
        raise refused(outcome, i, n)
    return outcome


def _read(read: Callable[[Any], T], entry: Any, i: int, n: int) -> T:
    try:
        return read(entry)
    except ConversationError as error:
        raise refused(error, i, n) from error

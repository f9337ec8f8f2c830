"""Bodies of requests as JSON, read as strictly as any JSON that people write.

In: a request's bytes.  Out: their value; status 400 for what is no JSON, is nested without end, or says a key twice; 413 for more
values or keys than a request may have; 415 for what is
sent compressed; 422 for what is not sent as JSON.
Cost: one parse, in a thread where the body is large, so that nobody else waits for it.

Checking a body's form costs memory for each value and much more for each fault, so both are bounded: values here, faults by
`Listed`, whose check ends at the first item that doesn't fit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field

from armorm.serving.keys import IN_URL
from armorm.serving.service import Limits
from armorm.user_json import DEEPEST, JsonFault, Most, read_json

T = TypeVar("T")
Listed = Annotated[list[T], Field(fail_fast=True)]
"""A list in a body: its first item that doesn't fit is its only fault."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
DEEPEST_BODY = 2 * DEEPEST
"""Objects and lists within each other. What is too deep for a conversation is that conversation's fault alone up to here; beyond,
walking through a value could end in Python's own bound."""
AT_ONCE = 2**16
"""Bytes that are read between two other tasks."""
LEAST_VALUES = 2**12
"""So many values a body may have, however short the queue."""
MOST_KEYS = 1024
"""Keys of one object: each that is unknown is a fault of its own."""
_TOO_MANY = ("too-many-values", "too-many-keys")


def most_of(limits: Limits) -> Most:
    """What a body may hold: a value for each token that may wait, since what is scored has no fewer tokens than values."""
    return Most(values=max(LEAST_VALUES, limits.queue_tokens), keys=MOST_KEYS)


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """The body's value. Raises HTTPException for none."""
        body, most = await self.body(), most_of(self.scope.get("limits", Limits()))
        return await asyncio.to_thread(_value, body, most) if len(body) > AT_ONCE else _value(body, most)


class StrictRoute(APIRoute):
    """A route of such requests. One that takes a body takes no query but its own, and the key's."""

    def get_route_handler(self) -> Handler:
        """The handler, given a request that reads strictly."""
        handler = super().get_route_handler()
        known = {field.alias for field in self.dependant.query_params}

        async def handle(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if self.body_field is not None:
                _require_known(strict, known)
                _require_plain(strict)
                await _require_json(strict)
            return await handler(strict)

        return handle


def _require_known(request: Request, known: Collection[str]) -> None:
    # What is passed over in silence would look as if it had been heeded.
    if unknown := sorted(set(request.query_params) - {*known, IN_URL}):
        told = ", ".join(f"`{name[:100]}`" for name in unknown[:5])
        takes = f"it takes {', '.join(sorted(known))}" if known else "what it takes stands in the body"
        raise HTTPException(422, f"query: this route knows no {told}: {takes}")
    for name in sorted({*known, IN_URL}):
        if (times := len(request.query_params.getlist(name))) > 1:
            raise HTTPException(422, f"query: `{name}` stands there {times} times: send it once")


def _require_plain(request: Request) -> None:
    named = ", ".join(request.headers.getlist("content-encoding")).strip()
    if named.lower() not in ("", "identity"):
        raise HTTPException(
            415, f"the body was sent with the header `content-encoding: {named[:100]}`: send it as it is, without that header"
        )


async def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))) and await request.body():
        told = f"as {kind[:100]}" if kind else "without a content type"
        raise HTTPException(422, f"the body was sent {told}: send JSON, with the header `content-type: application/json`")


def _value(body: bytes, most: Most) -> Any:
    try:
        return read_json(body.decode(json.detect_encoding(body), "surrogatepass"), deepest=DEEPEST_BODY, most=most)
    except JsonFault as fault:
        if fault.name in _TOO_MANY:
            raise HTTPException(413, f"the body is too large: {fault}: send less at once") from None
        raise HTTPException(400, f"the body can't be read: {fault}") from None
    except UnicodeDecodeError:
        raise HTTPException(400, "the body can't be read: not-json: it is no text in UTF-8") from None

"""Bodies of requests as JSON, read as strictly as any JSON that people write.

In: a request's bytes.  Out: their value; status 400 for what is no JSON, is nested without end, or says a key twice.
Cost: one parse, in a thread where the body is large, so that nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from armorm.user_json import DEEPEST, JsonFault, read_json

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
DEEPEST_BODY = 2 * DEEPEST
"""Objects and lists within each other. What is too deep for a conversation is that conversation's fault alone up to here; beyond,
walking through a value could end in Python's own bound."""
AT_ONCE = 2**16
"""Bytes that are read between two other tasks."""


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """The body's value. Raises HTTPException for none."""
        body = await self.body()
        return await asyncio.to_thread(_value, body) if len(body) > AT_ONCE else _value(body)


class StrictRoute(APIRoute):
    """A route of such requests."""

    def get_route_handler(self) -> Handler:
        """The handler, given a request that reads strictly."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


def _value(body: bytes) -> Any:
    try:
        return read_json(body.decode(json.detect_encoding(body), "surrogatepass"), deepest=DEEPEST_BODY)
    except JsonFault as fault:
        raise HTTPException(400, f"the body can't be read: {fault}") from None
    except UnicodeDecodeError:
        raise HTTPException(400, "the body can't be read: not-json: it is no text in UTF-8") from None

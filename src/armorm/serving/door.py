"""The door in front of all routes: ids, keys, bodies within bounds, clients that leave, the end, the log and the counters.

In: an ASGI application.  Out: the same behind a door.
Cost: one body is held while its request is answered; microseconds beside.

A body is read before any route sees it, and counted while it comes in. While a route works, the door listens for the client: one
that leaves ends the route's task, and with it what waits for the decoder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import Match

from armorm.serving.keys import Keys
from armorm.serving.logs import tell
from armorm.serving.metrics import Metrics
from armorm.serving.replies import error_reply, fault_reply, request_id
from armorm.serving.service import Draining, Limits, Overloaded, Refused, SlowBody, TooLarge, Unauthorised

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

HEALTH = frozenset({"/healthz", "/readyz"})
"""Paths that need no key and are answered to the end."""
PASSED_OVER = 4
"""So many times the largest body is read and thrown away, so that its client hears why it is refused. Of one that is longer, by
its head, nothing is read: its client may see a closed connection and no more."""
GONE = 499
"""The status in the log and the counters of a request whose client left."""
REASONS = {
    400: "invalid",
    401: "unauthorised",
    408: "slow-body",
    413: "too-large",
    415: "invalid",
    422: "invalid",
    429: "overloaded",
    499: "client-left",
    503: "draining",
    504: "timed-out",
}
"""What the counters call a status, whichever protocol's route gave it."""


@dataclass
class Door:
    """What the door knows: whether it is closed to new requests, how many are inside, how many bytes of bodies they hold.

    `open_paths` need no key: a path, or all below one that ends with a slash.
    """

    limits: Limits = Limits()  # noqa: RUF009 - frozen
    keys: Keys = Keys()  # noqa: RUF009 - frozen
    log_texts: bool = False
    open_paths: tuple[str, ...] = ()
    closed: bool = False
    inside: int = 0
    held: int = 0

    def is_open(self, path: str) -> bool:
        """Whether a path needs no key."""
        return any(path == one or (len(one) > 1 and one.endswith("/") and path.startswith(one)) for one in self.open_paths)


@dataclass
class _Asked:
    """One request at the door."""

    scope: Any
    id: str
    start: float = field(default_factory=time.perf_counter)
    status: int = 0
    body: bytes = b""
    whole: bool = False
    """Whether its body was read to the end."""

    @property
    def route(self) -> str:
        """The route's own path, never the client's."""
        return getattr(self.scope.get("route"), "path", "other")


class Guarded:
    """An ASGI application behind a door."""

    def __init__(self, app: App, door: Door, metrics: Metrics) -> None:
        self.app, self.door, self.metrics = app, door, metrics

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        asked = _Asked(scope, request_id(scope))
        scope["request_id"], scope["limits"] = asked.id, self.door.limits
        _name_route(scope)
        told = self._telling(asked, send)
        self.door.inside += 1
        self.metrics.inside.set(self.door.inside)
        try:
            await self._let_in(asked, headers, receive, told)
        except _Left:
            asked.status = asked.status or GONE
        except Refused as error:
            await self._refuse(asked, error, _length(headers), receive, told)
        except Exception as error:  # a fault of ours: nobody else's request is to notice
            tell("fault", error=error, id=asked.id)
            if not asked.status:
                reply = fault_reply(500, "fault", "a fault of the server's own: its log has more", asked.id)
                await reply(asked.scope, receive, told)
        finally:
            self.door.inside -= 1
            self.door.held -= len(asked.body)
            self._note(asked)

    async def _let_in(self, asked: _Asked, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        scope, door = asked.scope, self.door
        if scope["path"] not in HEALTH:
            if not door.is_open(scope["path"]) and not door.keys.admit(scope["headers"], scope["query_string"]):
                raise Unauthorised("send an API key of this server: `Authorization: Bearer KEY`, or `X-API-Key: KEY`")
            if door.closed:
                raise Draining("the server is shutting down: ask another one", retry_after=1)
        if _length(headers) > door.limits.body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(door.limits.body_seconds):
                await self._read(asked, receive)
        except TimeoutError:
            raise SlowBody(f"the body was not there after {door.limits.body_seconds:g} seconds: send it at once") from None
        await self._answer(asked, receive, send)

    async def _read(self, asked: _Asked, receive: Receive) -> None:
        # The whole body, which counts while it comes in.
        pieces: list[bytes] = []
        size = 0
        try:
            while not asked.whole:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Left
                piece = message.get("body", b"")
                size += len(piece)
                self.door.held += len(piece)
                if size > self.door.limits.body_bytes:
                    raise self._too_large()
                if self.door.held > self.door.limits.bodies_bytes:
                    raise Overloaded("too many bytes of requests are held already: ask again later", retry_after=1)
                pieces.append(piece)
                asked.whole = not message.get("more_body", False)
        except BaseException:
            self.door.held -= size
            raise
        asked.body = b"".join(pieces)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body has more than {self.door.limits.body_bytes:,} bytes: send fewer answers at once")

    async def _answer(self, asked: _Asked, receive: Receive, send: Send) -> None:
        # The route's task, and one that listens for the client: whichever ends first.
        listening = asyncio.create_task(_left(receive))
        read: list[Message] = [{"type": "http.request", "body": asked.body, "more_body": False}]

        async def replay() -> Message:
            return read.pop() if read else await asyncio.shield(listening)

        async def work() -> None:
            await self.app(asked.scope, replay, send)

        working = asyncio.create_task(work())
        try:
            await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and not asked.status:
                raise _Left
            await working
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)

    async def _refuse(self, asked: _Asked, error: Refused, length: int, receive: Receive, send: Send) -> None:
        reply = error_reply(error, asked.id)
        if not asked.whole:  # what is left of the body is not read as another request
            reply.headers["connection"] = "close"
            if not isinstance(error, SlowBody) and length <= self._most_passed_over:
                await self._pass_over(receive)
        elif self.door.closed:
            reply.headers["connection"] = "close"
        await reply(asked.scope, receive, send)

    @property
    def _most_passed_over(self) -> int:
        return PASSED_OVER * self.door.limits.body_bytes

    async def _pass_over(self, receive: Receive) -> None:
        left = self._most_passed_over
        try:
            async with asyncio.timeout(2):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _telling(self, asked: _Asked, send: Send) -> Send:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                asked.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", asked.id.encode())]
            await send(message)

        return told

    def _note(self, asked: _Asked) -> None:
        seconds = time.perf_counter() - asked.start
        self.metrics.inside.set(self.door.inside)
        self.metrics.requests.labels(asked.route, str(asked.status)).inc()
        self.metrics.seconds.labels(asked.route).observe(seconds)
        if asked.status in REASONS:
            self.metrics.refusals.labels(REASONS[asked.status]).inc()
        texts: dict[str, Any] = {"body": asked.body.decode("utf-8", "replace")} if self.door.log_texts and asked.body else {}
        tell(
            "request",
            id=asked.id,
            method=asked.scope["method"] if asked.scope["method"] in _METHODS else "other",
            route=asked.route,
            status=asked.status,
            ms=round(1000 * seconds, 1),
            bytes=len(asked.body),
            **texts,
        )


def _length(headers: dict[bytes, bytes]) -> int:
    # What the head says of the body's length; 0 where it says nothing.
    said = headers.get(b"content-length", b"")
    return int(said) if said.isdigit() else 0


def _name_route(scope: Any) -> None:
    # The route that is meant, so that what the door refuses is counted under it too; the router finds it again.
    for route in routes_of(getattr(scope.get("app"), "routes", ())):
        if route.matches(scope)[0] is not Match.NONE:
            scope["route"] = route
            return


def routes_of(routes: Iterable[Any]) -> Iterator[Any]:
    """Single routes, those of included routers among them."""
    for route in routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from routes_of(included.routes)
        else:
            yield route


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Left(Exception):  # noqa: N818 - what happened
    """The client left."""


async def _left(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message

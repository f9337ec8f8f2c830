"""uvicorn with this package's way of ending, and without patience for connections that say nothing.

In: an application, a bound socket.  Out: a process that answers, until it is told to stop.
Cost: a look at the connections ten times a second.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from armorm.serving.door import Door
from armorm.serving.logs import flush_log, tell

HEAD_SECONDS = 20.0
"""A connection that is silent, or has sent half of a request's head, for so long is closed."""
KEEP_ALIVE = 30
"""Seconds for which an idle connection is kept."""
BACKLOG = 128
"""Connections that wait to be taken. asyncio takes as many in a row, and complains as often where it can't."""
SPARE = 64
"""Descriptors that connections leave for all else: beyond, those that have been silent longest are closed."""
AGAIN = 0.5
"""Seconds between two times that room is made where a connection could not be taken; asyncio tries again after one."""
TOLD_EVERY = 60.0
"""Seconds between two lines of the log about too few descriptors."""
LAST_LINE = 0.2
"""Seconds that a second signal's line has to be written."""
AT_ONCE = 130
"""The exit code after a second signal."""


class Server(uvicorn.Server):
    """A first signal closes the door, and the server ends when nobody is inside; a second one ends it at once."""

    def __init__(self, config: uvicorn.Config, door: Door, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self.door, self.begun = door, begun
        self._silent: dict[Any, float] = {}
        self._most = max(1, descriptors() - SPARE)
        self._told = self._short = -TOLD_EVERY

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and what is to be told when it is done."""
        asyncio.get_running_loop().set_exception_handler(self._on_fault)
        await super().startup(sockets)
        if self.started:
            self.begun()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """What a signal does."""
        if self.door.closed:
            tell("stopped", requests=self.door.inside)
            flush_log(LAST_LINE)
            os._exit(AT_ONCE)  # a thread in the decoder would hold up any other end
        self.door.closed = True
        tell("draining", requests=self.door.inside)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now."""
        self._close_silent()
        if self.door.closed and not self.door.inside:
            self.should_exit = True
        return await super().on_tick(counter)

    def _close_silent(self) -> None:
        # uvicorn waits for ever for the head of a request.
        now = time.monotonic()
        silent = {c for c in self.server_state.connections if not _busy(c)}
        self._silent = {c: self._silent.get(c, now) for c in silent}
        for connection, since in self._silent.items():
            if now - since > KEEP_ALIVE + HEAD_SECONDS or (connection.cycle is None and now - since > HEAD_SECONDS):
                connection.transport.close()
        if (over := len(self.server_state.connections) - self._most) > 0:
            self._make_room(over)

    def _make_room(self, connections: int) -> None:
        for connection in sorted(self._silent, key=self._silent.__getitem__)[:connections]:
            connection.transport.close()
            del self._silent[connection]
        if (now := time.monotonic()) - self._told >= TOLD_EVERY:
            self._told = now
            tell("too-many-connections", connections=len(self.server_state.connections), most=self._most)

    def _on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncio tells of each connection that it can't take, with a traceback.
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            if (now := time.monotonic()) - self._short >= AGAIN:
                self._short = now
                self._make_room(SPARE)
        else:
            loop.default_exception_handler(context)


def _busy(connection: Any) -> bool:
    cycle = connection.cycle
    return cycle is not None and not cycle.response_complete


def run(app: Any, listening: socket.socket, door: Door, begun: Callable[[], None]) -> None:
    """Serve until a signal comes; `begun` is called when connections are taken."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=BACKLOG,
    )
    _take_all_descriptors()
    Server(config, door, begun).run([listening])


def descriptors() -> int:
    """How many descriptors this process may have."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 2**16
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return now if now > 0 else 2**16


def _take_all_descriptors() -> None:
    # A connection needs one, and shells are given few.
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536, most))
    except (OSError, ValueError):
        return

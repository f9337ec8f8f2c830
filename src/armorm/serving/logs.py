"""A server's log: one JSON object a line on stderr, without texts of requests and without keys.

In: `logging` records with `facts`.  Out: lines.  Cost: a thread that writes, so that nobody who asks waits for whoever reads.

An unexpected error is told by its type and its place in the code: its message may quote what was asked.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

NAME = "armorm.serving"
OTHERS = ("uvicorn.error", "asyncio")
"""Loggers of what a server is built on: their errors are told too."""
HELD = 8 * 2**20
"""Bytes of lines that wait to be written; what comes while more than these wait is left out."""
FAREWELL = 1.0
"""Seconds that a server's end waits for its last lines to be written."""
AGAIN = 0.05
"""Seconds between two tries to write where a descriptor is one that never waits."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Its time, its level, what happened, and its facts."""
        facts: dict[str, Any] = getattr(record, "facts", None) or {"event": record.name, "message": _said(record)}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), **facts}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            frames = traceback.extract_tb(error.__traceback__)
            line |= {"error": type(error).__name__, "where": [f"{frame.filename}:{frame.lineno}" for frame in frames[-12:]]}
        return json.dumps(line, default=str)


def _said(record: logging.LogRecord) -> str:
    # asyncio's first line says what happened, and those that follow quote the error.
    return record.getMessage().strip().partition("\n")[0]


class Lines(logging.Handler):
    """Records as lines of a descriptor, written by a thread: whether somebody reads them changes nothing for those who ask.

    What can't be written (nobody reads, the disk is full) is left out; before the next line that can be, or at the end, one says
    how many were (`lines-lost`).
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting = SimpleQueue[bytes | threading.Event | None]()
        self._held = self._lost = 0
        self._torn = False
        threading.Thread(target=self._write_all, name="log", daemon=True).start()  # a daemon: it may wait for ever

    def emit(self, record: logging.LogRecord) -> None:
        """Let a record's line be written, or count it. The caller has the lock."""
        line = f"{self.format(record)}\n".encode()
        size = len(line)  # here: a signal's line may come in the middle of a call, and must not in the middle of the sum
        if self._held > HELD:
            self._lost += 1
        else:
            self._held += size
            self._waiting.put(line)

    def flush_within(self, seconds: float) -> None:
        """Wait until all lines are written, but no longer than this."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(seconds)

    def close(self) -> None:
        """End the thread when it has written what waits."""
        self._waiting.put(None)
        super().close()

    def _write_all(self) -> None:
        while (todo := self._waiting.get()) is not None:
            self._write_loss()
            if isinstance(todo, threading.Event):
                todo.set()
            else:
                written = self._write(todo)
                self._count(held=-len(todo), lost=int(not written))
        os.close(self._descriptor)

    def _write_loss(self) -> None:
        if lost := self._lost:
            told = logging.makeLogRecord({"levelname": "WARNING", "facts": {"event": "lines-lost", "lines": lost}})
            if self._write(f"{self.format(told)}\n".encode()):
                self._count(lost=-lost)

    def _count(self, held: int = 0, lost: int = 0) -> None:
        self.acquire()
        self._held, self._lost = self._held + held, self._lost + lost
        self.release()

    def _write(self, line: bytes) -> bool:
        rest = memoryview(b"\n" + line if self._torn else line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                time.sleep(AGAIN)
            except OSError:
                return False
            self._torn = bool(rest)
        return True


@contextmanager
def writing_log() -> Iterator[None]:
    """Send the server's records, and the errors of what it is built on, to stderr; at the end, what waits is written."""
    handler = _handler()
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in (NAME, *OTHERS)]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if logger.name == NAME else logging.ERROR)
    try:
        yield
    finally:
        flush_log(FAREWELL)
        for logger, (logger.handlers, logger.propagate, level) in zip(loggers, before, strict=True):
            logger.setLevel(level)
        handler.close()


def _handler() -> logging.Handler:
    if getattr(sys.stderr, "closed", True):  # or none
        return logging.NullHandler()
    try:
        return Lines(os.dup(sys.stderr.fileno()))  # of its own: a stream that fails once may be led elsewhere for good
    except OSError:  # a notebook's has none
        return logging.StreamHandler(sys.stderr)


def tell(event: str, *, error: BaseException | None = None, **facts: Any) -> None:
    """One line of the log; an `error` with it is told by its type and its place."""
    level = logging.INFO if error is None else logging.ERROR
    logging.getLogger(NAME).log(level, event, extra={"facts": {"event": event, **facts}}, exc_info=error)


def flush_log(seconds: float) -> None:
    """Wait until all that was told is written, but no longer than this."""
    for handler in logging.getLogger(NAME).handlers:
        if isinstance(handler, Lines):
            handler.flush_within(seconds)

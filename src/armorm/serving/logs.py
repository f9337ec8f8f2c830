"""A server's log: one JSON object a line on stderr, without texts of requests and without keys.

In: `logging` records with `facts`.  Out: lines.  Cost: a server waits `PATIENCE` seconds for a log that nobody reads, once.

An unexpected error is told by its type and its place in the code: its message may quote what was asked.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any

NAME = "armorm.serving"
OTHERS = ("uvicorn.error", "asyncio")
"""Loggers of what a server is built on: their errors are told too."""
PATIENCE = 0.1
"""Seconds for which a line waits for room in a full pipe. After one is lost, none waits until one can be written."""
ROOM = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe takes without waiting when it says that it has room."""


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
    """Records as lines of a descriptor. Whether somebody reads them changes nothing for those who ask the server.

    What can't be written (nobody reads, the disk is full) is left out; before the next line that can be, one says how many were
    (`lines-lost`). Nothing is buffered: a signal at any time finds nothing half done but a line's end.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.lost, self._torn = 0, False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line, or count it."""
        if self.lost:
            facts = {"event": "lines-lost", "lines": self.lost}
            if self.write(logging.makeLogRecord({"levelname": "WARNING", "facts": facts}), patience=0.0):
                self.lost = 0
        if self.lost or not self.write(record, PATIENCE):
            self.lost += 1

    def write(self, record: logging.LogRecord, patience: float) -> bool:
        """Whether all of a record's line could be written. It takes no lock, and waits no longer than `patience` seconds."""
        data = f"{chr(10) if self._torn else ''}{self.format(record)}\n".encode()
        until = time.monotonic() + patience
        try:
            while data and _has_room(self._descriptor, max(0.0, until - time.monotonic())):
                data = data[os.write(self._descriptor, data[:ROOM]) :]
                self._torn = bool(data)
        except OSError:
            return False
        return not data


def _has_room(descriptor: int, seconds: float) -> bool:
    if sys.platform == "win32":  # it waits for sockets only
        return True
    return bool(select.select([], [descriptor], [], seconds)[1])


def write_log() -> None:
    """Send the server's records, and the errors of what it is built on, to stderr."""
    try:
        handler: logging.Handler = Lines(sys.stderr.fileno())
    except (AttributeError, OSError):  # a notebook's, or none
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (NAME, *OTHERS):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == NAME else logging.ERROR)


def tell(event: str, *, error: BaseException | None = None, **facts: Any) -> None:
    """One line of the log; an `error` with it is told by its type and its place."""
    level = logging.INFO if error is None else logging.ERROR
    logging.getLogger(NAME).log(level, event, extra={"facts": {"event": event, **facts}}, exc_info=error)


def tell_at_once(event: str, **facts: Any) -> None:
    """A line from a signal's handler: past whoever holds the log, and only where there is room for it now."""
    record = logging.makeLogRecord({"levelname": "INFO", "facts": {"event": event, **facts}})
    for handler in logging.getLogger(NAME).handlers:
        if isinstance(handler, Lines):
            handler.write(record, patience=0.0)

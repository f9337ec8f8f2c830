"""A server's log: one JSON object a line on stderr, without texts of requests and without keys.

In: `logging` records with `facts`.  Out: lines.

An unexpected error is told by its type and its place in the code: its message may quote what was asked.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

NAME = "armorm.serving"


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Its time, its level, what happened, and its facts."""
        facts: dict[str, Any] = getattr(record, "facts", None) or {"event": record.name, "message": record.getMessage()}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), **facts}
        if record.exc_info and record.exc_info[2] is not None:
            line["where"] = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(record.exc_info[2])][-12:]
        return json.dumps(line, default=str)


def write_log() -> None:
    """Send the server's records, and those of uvicorn that matter, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((NAME, logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def tell(event: str, *, error: BaseException | None = None, **facts: Any) -> None:
    """One line of the log; an `error` with it is told by its type and its place."""
    level, named = (logging.INFO, {}) if error is None else (logging.ERROR, {"error": type(error).__name__})
    logging.getLogger(NAME).log(level, event, extra={"facts": {"event": event, **facts, **named}}, exc_info=error)

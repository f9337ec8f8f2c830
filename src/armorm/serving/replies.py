"""Replies as JSON that any text can stand in, scores and errors in one form each.

In: facts, outcomes, errors.  Out: responses; the bytes of an error.

Letters outside ASCII are escaped: what a client sends may hold half a surrogate pair, which no UTF-8 can.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from armorm.errors import ArmormError
from armorm.scoring.score import Score
from armorm.serving.service import Outcome, Refused

INVALID = "invalid-request"
MOST_SAID = 2000
"""Letters of an error's message."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Reply(JSONResponse):
    """A JSON response in ASCII."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def request_id(scope: Mapping[str, Any]) -> str:
    """A request's id: the one that the door gave it, else its client's own, else a new one."""
    if known := scope.get("request_id"):
        return str(known)
    given = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex


def error_reply(error: ArmormError, request_id: str, *, status: int = 400) -> Reply:
    """An error of a whole request: {"error": {"type", "message", "request_id"}}; `status` where the error has none of its own."""
    kind, headers = kind_of_error(error), {}
    if isinstance(error, Refused):
        status = error.status
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    return fault_reply(status, kind, str(error), request_id, headers)


def fault_reply(status: int, kind: str, message: str, request_id: str, headers: dict[str, str] | None = None) -> Reply:
    """The same from its parts."""
    facts = {"type": kind, "message": message[:MOST_SAID], "request_id": request_id}
    return Reply({"error": facts}, status_code=status, headers=headers)


def result_of(outcome: Outcome, *, details: bool = False) -> dict[str, Any]:
    """A conversation's score, with `details` taken apart; or what is wrong with it."""
    if not isinstance(outcome, Score):
        return {"error": error_facts(outcome)}
    facts = {
        "score": outcome.score,
        "tokens": getattr(outcome, "tokens", None),
        "truncated": outcome.truncated,
        **({"notes": list(outcome.notes)} if outcome.notes else {}),
    }
    if not details:
        return facts
    return facts | {
        "rewards": dict(outcome.rewards),
        "raw_rewards": dict(outcome.raw),
        "gate": dict(outcome.gate),
        "terms": dict(outcome.terms),
        "contributions": dict(outcome.contributions),
        "std": outcome.std,
    }


def error_facts(error: ArmormError) -> dict[str, str]:
    """What is wrong with one conversation."""
    return {"type": kind_of_error(error), "message": str(error)[:MOST_SAID]}


def kind_of_error(error: ArmormError) -> str:
    """A short name: the fault's own, or what kind of error it is."""
    if isinstance(error, Refused):
        return error.kind
    return getattr(error, "fault", "") or INVALID

"""Routes that refuse in the form that their protocol's clients know.

In: a form (a function from `Refusal` to status and body), a route's function.  Out: an `APIRouter` whose errors have that form.

A message names what is wrong. It may repeat a name that was sent (a key, a role), and never quotes a request's texts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from armorm.errors import ArmormError, UserError
from armorm.serving.described import refusals
from armorm.serving.faults import faults_of
from armorm.serving.reading import Handler, StrictRoute
from armorm.serving.replies import INVALID, MOST_SAID, Reply, kind_of_error
from armorm.serving.service import Refused, TooLarge

UNFIT = 422
"""The status of a body that can't be scored, where a protocol has no other."""
NO_INPUT = "no-input"
"""What a refusal is called where nothing was sent to score."""


class Detail(BaseModel):
    """An error in `detail_form`."""

    detail: str
    type: str


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered: a status of HTTP, a short name, a sentence, and when to come again, if that helps.

    `family`: of whose protocol a body was, on a route that several have.
    """

    status: int
    kind: str
    message: str
    retry_after: int | None = None
    family: str = ""


Form = Callable[[Refusal], tuple[int, Mapping[str, Any]]]
_REFUSED = tuple(Refusal(status, kind, "") for status in (UNFIT, 413, 415, 429, 500, 503, 504) for kind in ("", NO_INPUT))
"""Every way in which a route may refuse."""


def refusing_router(form: Form, *, tag: str, told: Any, families: tuple[str, ...] = ("",)) -> APIRouter:
    """A router whose refusals have this form, which the model `told` describes; `families` as in `Refusal`."""

    class Route(StrictRoute):
        def get_route_handler(self) -> Handler:
            return _refusing(super().get_route_handler(), form)

    statuses = {form(replace(refusal, family=family))[0] for refusal in _REFUSED for family in families}
    return APIRouter(route_class=Route, default_response_class=Reply, tags=[tag], responses=refusals(statuses, told=told))


def _refusing(handler: Handler, form: Form) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (ArmormError, RequestValidationError, HTTPException) as error:
            return refuse(refusal_of(error), form)

    return handle


async def in_form(work: Awaitable[Any], form: Form) -> Any:
    """What is awaited, or its refusal in this form."""
    try:
        return await work
    except ArmormError as error:
        return refuse(refusal_of(error), form)


def refuse(refusal: Refusal, form: Form) -> Reply:
    """The reply of a refusal."""
    status, body = form(refusal)
    again = {} if refusal.retry_after is None else {"retry-after": str(refusal.retry_after)}
    return Reply(body, status_code=status, headers=again)


def refusal_of(error: ArmormError | RequestValidationError | HTTPException) -> Refusal:
    """Why this error refuses a request."""
    if isinstance(error, RequestValidationError):
        return Refusal(UNFIT, INVALID, faults_of(error), family=_family_of(error))
    if isinstance(error, HTTPException):
        kind = TooLarge.kind if error.status_code == TooLarge.status else INVALID
        return Refusal(UNFIT if error.status_code == 400 else error.status_code, kind, str(error.detail)[:MOST_SAID])
    status = error.status if isinstance(error, Refused) else UNFIT if isinstance(error, UserError) else 500
    retry_after = error.retry_after if isinstance(error, Refused) else None
    return Refusal(status, kind_of_error(error), str(error)[:MOST_SAID], retry_after)


def _family_of(error: RequestValidationError) -> str:
    # The union's tag, which stands behind "body".
    places = [fault["loc"] for fault in error.errors()]
    return next((str(place[1]) for place in places if len(place) > 1), "")


def detail_form(refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    """FastAPI's own form, for protocols whose clients read the status alone."""
    return refusal.status, {"detail": refusal.message, "type": refusal.kind}

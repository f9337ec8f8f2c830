"""Errors of this package's own routes in one form, whatever application the routes stand in.

In: what a route raised.  Out: `{"error": {"type", "message", "request_id"}}` with its status; `own_router`, whose routes tell it.

Another server's application has error handlers of its own, which are left as they are: a route answers for itself.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from armorm.errors import ArmormError, UserError
from armorm.serving.reading import Handler, StrictRoute
from armorm.serving.replies import INVALID, Reply, error_reply, fault_reply, request_id
from armorm.serving.service import TooLarge

MOST_FAULTS = 5
_STATUSES = {404: "no-such-route", 405: "no-such-method", 413: TooLarge.kind}
ANSWERED = (ArmormError, RequestValidationError, HTTPException)
"""The errors that have this form; whatever else is raised is a fault of the server's own."""


class OwnRoute(StrictRoute):
    """A route that answers its own errors, and reads JSON strictly."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, and what it raises as a reply."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except ANSWERED as error:
                return await reply_to(request, error)

        return handle


def own_router() -> APIRouter:
    """A router of such routes."""
    return APIRouter(route_class=OwnRoute)


async def reply_to(request: Request, error: Exception) -> Reply:
    """The reply of one of `ANSWERED`."""
    known = request_id(request.scope)
    if isinstance(error, ArmormError):
        return error_reply(error, known, status=400 if isinstance(error, UserError) else 500)
    if isinstance(error, RequestValidationError):
        return fault_reply(422, INVALID, f"{faults_of(error)}; /openapi.json has the form and examples", known)
    assert isinstance(error, HTTPException)
    status = error.status_code
    message = {404: "there is no such route: /openapi.json lists them"}.get(status, str(error.detail))
    return fault_reply(status, _STATUSES.get(status, INVALID), message, known, dict(error.headers or {}))


def faults_of(error: RequestValidationError) -> str:
    """What is wrong with a body, without what it holds."""
    faults = error.errors()
    told = [f"{'.'.join(map(str, fault['loc']))[:200]}: {fault['msg'][:200]}" for fault in faults[:MOST_FAULTS]]
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return "; ".join([*told, *more])

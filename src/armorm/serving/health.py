"""Whether a server lives and is ready, and its counters.

In: the door, the counters, whether the service is ready.  Out: an `APIRouter`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response

from armorm.serving.described import KEYLESS, State, answers, refusals
from armorm.serving.door import Door
from armorm.serving.metrics import CONTENT_TYPE, Metrics
from armorm.serving.replies import Reply


def health_router(door: Door, metrics: Metrics, ready: Callable[[], bool]) -> APIRouter:
    """/healthz: the process answers; /readyz: it takes requests; /metrics: Prometheus' text."""
    routes = APIRouter()

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", summary="The process answers", responses=answers(State) | refusals(door=KEYLESS))
    async def healthz() -> Reply:
        return Reply({"status": "ok"})

    not_now: dict[int | str, Any] = {503: {"description": "Not yet, or not any more", "model": State}}

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", summary="Requests are taken", responses=answers(State) | refusals(door=KEYLESS) | not_now)
    async def readyz() -> Reply:
        told = "draining" if door.closed else "ready" if ready() else "not ready"
        return Reply({"status": told}, status_code=200 if told == "ready" else 503)

    text: dict[int | str, Any] = {200: {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}

    @routes.get("/metrics", summary="Counters for Prometheus", response_class=Response, responses=text | refusals())
    async def counters() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return routes

"""Whether a server lives and is ready, and its counters.

In: the door, the counters, whether the service is ready.  Out: an `APIRouter`.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from armorm.serving.door import Door
from armorm.serving.metrics import CONTENT_TYPE, Metrics
from armorm.serving.replies import Reply


def health_router(door: Door, metrics: Metrics, ready: Callable[[], bool]) -> APIRouter:
    """/healthz: the process answers; /readyz: it takes requests; /metrics: Prometheus' text."""
    routes = APIRouter()

    @routes.get("/healthz", summary="The process answers")
    async def healthz() -> Reply:
        return Reply({"status": "ok"})

    @routes.get("/readyz", summary="Requests are taken", responses={503: {"description": "Not yet, or not any more"}})
    async def readyz() -> Reply:
        told = "draining" if door.closed else "ready" if ready() else "not ready"
        return Reply({"status": told}, status_code=200 if told == "ready" else 503)

    @routes.get("/metrics", summary="Counters for Prometheus")
    async def counters() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return routes

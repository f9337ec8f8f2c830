"""The application: a service's routes behind a door, errors in one form.

In: a `Service`, the door.  Out: an ASGI application; its OpenAPI is at /openapi.json.

`ROUTERS` lists what makes routes of a service; a protocol joins by one name there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from armorm.serving import own, page, wire
from armorm.serving.door import Door, Guarded
from armorm.serving.faults import ANSWERED, reply_to
from armorm.serving.health import health_router
from armorm.serving.metrics import Metrics
from armorm.serving.service import Service

ROUTERS: tuple[Callable[[Any], APIRouter], ...] = (own.router, *wire.ROUTERS, page.router)
OPEN = page.OPEN
"""Paths that need no key, since nothing of a model is in them: a path, or all below one that ends with a slash."""
_FASTAPIS = "HTTPValidationError"


def create_app(service: Service, door: Door | None = None) -> FastAPI:
    """The application around a service. Where the service has `start` and `close`, they are called around its use.

    `door`: limits and keys; closing it refuses whatever is new. The application's `state` holds it, and the counters.
    """
    door, metrics = door or Door(), Metrics()
    door.open_paths += OPEN
    app = Described(
        title="armorm",
        summary="Interpretable, steerable reward models",
        version=version("armorm"),
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the query, with a key that stands in it
        lifespan=_lifespan(service),
    )
    app.state.door, app.state.metrics = door, metrics
    for make in ROUTERS:
        app.include_router(make(service))
    app.include_router(health_router(door, metrics, lambda: bool(getattr(service, "ready", True))))
    _watch(service, metrics)
    for kind in ANSWERED:
        app.add_exception_handler(kind, reply_to)
    app.add_middleware(Guarded, door=door, metrics=metrics)
    return app


class Described(FastAPI):
    """An application whose OpenAPI tells each route's own errors alone, and bodies that can be."""

    def openapi(self) -> dict[str, Any]:
        """Without what FastAPI adds of bodies that don't fit: no route here answers in that form.

        A body of one protocol may have any keys beside its own, so it may fit another's form too: any of the forms, not one.
        """
        described = super().openapi()
        for operations in described["paths"].values():
            for operation in operations.values():
                if _FASTAPIS in str(operation["responses"].get("422", "")):
                    del operation["responses"]["422"]
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    if "oneOf" in content["schema"]:
                        content["schema"]["anyOf"] = content["schema"].pop("oneOf")
        for name in (_FASTAPIS, "ValidationError"):
            described["components"]["schemas"].pop(name, None)
        return described


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        if (start := getattr(service, "start", None)) is not None:
            await start()
        yield
        if (close := getattr(service, "close", None)) is not None:
            await close()

    return living


def _watch(service: Service, metrics: Metrics) -> None:
    if (waiting := getattr(service, "waiting", None)) is not None:
        service.watch = metrics.batch  # type: ignore[attr-defined]
        metrics.watch_queue(lambda: waiting.tokens, lambda: len(waiting))

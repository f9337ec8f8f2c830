"""A server for tests of the page: one model without batching, the routes that the page asks, and a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from armorm.errors import ArmormError, ConversationError
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.serving import page
from armorm.serving.replies import result_of


class Simple:
    """Scores with a model in the event loop's own thread. `refuse` is what the next requests get instead: status and headers."""

    def __init__(self, model: RewardModel, name: str = "tiny", profiles: Mapping[str, Profile] | None = None) -> None:
        self.model, self.name, self.profiles = model, name, dict(profiles or {})
        self.renderer, self.basis, self.profile = model.renderer, model.basis, model.profile
        self.objectives = tuple(model.objectives.names)
        self.passes = 0
        self.refuse: tuple[int, dict[str, str]] | None = None

    async def score(
        self,
        conversations: Sequence[Any],
        *,
        profile: Profile | str | None = None,
        max_tokens: int | None = None,
        deviations: bool = False,
    ) -> list[Score | ArmormError]:
        self.passes += 1
        known = self.profiles[profile] if isinstance(profile, str) else profile
        table = self.model.engine(max_tokens=max_tokens).score(conversations, profile=known, deviations=deviations)
        return [table[i] if fault is None else ConversationError(fault) for i, fault in enumerate(table.faults)]


def app_of(service: Simple) -> FastAPI:
    """The page over a service, with the two routes that the server itself has."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(page.router(service))

    @app.exception_handler(ArmormError)
    async def refused(_: Request, error: ArmormError) -> JSONResponse:
        return JSONResponse({"error": {"type": type(error).__name__, "message": str(error), "request_id": "r1"}}, 400)

    @app.exception_handler(RequestValidationError)
    async def misshapen(_: Request, error: RequestValidationError) -> JSONResponse:
        facts = {"type": "invalid-request", "message": "; ".join(str(one["msg"]) for one in error.errors()), "request_id": "r1"}
        return JSONResponse({"error": facts}, 422)  # without what was sent, which may be half a surrogate pair

    @app.middleware("http")
    async def door(request: Request, then: Any) -> Any:
        if service.refuse is not None and request.url.path.startswith("/v1/"):
            status, headers = service.refuse
            facts = {"type": "refused", "message": "the server says no", "request_id": "r1"}
            return JSONResponse({"error": facts}, status, headers)
        return await then(request)

    @app.post("/v1/rewards")
    async def rewards(request: Request) -> dict[str, Any]:
        body = await request.json()
        rows = [[*body["messages"], {"role": "assistant", "content": answer}] for answer in body["answers"]]
        found = await service.score(rows, profile=Profile.from_json(body["profile"]))
        results = []
        for i, one in enumerate(found):
            told = result_of(one, details=True)
            tokens = {} if isinstance(one, ArmormError) else {"tokens": len(service.renderer.render(rows[i]))}
            results.append({"index": i, **told, **tokens})
        return {"model": service.name, "objectives": list(service.objectives), "results": results}

    @app.post("/v1/compare")
    async def compare(request: Request) -> dict[str, Any]:
        body = await request.json()
        a, b = ([*body["messages"], {"role": "assistant", "content": body[side]}] for side in "ab")
        found = service.model.compare(a, b, profile=Profile.from_json(body["profile"]))
        return {**found.facts(), "sentence": found.sentence}

    return app


@contextmanager
def serving(app: FastAPI, *, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The app on a free port of the loopback interface; its address. `lifespan`: whether its service is started and ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan=lifespan, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()

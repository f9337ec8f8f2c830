"""Our own routes on `vllm serve`'s port: vLLM asks for them where VLLM_PLUGINS names `armorm`.

In: vLLM's application and engine.  Out: the routes of `armorm serve` there, and its page.
Cost: reading the heads once more, in the process that serves HTTP.

A path that vLLM has itself stays vLLM's: its own protocol, /v1/models, /metrics. Errors of our routes have our form, those of
vLLM's routes vLLM's. Keys, counters and the log are vLLM's too.

Profiles that may be asked for by name are files: ARMORM_PROFILES=careful.yaml:brief.yaml.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from armorm.errors import BackboneError, CheckpointError
from armorm.scoring.profile import Profile
from armorm.serving import own, page, wire
from armorm.serving.door import routes_of
from armorm.sums import NAME
from armorm.vllm.heads import load_heads
from armorm.vllm.service import EngineService

PROFILES = "ARMORM_PROFILES"
ROUTERS: tuple[Callable[[Any], Any], ...] = (own.router, *wire.BESIDE_VLLM, page.router)
logger = logging.getLogger(__name__)


class Endpoints:
    """vLLM's `EndpointPlugin`."""

    name = "armorm"
    required_tasks = ("classify",)

    def __init__(self) -> None:
        self.service: EngineService | None = None

    def attach_router(self, app: Any) -> None:
        """Add the routes, where the model that is served is one of ours and has a chat template.

        Raises RecipeError for a profile that doesn't fit it.
        """
        asked = app.state.args
        try:
            model = load_heads(asked.model, asked.revision)
            _ = model.renderer  # says what is missing
        except (BackboneError, CheckpointError) as error:
            logger.warning("armorm adds no routes: %s", error)
            return
        names = asked.served_model_name or [asked.model]
        name = names[0] if isinstance(names, list) else names
        self.service = EngineService(model, name, named_profiles(), sums=sums_of(asked.model, asked.revision))
        add_routes(app, self.service)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:  # noqa: ARG002 - vLLM's signature
        """Take the engine."""
        if self.service is not None and engine_client is not None:
            self.service.start(engine_client)


def add_routes(app: Any, service: EngineService) -> None:
    """Add our routes, less those whose path and method the application has already: vLLM would let ours replace its own."""
    taken = {(route.path, method) for route in routes_of(app.routes) for method in getattr(route, "methods", None) or ()}
    for make in ROUTERS:
        router = make(service)
        router.routes[:] = [r for r in routes_of(router.routes) if taken.isdisjoint((r.path, method) for method in r.methods)]
        app.include_router(router)


def sums_of(model: str, revision: str | None) -> str:
    """What names a model's decoder, which is not here: the folder's list of digests, or a hub's revision; "" where neither is."""
    place = Path(model) / NAME
    return place.read_text(encoding="utf-8", errors="replace") if place.is_file() else revision or ""


def named_profiles() -> dict[str, Profile]:
    """Those of the files that the environment names. Raises RecipeError for one that can't be read."""
    paths = [part for part in os.environ.get(PROFILES, "").split(os.pathsep) if part]
    return {profile.name: profile for profile in (Profile.from_yaml(Path(path)) for path in paths)}

"""Our own routes on `vllm serve`'s port: vLLM asks for them where VLLM_PLUGINS names `armorm`.

In: vLLM's application and engine.  Out: POST /v1/rewards there.
Cost: reading the heads once more, in the process that serves HTTP.

Profiles that may be asked for by name are files: ARMORM_PROFILES=careful.yaml:brief.yaml.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from armorm.errors import BackboneError, CheckpointError
from armorm.scoring.profile import Profile
from armorm.vllm.heads import load_heads
from armorm.vllm.rewards import router
from armorm.vllm.service import EngineService

PROFILES = "ARMORM_PROFILES"
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
        self.service = EngineService(model, names[0] if isinstance(names, list) else names, named_profiles())
        app.include_router(router(self.service))

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:  # noqa: ARG002 - vLLM's signature
        """Take the engine."""
        if self.service is not None and engine_client is not None:
            self.service.start(engine_client)


def named_profiles() -> dict[str, Profile]:
    """Those of the files that the environment names. Raises RecipeError for one that can't be read."""
    paths = [part for part in os.environ.get(PROFILES, "").split(os.pathsep) if part]
    return {profile.name: profile for profile in (Profile.from_yaml(Path(path)) for path in paths)}

"""An application of the protocols' routes alone, over a model's own engine, for tests that need no server.

In: a reward model.  Out: a client that posts to it in this process.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from armorm.errors import ArmormError, ConversationError, RecipeError
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.serving.wire import ROUTERS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from protocols import CLIENTS, HOSTILE, case_of, made_conversations

__all__ = ["CLIENTS", "HOSTILE", "EngineService", "case_of", "client_of", "made_conversations"]


class EngineService:
    """Scores with a model's engine, one request at a time. `fails` is raised in place of an answer."""

    def __init__(self, model: RewardModel, profiles: Mapping[str, Profile] | None = None) -> None:
        self.engine, self.name = model.engine(), "tiny"
        self.objectives = tuple(model.objectives.names)
        self.profiles = dict(profiles or {})
        self.renderer = model.renderer
        self.fails: Exception | None = None
        self.asked: list[Any] = []

    async def score(
        self, conversations: Sequence[Any], *, profile: Any = None, max_tokens: int | None = None, deviations: bool = False
    ) -> list[Any]:
        if self.fails is not None:
            raise self.fails
        self.asked += conversations
        engine = self.engine if max_tokens is None else self.engine.model.engine(max_tokens=max_tokens)
        if isinstance(profile, str):
            if profile not in self.profiles:
                raise RecipeError(f"there is no profile {profile!r}")
            profile = self.profiles[profile]
        table = await asyncio.to_thread(engine.score, list(conversations), profile=profile, deviations=deviations)
        return [table[i] if fault is None else _refused(fault) for i, fault in enumerate(table.faults)]


def _refused(fault: str) -> ArmormError:
    return ConversationError(fault, fault.partition(":")[0])


def client_of(service: Any) -> TestClient:
    """A client of all families' routes; what a route does not catch is raised here."""
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router(service))
    return TestClient(app)

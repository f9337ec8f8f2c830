"""POST /v1/rewards: conversations, or one prompt with several answers, under a profile or none.

In: a service; a body.  Out: a router; for each conversation its score, or what is wrong with it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from armorm.errors import UserError
from armorm.serving.bodies import read_profile
from armorm.serving.reading import StrictRoute
from armorm.serving.replies import Reply, error_facts, result_of
from armorm.vllm.service import EngineService


class Asked(BaseModel):
    """`conversations`, or `messages` with `answers` to them; `profile`: a name, or the profile itself."""

    model: str | None = None
    conversations: list[Any] | None = None
    messages: list[dict[str, Any]] | None = None
    answers: list[str] | None = None
    profile: str | dict[str, Any] | None = None
    details: bool = False


def router(service: EngineService) -> APIRouter:
    """The route, for a service that may get its engine later."""
    routes = APIRouter(tags=["armorm"], route_class=StrictRoute)

    @routes.post("/v1/rewards")
    async def rewards(asked: Asked) -> Reply:
        try:
            outcomes = await service.score(_conversations(asked), profile=read_profile(asked.profile))
        except UserError as error:
            return Reply({"error": error_facts(error)}, status_code=400)
        results = [{"index": i, **result_of(outcome, details=asked.details)} for i, outcome in enumerate(outcomes)]
        return Reply({"model": service.name, "objectives": list(service.objectives), "results": results})

    return routes


def _conversations(asked: Asked) -> list[Any]:
    if asked.conversations is not None and asked.messages is None and asked.answers is None:
        return asked.conversations
    if asked.conversations is None and asked.messages is not None and asked.answers is not None:
        return [[*asked.messages, {"role": "assistant", "content": answer}] for answer in asked.answers]
    raise UserError("give `conversations`, or `messages` with `answers`: one of the two")

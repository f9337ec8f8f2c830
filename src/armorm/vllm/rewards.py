"""POST /v1/rewards: conversations, or one prompt with several answers, under a profile or none.

In: a service; a body.  Out: a router; for each conversation its score, or what is wrong with it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from armorm.errors import ArmormError, UserError
from armorm.scoring.profile import Profile
from armorm.serving.service import Outcome, Served
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
    routes = APIRouter(tags=["armorm"])

    @routes.post("/v1/rewards")
    async def rewards(asked: Asked) -> JSONResponse:
        try:
            profile = Profile.from_json(asked.profile) if isinstance(asked.profile, dict) else asked.profile
            outcomes = await service.score(_conversations(asked), profile=profile)
        except UserError as error:
            return JSONResponse({"error": _fault(error)}, status_code=400)
        results = [_result(i, outcome, details=asked.details) for i, outcome in enumerate(outcomes)]
        return JSONResponse({"model": service.name, "objectives": list(service.objectives), "results": results})

    return routes


def _conversations(asked: Asked) -> list[Any]:
    if asked.conversations is not None and asked.messages is None and asked.answers is None:
        return asked.conversations
    if asked.conversations is None and asked.messages is not None and asked.answers is not None:
        return [[*asked.messages, {"role": "assistant", "content": answer}] for answer in asked.answers]
    raise UserError("give `conversations`, or `messages` with `answers`: one of the two")


def _result(index: int, outcome: Outcome, *, details: bool) -> dict[str, Any]:
    if isinstance(outcome, ArmormError):
        return {"index": index, "error": _fault(outcome)}
    assert isinstance(outcome, Served)  # this service gives no other
    told = {"index": index, "score": outcome.score, "tokens": outcome.tokens, "truncated": outcome.truncated}
    if not details:
        return told
    return told | {
        "rewards": dict(outcome.rewards),
        "raw_rewards": dict(outcome.raw),
        "gate": dict(outcome.gate),
        "contributions": dict(outcome.contributions),
        "std": outcome.std,
    }


def _fault(error: ArmormError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}

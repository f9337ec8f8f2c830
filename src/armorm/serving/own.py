"""This package's own routes: rewards, comparisons, models, health.

In: a `Service`.  Out: an `APIRouter`; replies with named rewards.
Cost: the service's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter

from armorm.conversation import parse_conversation, split_answer
from armorm.errors import ArmormError, ConversationError
from armorm.scoring.comparison import Comparison, comparison
from armorm.scoring.explain import difference
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.serving.bodies import CompareBody, RewardsBody
from armorm.serving.faults import own_router
from armorm.serving.replies import Reply, error_facts
from armorm.serving.service import Outcome, Service, UnknownModel

_DETAILS = {
    "index": 0,
    "score": 1.23,
    "tokens": 34,
    "truncated": False,
    "rewards": {"helpfulness": 0.71},
    "raw_rewards": {"helpfulness": 2.84},
    "gate": {"helpfulness": 1.0},
    "contributions": {"helpfulness": 1.23},
    "std": 0.04,
}
_REWARDS = {
    "model": "mine",
    "objectives": ["helpfulness"],
    "results": [_DETAILS, {"index": 1, "error": {"type": "no-answer", "message": "no-answer: end with the assistant's answer"}}],
}
_COMPARED = {
    "model": "mine",
    "objectives": ["helpfulness"],
    "scores": {"a": 1.23, "b": 0.4},
    "margin": 0.83,
    "contributions": {"helpfulness": 0.83},
    "probability": 0.74,
    "sentence": "A scores 0.83 higher than B; 100 % of the difference is helpfulness. [… is the better one is 74 %.]",
    "truncated": {"a": False, "b": False},
}
_MODELS = {
    "object": "list",
    "data": [
        {
            "id": "mine",
            "object": "model",
            "owned_by": "armorm",
            "objectives": ["helpfulness"],
            "profiles": ["careful"],
            "max_tokens": 4096,
        }
    ],
}


def router(service: Service) -> APIRouter:
    """The routes that score, and the list of models."""
    routes = own_router()

    @routes.post("/v1/rewards", summary="Score conversations", responses=_shown(_REWARDS))
    async def rewards(body: RewardsBody) -> Reply:
        _require_model(service, body.model)
        outcomes = await service.score(body.asked(), profile=body.asked_profile())
        results = [result_of(i, outcome, details=body.details) for i, outcome in enumerate(outcomes)]
        return Reply({"model": service.name, "objectives": list(service.objectives), "results": results})

    @routes.post("/v1/compare", summary="Compare two answers", responses=_shown(_COMPARED))
    async def compare(body: CompareBody) -> Reply:
        _require_model(service, body.model)
        asked, profile = body.asked(), body.asked_profile()
        compared = compare_outcomes(service, asked, await service.score(asked, profile=profile), profile)
        return Reply({"model": service.name, "objectives": list(service.objectives), **_comparison_facts(compared)})

    @routes.get("/v1/models", summary="The model that is served", responses=_shown(_MODELS))
    async def models() -> Reply:
        facts = {
            "id": service.name,
            "object": "model",
            "owned_by": "armorm",
            "objectives": list(service.objectives),
            "profiles": list(service.profiles),
            "max_tokens": service.renderer.max_tokens,
        }
        return Reply({"object": "list", "data": [facts]})

    return routes


def result_of(index: int, outcome: Outcome, *, details: bool = False) -> dict[str, Any]:
    """One conversation's entry of `results`."""
    if not isinstance(outcome, Score):
        return {"index": index, "error": error_facts(outcome)}
    facts = {
        "index": index,
        "score": outcome.score,
        "tokens": getattr(outcome, "tokens", None),
        "truncated": outcome.truncated,
        **({"notes": list(outcome.notes)} if outcome.notes else {}),
    }
    if not details:
        return facts
    return facts | {
        "rewards": dict(outcome.rewards),
        "raw_rewards": dict(outcome.raw),
        "gate": dict(outcome.gate),
        "contributions": dict(outcome.contributions),
        "std": outcome.std,
    }


def compare_outcomes(
    service: Service, conversations: Sequence[Any], outcomes: Sequence[Outcome], profile: Profile | str | None
) -> Comparison:
    """The comparison of two conversations that were scored. Raises what is wrong with either.

    Its probability is by the service's `preference`, where it has one.
    """
    for side, outcome in zip("ab", outcomes, strict=True):
        if isinstance(outcome, ArmormError):
            raise ConversationError(f"{side}: {outcome}", getattr(outcome, "fault", "")) from outcome
    a, b = (outcome for outcome in outcomes if isinstance(outcome, Score))
    applied = service.profiles[profile] if isinstance(profile, str) else profile
    steered = a.profile if applied is None or applied.steers else None
    contexts = [_context(service, conversation) for conversation in conversations]
    known = getattr(service, "preference", None)
    return comparison(difference(a, b), known, steered=steered, one_prompt=contexts[0] == contexts[1])


def _context(service: Service, conversation: Any) -> Any:
    return split_answer(parse_conversation(conversation).messages, service.renderer.rendering.answer)[0]


def _comparison_facts(compared: Comparison) -> dict[str, Any]:
    a, b = compared.a, compared.b
    return {
        "scores": {"a": a.score, "b": b.score},
        "margin": compared.margin,
        "contributions": {change.term: change.delta for change in compared.difference.terms},
        "probability": compared.probability,
        **({"note": compared.note} if compared.note else {}),
        "sentence": compared.sentence,
        "truncated": {"a": a.truncated, "b": b.truncated},
    }


def _require_model(service: Service, asked: str | None) -> None:
    if asked is not None and asked != service.name:
        raise UnknownModel(f"this server serves {service.name!r}: leave `model` out, or ask for that one")


def _shown(example: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    # The replies' examples for OpenAPI.
    error = {"error": {"type": "invalid-request", "message": "what was seen, what to do", "request_id": "0af1"}}
    said = {
        400: "A profile or a conversation that can't be used",
        401: "No API key, or a wrong one",
        404: "Another model than the one that is served",
        408: "The body was not there in time",
        413: "Too many bytes, answers or tokens",
        422: "A body of another form",
        429: "Too much is waiting: `Retry-After` says for how long",
        503: "The server is shutting down",
        504: "The scores were not there in time",
    }
    replies: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": {"example": error}}} for status, text in said.items()
    }
    return {200: {"description": "OK", "content": {"application/json": {"example": example}}}, **replies}

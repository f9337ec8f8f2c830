"""This package's own routes: rewards, comparisons, models, health.

In: a `Service`.  Out: an `APIRouter`; replies with named rewards.
Cost: the service's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from armorm.conversation import parse_conversation, split_answer
from armorm.errors import ArmormError, ConversationError
from armorm.scoring.comparison import Comparison, comparison
from armorm.scoring.explain import difference
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.serving.bodies import CompareBody, RewardsBody
from armorm.serving.described import FOR_SCORES, CompareReply, ModelsReply, RewardsReply, answers, refusals
from armorm.serving.faults import own_router
from armorm.serving.fingerprint import DESCRIBED
from armorm.serving.replies import Reply, result_of
from armorm.serving.service import Outcome, Service, limits_of, model_header, require_model

_DETAILS = {
    "index": 0,
    "score": 1.23,
    "tokens": 34,
    "truncated": False,
    "rewards": {"helpfulness": 0.71},
    "raw_rewards": {"helpfulness": 2.84},
    "gate": {"helpfulness": 1.0},
    "terms": {"helpfulness": 1.23},
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

    told = answers(RewardsReply, _REWARDS, headers=DESCRIBED) | refusals(FOR_SCORES)

    @routes.post("/v1/rewards", summary="Score conversations", responses=told)
    async def rewards(body: RewardsBody) -> Reply:
        require_model(service.name, body.model)
        limits_of(service).require_few(body.count)
        outcomes = body.told(await service.score(body.asked(), profile=body.asked_profile(), deviations=body.details))
        results = [{"index": i, **result_of(outcome, details=body.details)} for i, outcome in enumerate(outcomes)]
        facts = {"model": service.name, "objectives": list(service.objectives), "results": results}
        return Reply(facts, headers=model_header(service))

    @routes.post("/v1/compare", summary="Compare two answers", responses=answers(CompareReply, _COMPARED) | refusals(FOR_SCORES))
    async def compare(body: CompareBody) -> Reply:
        require_model(service.name, body.model)
        asked, profile = body.asked(), body.asked_profile()
        outcomes = body.told(await service.score(asked, profile=profile))
        compared = compare_outcomes(service, asked, outcomes, profile)
        return Reply({"model": service.name, "objectives": list(service.objectives), **_comparison_facts(compared)})

    @routes.get("/v1/models", summary="The model that is served", responses=answers(ModelsReply, _MODELS) | refusals())
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

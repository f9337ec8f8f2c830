"""LLaMA-Factory's reward server: `POST /v1/score/evaluation`, as 0.9.6 has it (api/protocol.py, train/ppo/ppo_utils.py).

In: `{model, messages: [text]}`: whole conversations, decoded with special tokens.  Out: `{id, object, model, scores}`.
Cost: the service's.

The trainer posts to the address as it was given, reads `scores` alone, and tells no prompt: an answer stands behind the last
header of this model's own chat template. It has no second try: `unscorable=-1` in the URL gives answers that can't be scored that
score.
"""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from armorm.model.templated import Templated
from armorm.scoring.score import Score
from armorm.serving.reading import Listed
from armorm.serving.service import Service
from armorm.serving.wire.openrlhf import Unscorable, outcomes_of, require_all
from armorm.serving.wire.refusing import Detail, detail_form, refusing_router
from armorm.serving.wire.scoring import ProfileName


class EvaluationRequest(BaseModel):
    """Conversations as texts; `max_length` bounds the tokens of each."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "model", "messages": ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>"]}
            ]
        }
    )

    model: str | None = None
    messages: Listed[str] = Field(min_length=1)
    max_length: int | None = Field(None, ge=1)


class EvaluationReply(BaseModel):
    """Scores in the order of the texts."""

    id: str
    object: str = "score.evaluation"
    model: str
    scores: list[float]


def router(service: Service) -> APIRouter:
    """The route `/v1/score/evaluation`."""
    routes = refusing_router(detail_form, tag="LLaMA-Factory", told=Detail)
    templated = Templated(service.renderer)

    @routes.post("/v1/score/evaluation", response_model=EvaluationReply)
    async def evaluation(body: EvaluationRequest, profile: ProfileName = None, unscorable: Unscorable = None) -> dict[str, Any]:
        outcomes = await outcomes_of(service, templated.searched, body.messages, profile, max_tokens=body.max_length)
        if unscorable is None:
            require_all(outcomes)
        scores = [outcome.score if isinstance(outcome, Score) else unscorable for outcome in outcomes]
        return {"id": f"scoreval-{uuid.uuid4().hex}", "model": service.name, "scores": scores}

    return routes

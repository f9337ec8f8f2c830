"""OpenRLHF's remote reward model: `POST /get_reward`, as OpenRLHF 0.11 sends it (openrlhf/utils/agent.py, cli/serve_rm.py).

In: `{query: [text], prompts: [text], labels: […]}`: each query is a prompt and its answer, decoded with special tokens.
Out: `{rewards: [x], scores: [x], extra_logs: {name: [x]}}`.  Cost: the service's.

The answer is what stands behind the given prompt, less its end token. The client tries five times, a second apart, whatever the
status, then goes on without a reward, which ends the run: `unscorable=-1` in the URL gives answers that can't be scored (empty
ones, say) that reward instead, and counts them under `unscorable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from armorm.errors import ArmormError, ConversationError
from armorm.model.templated import Templated
from armorm.scoring.score import Score
from armorm.serving.reading import Listed
from armorm.serving.service import Outcome, Service
from armorm.serving.wire.policies import conversation_of
from armorm.serving.wire.refusing import Detail, detail_form, refusing_router
from armorm.serving.wire.scoring import ProfileName, read_each, refused

Unscorable = Annotated[
    float | None,
    Query(allow_inf_nan=False, description="The reward of an answer that can't be scored, in place of refusing the request."),
]


class RewardRequest(BaseModel):
    """Queries with their prompts, one for each; labels are not read."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>"],
                    "prompts": ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"],
                    "labels": [None],
                }
            ]
        }
    )

    query: Listed[str] = Field(min_length=1)
    prompts: Listed[str]
    labels: Any = None

    @model_validator(mode="after")
    def _as_many(self) -> RewardRequest:
        if len(self.query) != len(self.prompts):
            raise ValueError(f"{len(self.query)} queries and {len(self.prompts)} prompts: send one prompt for each query")
        return self


class RewardReply(BaseModel):
    """Rewards in the queries' order; `extra_logs` has a list as long for every objective."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


def router(service: Service) -> APIRouter:
    """The route `/get_reward`."""
    routes = refusing_router(detail_form, tag="OpenRLHF", told=Detail)
    templated = Templated(service.renderer)

    @routes.post("/get_reward", response_model=RewardReply)
    async def get_reward(body: RewardRequest, profile: ProfileName = None, unscorable: Unscorable = None) -> Mapping[str, Any]:
        pairs = list(zip(body.query, body.prompts, strict=True))
        outcomes = await outcomes_of(service, partial(_conversation, templated), pairs, profile)
        if unscorable is None:
            require_all(outcomes)
        return reply_of(outcomes, service.objectives, unscorable)

    return routes


def reply_of(outcomes: Sequence[Outcome], objectives: Sequence[str], unscorable: float | None) -> dict[str, Any]:
    """The reply to scores in order; an error among them has the reward `unscorable`, and 0 for its objectives."""
    rewards = [outcome.score if isinstance(outcome, Score) else unscorable for outcome in outcomes]
    logs = {f"objective/{name}": [named(outcome, name) for outcome in outcomes] for name in objectives}
    logs["conversation_cut"] = [float(isinstance(outcome, Score) and outcome.truncated) for outcome in outcomes]
    if unscorable is not None:
        logs["unscorable"] = [float(not isinstance(outcome, Score)) for outcome in outcomes]
    return {"rewards": rewards, "scores": rewards, "extra_logs": logs}


def named(outcome: Outcome, objective: str) -> float:
    """One objective's reward; 0 for an answer that has none, since the client's logs hold numbers alone."""
    return outcome.rewards[objective] if isinstance(outcome, Score) else 0.0


async def outcomes_of(
    service: Service, read: Any, entries: Sequence[Any], profile: str | None, *, max_tokens: int | None = None
) -> list[Outcome]:
    """Entries read as conversations and scored; one that can't be read has its error, and costs the others nothing."""
    read_ones = await read_each(service, partial(_or_error, read), entries)
    sound = [i for i, one in enumerate(read_ones) if not isinstance(one, ArmormError)]
    outcomes = list[Any](read_ones)
    scored = await service.score([read_ones[i] for i in sound], profile=profile, max_tokens=max_tokens) if sound else []
    for i, outcome in zip(sound, scored, strict=True):
        outcomes[i] = outcome
    return outcomes


def require_all(outcomes: Sequence[Outcome]) -> None:
    """Raises the first error among them, naming its entry."""
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, ArmormError):
            raise refused(outcome, i, len(outcomes))


def _or_error(read: Any, entry: Any) -> Any:
    try:
        return read(entry)
    except ConversationError as error:
        return error


def _conversation(templated: Templated, pair: tuple[str, str]) -> Any:
    query, prompt = pair
    return conversation_of(templated, prompt, templated.answer_in(query, prompt))

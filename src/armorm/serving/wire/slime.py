"""slime's remote reward model: `POST /slime`, as slime 0.3 sends it (slime/rollout/rm_hub/__init__.py).

In: `{prompt, response, label}`, one sample; the prompt is a text of the policy's template, or messages.
Out: the body is the reward, a number; `/slime/objectives` gives a dictionary, for slime's `--reward-key`.  Cost: the service's.

The client tries ten times, waiting up to half a minute between, whatever the status, and then ends the run: `unscorable=-1` in
the URL gives answers that can't be scored that reward instead.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from armorm.model.templated import Templated
from armorm.scoring.score import Score
from armorm.serving.reading import Listed
from armorm.serving.service import Outcome, Service
from armorm.serving.wire.openrlhf import Unscorable, named, outcomes_of, require_all
from armorm.serving.wire.policies import conversation_of
from armorm.serving.wire.refusing import Detail, detail_form, refusing_router
from armorm.serving.wire.scoring import ProfileName


class Sample(BaseModel):
    """A sample as slime posts it; its label is not read."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": [{"role": "user", "content": "Hi"}], "response": "Hello!", "label": None},
                {"prompt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "response": "Hello!<|im_end|>"},
            ]
        }
    )

    prompt: str | Listed[dict[str, Any]]
    response: str
    label: Any = None


def router(service: Service) -> APIRouter:
    """The routes `/slime` and `/slime/objectives`."""
    routes = refusing_router(detail_form, tag="slime", told=Detail)
    templated = Templated(service.renderer)

    async def outcome_of(sample: Sample, profile: str | None, unscorable: float | None) -> Outcome:
        outcomes = await outcomes_of(service, lambda one: conversation_of(templated, one.prompt, one.response), [sample], profile)
        if unscorable is None:
            require_all(outcomes)
        return outcomes[0]

    @routes.post("/slime", response_model=float)
    async def reward(sample: Sample, profile: ProfileName = None, unscorable: Unscorable = None) -> Any:
        outcome = await outcome_of(sample, profile, unscorable)
        return outcome.score if isinstance(outcome, Score) else unscorable

    @routes.post("/slime/objectives", response_model=dict[str, float])
    async def objectives(sample: Sample, profile: ProfileName = None, unscorable: Unscorable = None) -> Any:
        outcome = await outcome_of(sample, profile, unscorable)
        score = outcome.score if isinstance(outcome, Score) else unscorable
        return {"score": score, **{f"objective/{name}": named(outcome, name) for name in service.objectives}}

    return routes

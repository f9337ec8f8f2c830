"""`POST /v1/audit`: one answer, changed in every way of the audit, all scored beside it.

In: a prompt, its answer.  Out: the answer's score taken apart, and that of every change that applies to it.
Cost: one pass of the decoder over at most fifteen answers to one prompt.

The changes are those of `armorm audit`; here they show what one answer's score is moved by. How a model fares over many
answers, with intervals, only the command says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from armorm.bench.perturbations import PERTURBATIONS, Case, Perturbation
from armorm.bounds import Seed
from armorm.conversation import Message, parse_conversation
from armorm.errors import ArmormError
from armorm.rendering import Renderer
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.serving.bodies import read_profile
from armorm.serving.described import FOR_SCORES, AuditReply, answers, refusals
from armorm.serving.faults import own_router
from armorm.serving.reading import Listed
from armorm.serving.replies import Reply, result_of
from armorm.serving.service import require_model


@runtime_checkable
class Scoring(Protocol):
    """What an audit needs of a service."""

    @property
    def name(self) -> str: ...

    @property
    def objectives(self) -> tuple[str, ...]: ...

    @property
    def renderer(self) -> Renderer: ...

    async def score(
        self, conversations: Sequence[Any], *, profile: Profile | str | None = None, deviations: bool = False
    ) -> Sequence[Score | ArmormError]: ...


class AuditBody(BaseModel):
    """A prompt's messages and the answer to be changed.

    `other` is an answer to another prompt, put in this one's place; without it that change is left out. `seed` chooses among a
    change's texts. `profile` is a name that the server knows, or a whole profile.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "What is 12 · 12?"}], "answer": "12 · 12 = 144."}],
        },
    )

    model: str | None = None
    messages: Listed[dict[str, Any]] = Field(min_length=1)
    answer: str
    other: str = ""
    seed: Seed = 0
    profile: dict[str, Any] | str | None = None


def router(service: Scoring) -> APIRouter:
    """The route, over a service."""
    routes = own_router()

    @routes.post(
        "/v1/audit",
        tags=["own"],
        summary="Change one answer in every way of the audit, and score them all",
        responses=answers(AuditReply) | refusals(FOR_SCORES),
    )
    async def audit(body: AuditBody) -> Reply:
        require_model(service.name, body.model)
        profile = read_profile(body.profile)
        changed = await run_in_threadpool(changes, body, service.renderer)
        texts = [body.answer, *(text for _, text in changed if text is not None)]
        conversations = [[*body.messages, {"role": "assistant", "content": text}] for text in texts]
        original, *scored = await service.score(conversations, profile=profile, deviations=True)
        if isinstance(original, ArmormError):
            raise original
        applied = [(change, text) for change, text in changed if text is not None]
        facts = {
            "model": service.name,
            "objectives": list(service.objectives),
            "original": result_of(original, details=True),
            "changes": [
                told(change) | {"answer": text, "result": result_of(outcome, details=True)}
                for (change, text), outcome in zip(applied, scored, strict=True)
            ],
            "inapplicable": [told(change) for change, text in changed if text is None],
        }
        return Reply(facts)

    return routes


def changes(body: AuditBody, renderer: Renderer) -> list[tuple[Perturbation, str | None]]:
    """Every change of the audit with the answer after it, None where it does not apply.

    Raises ConversationError where prompt and answer are no conversation.
    """
    parsed = parse_conversation([*body.messages, Message(role="assistant", content=body.answer)])
    *context, answer = parsed.messages
    header = str(renderer.tokenizer.decode(list(renderer.header_ids), skip_special_tokens=False))
    case = Case(context, answer["content"], body.other, header)
    return [(change, change.apply(case, seed=body.seed)) for change in PERTURBATIONS]


def told(change: Perturbation) -> dict[str, str]:
    """What a change is called, what is expected of it, and what it does."""
    return {"name": change.name, "label": change.label, "expected": str(change.expected), "what": change.what}

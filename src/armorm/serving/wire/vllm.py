"""vLLM's pooling routes, as vLLM 0.32 has them (vllm/entrypoints/pooling): classify, pooling, score and rerank.

In: texts in the chat template's form, token ids, messages; queries and documents.  Out: a vector of one number each.
Cost: the service's.

The number is the score itself, whatever `use_activation` says: the model is a regression, whose activation is none.
A query is the user's turn and a document the assistant's. In texts and ids the answer stands behind the last header.
"""

from __future__ import annotations

import base64
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from armorm.errors import ConversationError
from armorm.model.templated import Templated
from armorm.scoring.score import Score
from armorm.serving.reading import Listed
from armorm.serving.service import Service
from armorm.serving.wire.refusing import NO_INPUT, UNFIT, Refusal, refusing_router
from armorm.serving.wire.scoring import ProfileName, count_tokens, read_each, require_whole, score_all

LABEL = "score"
_EXAMPLE: list[Any] = [{"role": "user", "content": "What is 12 · 12?"}, {"role": "assistant", "content": "144."}]
Message = dict[str, Any]
Encoding = Literal["float", "base64"]
"""How a vector is written; base64 is that of float32, little end first."""


class Part(BaseModel):
    """A part of a content; only text can be scored."""

    type: Literal["text"] = "text"
    text: StrictStr


class Parts(BaseModel):
    """What holds a text in parts."""

    model_config = ConfigDict(extra="forbid")

    content: StrictStr | Listed[Part]


def in_one(sentence: str) -> WrapValidator:
    """For a value that may have several forms: one that has none of them hears this sentence, not what each form lacks."""

    def checked(given: Any, check: Any) -> Any:
        try:
            return check(given)
        except ValidationError:
            raise PydanticCustomError("form", sentence) from None

    return WrapValidator(checked)


Side = StrictStr | Parts
"""A query or a document."""
_SIDE = "send a text, or an object whose content is a text or a list of text parts"
One = Annotated[Side, in_one(_SIDE)]
Sides = Annotated[Side | Listed[Side] | None, in_one(f"{_SIDE}; or a list of them")]
Documents = Annotated[Side | Annotated[Listed[Side], Field(min_length=1)], in_one(f"{_SIDE}; or a list of one of them at least")]
Texts = Annotated[
    StrictStr | Listed[StrictStr] | Listed[StrictInt] | Listed[Listed[StrictInt]],
    in_one("send a text, a list of texts, a list of token ids, or a list of such lists"),
]
"""One conversation or several."""


class Common(BaseModel):
    """What all requests have. Unknown keys are passed over, as vLLM does; those that would change the score are refused."""

    model: str | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    truncation_side: Literal["left", "right"] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    instruction: None = None
    max_tokens_per_query: Literal[0] = 0
    max_tokens_per_doc: Literal[0] = 0

    @model_validator(mode="after")
    def _one_template(self) -> Common:
        if self.chat_template or self.chat_template_kwargs:
            raise ValueError("chat_template and its arguments are the model's own: leave them out")
        if self.truncation_side == "right" and self.truncate_prompt_tokens is not None:
            raise ValueError("a conversation loses its oldest part, never its answer: leave truncation_side out")
        return self

    @property
    def max_tokens(self) -> int | None:
        """To how many tokens a conversation may be cut; None for the model's own bound."""
        return self.truncate_prompt_tokens if self.truncate_prompt_tokens not in (None, -1) else None


class ClassifyRequest(Common):
    """Texts or token ids as `input`, or one conversation as `messages`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"messages": _EXAMPLE}]})

    input: Texts | None = None
    messages: Listed[Message] | None = None
    add_generation_prompt: bool = False
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> ClassifyRequest:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send one of input (texts, token ids) and messages (one conversation)")
        if self.add_generation_prompt or self.continue_final_message:
            raise ValueError("the conversation ends with the answer: leave add_generation_prompt and continue_final_message out")
        return self


class PoolingRequest(ClassifyRequest):
    """The same, with how vectors are written."""

    task: Literal["classify"] | None = None
    encoding_format: Encoding = "float"
    embed_dtype: Literal["float32"] = "float32"
    endianness: Literal["native", "little"] = "native"
    dimensions: None = None


class ScoreRequest(Common):
    """One query or several, and documents: 1 to 1, 1 to n, or n to n; under any of vLLM's names for them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text_1": "What is 12 · 12?", "text_2": ["144.", "124."]}]})

    queries: Sides = None
    documents: Sides = None
    items: Sides = None
    data_1: Sides = None
    data_2: Sides = None
    text_1: Sides = None
    text_2: Sides = None

    @model_validator(mode="after")
    def _two_sides(self) -> ScoreRequest:
        asked = [s for s in (self.queries, self.data_1, self.text_1) if s is not None]
        answered = [s for s in (self.documents, self.items, self.data_2, self.text_2) if s is not None]
        if len(asked) != 1 or len(answered) != 1:
            raise ValueError("send queries and documents, or text_1 and text_2")
        questions, answers = map(_listed, (asked[0], answered[0]))
        if not questions or not answers or len(questions) not in (1, len(answers)):
            raise ValueError(f"{len(questions)} queries and {len(answers)} documents: send 1 and 1, 1 and n, or n and n")
        return self

    @property
    def pairs(self) -> list[tuple[Side, Side]]:
        """Queries with their documents."""
        first, second = self.queries or self.data_1 or self.text_1, self.documents or self.items or self.data_2 or self.text_2
        asked, answered = _listed(first or ""), _listed(second or "")
        return list(zip(asked * len(answered) if len(asked) == 1 else asked, answered, strict=True))


class RerankRequest(Common):
    """A query and documents; the best `top_n` come back, all of them for 0."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "What is 12 · 12?", "documents": ["144.", "124."]}]})

    query: One
    documents: Documents
    top_n: int = Field(0, ge=0)


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class PoolingUsage(Usage):
    """The same as pooling routes tell it."""

    completion_tokens: int
    prompt_tokens_details: None


class _Whole(BaseModel):
    id: str
    object: str
    created: int
    model: str
    usage: PoolingUsage


class Classified(BaseModel):
    """One conversation's score, as a class of one."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyReply(_Whole):
    """Scores of `/classify`."""

    data: list[Classified]


class Pooled(BaseModel):
    """One conversation's score, as a vector of one or its bytes."""

    index: int
    object: str
    data: list[float] | str


class PoolingReply(_Whole):
    """Scores of `/pooling`."""

    data: list[Pooled]


class Scored(BaseModel):
    """One pair's score."""

    index: int
    object: str
    score: float


class ScoreReply(_Whole):
    """Scores of `/score`."""

    data: list[Scored]


class Document(BaseModel):
    """A document as it was sent: as text, or in parts."""

    text: str | None
    multi_modal: Any


class Ranked(BaseModel):
    """A document's place among those that were sent, and its score."""

    index: int
    document: Document
    relevance_score: float


class RerankReply(BaseModel):
    """Documents by falling score."""

    id: str
    model: str
    usage: Usage
    results: list[Ranked]


class VllmFault(BaseModel):
    """What is wrong, and its status."""

    message: str
    type: str
    param: None
    code: int


class VllmError(BaseModel):
    """An error of vLLM's."""

    error: VllmFault


def vllm_form(refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    """vLLM's errors: what can't be read or scored is a bad request."""
    status = 400 if refusal.status == UNFIT else refusal.status
    told = {"message": refusal.message, "type": HTTPStatus(status).phrase, "param": None, "code": status}
    return status, {"error": told}


def router(service: Service) -> APIRouter:
    """The routes that vLLM has for itself: `/pooling`, `/score`, `/v1/score`, `/v1/rerank`, `/v2/rerank`; see `shared`."""
    routes = refusing_router(vllm_form, tag="vLLM", told=VllmError)
    templated = Templated(service.renderer)

    @routes.post("/pooling", response_model=PoolingReply)
    async def pooling(body: PoolingRequest, profile: ProfileName = None) -> dict[str, Any]:
        scores, tokens = await scored(service, templated, body, profile)
        data = [{"index": i, "object": "pooling", "data": vector(score, body.encoding_format)} for i, score in enumerate(scores)]
        return _whole("pool", service, data, tokens)

    @routes.post("/score", response_model=ScoreReply)
    @routes.post("/v1/score", response_model=ScoreReply, include_in_schema=False)
    async def score(body: ScoreRequest, profile: ProfileName = None) -> dict[str, Any]:
        conversations = await read_each(service, lambda pair: conversation_of(*pair), body.pairs)
        scores, tokens = await _measured(service, conversations, body, profile)
        data = [{"index": i, "object": "score", "score": score.score} for i, score in enumerate(scores)]
        return _whole("score", service, data, tokens)

    @routes.post("/v1/rerank", response_model=RerankReply)
    @routes.post("/v2/rerank", response_model=RerankReply, include_in_schema=False)
    async def rerank(body: RerankRequest, profile: ProfileName = None) -> dict[str, Any]:
        return await ranked(service, body, profile)

    return routes


async def classified(service: Service, templated: Templated, body: ClassifyRequest, profile: str | None) -> dict[str, Any]:
    """The reply of `/classify`."""
    scores, tokens = await scored(service, templated, body, profile)
    data = [{"index": i, "label": LABEL, "probs": [score.score], "num_classes": 1} for i, score in enumerate(scores)]
    return _whole("classify", service, data, tokens)


async def ranked(service: Service, body: RerankRequest, profile: str | None) -> dict[str, Any]:
    """The reply of `/rerank`: documents by falling score; ties in the order in which they came."""
    documents = _listed(body.documents)
    conversations = await read_each(service, partial(conversation_of, body.query), documents)
    scores, tokens = await _measured(service, conversations, body, profile)
    results = [
        {"index": i, "document": _shown(document), "relevance_score": score.score}
        for i, (document, score) in enumerate(zip(documents, scores, strict=True))
    ]
    results.sort(key=lambda result: -float(result["relevance_score"]))  # type: ignore[arg-type]
    usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
    return {"id": _id("rerank"), "model": service.name, "usage": usage, "results": results[: body.top_n or None]}


async def scored(
    service: Service, templated: Templated, body: ClassifyRequest, profile: str | None
) -> tuple[list[Score], list[int]]:
    """Scores and token counts of a request's texts, ids or messages."""
    if body.messages is not None:
        return await _measured(service, [body.messages], body, profile)
    conversations = await read_each(service, templated.searched, entries_of(body.input))
    return await _measured(service, conversations, body, profile)


def entries_of(given: Any) -> list[str | list[int]]:
    """Texts or lists of ids, each for a conversation. Raises ConversationError for none."""
    alone = isinstance(given, str) or (given and isinstance(given[0], int))
    if not given and not isinstance(given, str):
        raise ConversationError("no-input: the input is empty: send at least one conversation", fault=NO_INPUT)
    return [given] if alone else list(given)


def conversation_of(query: Side, document: Side) -> list[Message]:
    """A question and its answer."""
    return [{"role": "user", "content": _content(query)}, {"role": "assistant", "content": _content(document)}]


async def _measured(
    service: Service, conversations: Sequence[Any], body: Common, profile: str | None
) -> tuple[list[Score], list[int]]:
    scores = await score_all(service, conversations, profile=profile, max_tokens=body.max_tokens)
    if body.truncate_prompt_tokens is None:
        require_whole(service, scores, "send truncate_prompt_tokens: -1")
    return scores, await count_tokens(service, conversations, scores)


def _whole(kind: str, service: Service, data: list[dict[str, Any]], tokens: Sequence[int]) -> dict[str, Any]:
    usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens), "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": _id(kind), "object": "list", "created": int(time.time()), "model": service.name, "data": data, "usage": usage}


def _id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def _listed(side: Side | Sequence[Side]) -> list[Side]:
    return [side] if isinstance(side, str | Parts) else list(side)


def _content(side: Side) -> Any:
    content = side if isinstance(side, str) else side.content
    return content if isinstance(content, str) else [part.model_dump() for part in content]


def _shown(document: Side) -> dict[str, Any]:
    alone = isinstance(document, str)
    return {"text": document if alone else None, "multi_modal": None if alone else _content(document)}


def vector(score: Score, encoding: Encoding) -> list[float] | str:
    """A score as a vector of one, or as the bytes of one."""
    return [score.score] if encoding == "float" else base64.b64encode(struct.pack("<f", score.score)).decode()

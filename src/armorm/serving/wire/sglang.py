"""SGLang's ways to a reward model, as SGLang 0.5.23 has them (srt/entrypoints/http_server.py, openai/serving_embedding.py).

In: texts in the chat template's form, or token ids.  Out: an `embedding` of one number, the score, so that it is first and last.
Cost: the service's.

The native `/classify` stands in `shared`; here is `/v1/embeddings`, which verl asks of a server with SGLang. SGLang's own
`/v1/classify` is left out: it gives the softmax of one number, which is always 1.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, model_validator

from armorm.model.templated import Templated
from armorm.scoring.score import Score
from armorm.serving.reading import Listed
from armorm.serving.service import Service
from armorm.serving.wire.refusing import UNFIT, Refusal, refusing_router
from armorm.serving.wire.scoring import ProfileName, count_tokens, read_each, require_whole, score_all
from armorm.serving.wire.vllm import Encoding, Texts, Usage, VllmFault, entries_of, vector


class NativeRequest(BaseModel):
    """One conversation or several, as texts or as token ids."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"]}]}
    )

    text: StrictStr | Listed[StrictStr] | None = None
    input_ids: Listed[StrictInt] | Listed[Listed[StrictInt]] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> NativeRequest:
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("send one of text and input_ids")
        return self

    @property
    def single(self) -> bool:
        """Whether it is one conversation, whose reply is no list."""
        return isinstance(self.text, str) or (bool(self.input_ids) and isinstance(self.input_ids[0], int))  # type: ignore[index]


class EmbeddingRequest(BaseModel):
    """The same under the names of OpenAI's embeddings."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "armorm", "input": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!"}]
        }
    )

    model: str | None = None
    input: Texts
    encoding_format: Encoding = "float"
    dimensions: None = None


class About(BaseModel):
    """What SGLang tells beside a vector."""

    id: str
    finish_reason: None
    prompt_tokens: int
    cached_tokens: int


class Vector(BaseModel):
    """One conversation's score, as a vector of one."""

    embedding: list[float]
    meta_info: About


class Embedded(BaseModel):
    """The same under OpenAI's names."""

    object: str
    embedding: list[float] | str
    index: int


class EmbeddingsReply(BaseModel):
    """Scores of `/v1/embeddings`."""

    object: str
    data: list[Embedded]
    model: str
    usage: Usage


class NativeFault(BaseModel):
    """What is wrong."""

    message: str


class NativeError(BaseModel):
    """An error of SGLang's native routes."""

    error: NativeFault


class OpenAIError(VllmFault):
    """An error of SGLang's OpenAI routes."""

    object: str


def native_form(refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    """The errors of SGLang's native routes."""
    return _status(refusal), {"error": {"message": refusal.message}}


def openai_form(refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    """The errors of SGLang's OpenAI routes."""
    status = _status(refusal)
    told = {"message": refusal.message, "type": HTTPStatus(status).phrase, "param": None, "code": status}
    return status, {"object": "error", **told}


def router(service: Service) -> APIRouter:
    """The route `/v1/embeddings`; `/classify` stands in `shared`."""
    routes = refusing_router(openai_form, tag="SGLang", told=OpenAIError)
    templated = Templated(service.renderer)

    @routes.post("/v1/embeddings", response_model=EmbeddingsReply)
    async def embeddings(body: EmbeddingRequest, profile: ProfileName = None) -> dict[str, Any]:
        scores, tokens = await _scored(service, templated, body.input, profile)
        written = [vector(score, body.encoding_format) for score in scores]
        data = [{"object": "embedding", "embedding": one, "index": i} for i, one in enumerate(written)]
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
        return {"object": "list", "data": data, "model": service.name, "usage": usage}

    return routes


async def classified(service: Service, templated: Templated, body: NativeRequest, profile: str | None) -> Any:
    """The reply of the native `/classify`: an object for one conversation, a list for several."""
    scores, tokens = await _scored(service, templated, body.text if body.input_ids is None else body.input_ids, profile)
    found = [_vector(score, count) for score, count in zip(scores, tokens, strict=True)]
    return found[0] if body.single else found


async def _scored(service: Service, templated: Templated, given: Any, profile: str | None) -> tuple[list[Score], Sequence[int]]:
    conversations = await read_each(service, templated.searched, entries_of(given))
    scores = require_whole(service, await score_all(service, conversations, profile=profile))
    return scores, await count_tokens(service, conversations, scores)


def _vector(score: Score, tokens: int) -> dict[str, Any]:
    told = {"id": uuid.uuid4().hex, "finish_reason": None, "prompt_tokens": tokens, "cached_tokens": 0}
    return {"embedding": [score.score], "meta_info": told}


def _status(refusal: Refusal) -> int:
    return 400 if refusal.status == UNFIT else refusal.status

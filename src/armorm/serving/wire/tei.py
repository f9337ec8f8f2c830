"""Text Embeddings Inference's routes for classifiers, as TEI 1.9 has them (router/src/http): predict, rerank and info.

In: a text in the chat template's form, a pair of question and answer, or a batch of both; a query and texts.
Out: `[{score, label}]`, `[{index, score}]` by falling score.  Cost: the service's.

`["a", "b"]` is a pair; a batch is `[["a"], ["b"]]`. The number is the score itself; only where a client sends `raw_scores: false`
is it the sigmoid of the score, which TEI gives by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from armorm import __version__
from armorm.errors import ConversationError
from armorm.model.templated import Templated
from armorm.scoring.score import Score
from armorm.serving.reading import Listed
from armorm.serving.service import Service, limits_of
from armorm.serving.wire.refusing import NO_INPUT, UNFIT, Refusal, refusing_router
from armorm.serving.wire.scoring import ProfileName, read_each, require_whole, score_all
from armorm.serving.wire.vllm import LABEL, conversation_of

Entry = Listed[StrictStr]
"""A text, or a question and its answer."""
_ERRORS = {400: "Empty", UNFIT: "Validation", 413: "Validation", 415: "Validation", 429: "Overloaded", 503: "Unhealthy"}
_BACKEND = 424


class Settings(BaseModel):
    """What both requests have. The oldest part of a conversation is cut, whatever `truncation_direction` says."""

    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    raw_scores: bool | None = None


class PredictRequest(Settings):
    """A text, a pair, or a batch of lists of one or two texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": [["What is 12 · 12?", "144."]], "raw_scores": True}]})

    inputs: StrictStr | Entry | Listed[Entry] = Field(min_length=1)


class RerankRequest(Settings):
    """A query and texts that answer it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "What is 12 · 12?", "texts": ["144.", "124."], "raw_scores": True}]}
    )

    query: str
    texts: Listed[StrictStr]
    return_text: bool = False


class Prediction(BaseModel):
    """A score under the model's one label."""

    score: float
    label: str


class Rank(BaseModel):
    """A text's place among those that were sent, its score, and itself where that was asked for."""

    index: int
    text: str | None = None
    score: float


class TeiError(BaseModel):
    """An error of TEI's."""

    error: str
    error_type: str


def tei_form(refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    """TEI's errors; those of the model or of time are the backend's."""
    kind = "Empty" if refusal.kind == NO_INPUT else _ERRORS.get(refusal.status, "Backend")
    status = 400 if kind == "Empty" else refusal.status if refusal.status in _ERRORS else _BACKEND
    return status, {"error": refusal.message, "error_type": kind}


def router(service: Service) -> APIRouter:
    """The routes `/predict` and `/info`; `/rerank` stands in `shared`."""
    routes = refusing_router(tei_form, tag="Text Embeddings Inference", told=TeiError)
    templated = Templated(service.renderer)

    @routes.post("/predict", response_model=list[Prediction] | list[list[Prediction]])
    async def predict(body: PredictRequest, profile: ProfileName = None) -> Any:
        entries, single = entries_of(body.inputs)
        conversations = await read_each(service, partial(_conversation, templated), entries)
        scores = await _scored(service, conversations, body, profile)
        found = [[{"score": activation_of(body)(score.score), "label": LABEL}] for score in scores]
        return found[0] if single else found

    @routes.get("/info")
    async def info() -> dict[str, Any]:
        return info_of(service)

    return routes


async def ranked(service: Service, body: RerankRequest, profile: str | None) -> list[dict[str, Any]]:
    """The reply of `/rerank`: texts by falling score; ties in the order in which they came."""
    if not body.texts:
        raise ConversationError("no-input: `texts` cannot be empty", fault=NO_INPUT)
    conversations = await read_each(service, partial(conversation_of, body.query), body.texts)
    scores = await _scored(service, conversations, body, profile)
    numbers = list(map(activation_of(body), (score.score for score in scores)))
    order = sorted(range(len(scores)), key=lambda i: -scores[i].score)
    texts = [{"text": text} if body.return_text else {} for text in body.texts]
    return [{"index": i, **texts[i], "score": numbers[i]} for i in order]


def entries_of(inputs: str | Sequence[Any]) -> tuple[list[Entry], bool]:
    """Texts and pairs, and whether it is one alone. Raises ConversationError for an entry of another length."""
    single = isinstance(inputs, str) or isinstance(inputs[0], str)
    entries = [[inputs]] if isinstance(inputs, str) else [list(inputs)] if single else [list(one) for one in inputs]
    if wrong := [len(entry) for entry in entries if len(entry) not in (1, 2)]:
        raise ConversationError(
            f"no-pair: {wrong[0]} texts in one entry: send one text, a pair of question and answer, or a batch of such lists",
            fault="no-pair",
        )
    return entries, single


def activation_of(body: Settings) -> Callable[[float], float]:
    """What the client asked to be done with a score: nothing, or a sigmoid."""
    return _sigmoid if body.raw_scores is False else float


def info_of(service: Service) -> dict[str, Any]:
    """What `/info` tells: a ranker of one label, and the service's limits."""
    limits = limits_of(service)
    return {
        "model_id": service.name,
        "model_sha": None,
        "model_dtype": "unknown",
        "served_model_name": service.name,
        "model_type": {"reranker": {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}},
        "max_concurrent_requests": limits.queue_requests,
        "max_input_length": service.renderer.max_tokens,
        "max_batch_tokens": limits.queue_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.answers,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


async def _scored(service: Service, conversations: Sequence[Any], body: Settings, profile: str | None) -> list[Score]:
    scores = await score_all(service, conversations, profile=profile)
    return require_whole(service, scores, "send truncate: true") if body.truncate is False else scores


def _conversation(templated: Templated, entry: Entry) -> Any:
    return templated.searched(entry[0]) if len(entry) == 1 else conversation_of(*entry)


def _sigmoid(score: float) -> float:
    if score < 0:
        return math.exp(max(score, -700.0)) / (1.0 + math.exp(max(score, -700.0)))
    return 1.0 / (1.0 + math.exp(-score))

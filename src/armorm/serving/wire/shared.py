"""Routes of which two protocols have the same path: `/classify` (vLLM, SGLang) and `/rerank` (vLLM, TEI).

In: a body; whose it is, its keys say.  Out: that protocol's reply, and its errors.

`input` or `messages` are vLLM's, `text` or `input_ids` SGLang's; `documents` are vLLM's, `texts` TEI's. A body with neither, or
with both, is refused with status 422.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import Discriminator, Tag

from armorm.model.templated import Templated
from armorm.serving.service import Service
from armorm.serving.wire import sglang, tei, vllm
from armorm.serving.wire.refusing import Detail, Form, Refusal, detail_form, in_form, refusing_router
from armorm.serving.wire.scoring import ProfileName

VLLM, SGLANG, TEI = "vLLM", "SGLang", "TEI"
FORMS: Mapping[str, Form] = {VLLM: vllm.vllm_form, SGLANG: sglang.native_form, TEI: tei.tei_form}


def told_by(**keys: tuple[str, ...]) -> Callable[[Any], str | None]:
    """Whose a body is, by the keys that only it has; None where none of them, or keys of several, are there."""

    def family(body: Any) -> str | None:
        if not isinstance(body, dict):
            return FAMILY_OF.get(type(body))
        found = [name for name, own in keys.items() if any(key in body for key in own)]
        return found[0] if len(found) == 1 else None

    return family


FAMILY_OF: Mapping[type, str] = {
    vllm.ClassifyRequest: VLLM,
    sglang.NativeRequest: SGLANG,
    vllm.RerankRequest: VLLM,
    tei.RerankRequest: TEI,
}
_CLASSIFY = Discriminator(
    told_by(vLLM=("input", "messages"), SGLang=("text", "input_ids")),
    custom_error_type="whose",
    custom_error_message="send input or messages (as vLLM's clients do), or text or input_ids (as SGLang's do), and not both",
)
_RERANK = Discriminator(
    told_by(vLLM=("documents",), TEI=("texts",)),
    custom_error_type="whose",
    custom_error_message="send a query with documents (as vLLM's clients do), or with texts (as TEI's do), and not both",
)
Classify = Annotated[Annotated[vllm.ClassifyRequest, Tag(VLLM)] | Annotated[sglang.NativeRequest, Tag(SGLANG)], _CLASSIFY]
Rerank = Annotated[Annotated[vllm.RerankRequest, Tag(VLLM)] | Annotated[tei.RerankRequest, Tag(TEI)], _RERANK]


Told = Detail | vllm.VllmError | sglang.NativeError | tei.TeiError
Classified = vllm.ClassifyReply | sglang.Vector | list[sglang.Vector]
Ranked = vllm.RerankReply | list[tei.Rank]


def form_of_family(refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    """The form of the protocol that a body was of."""
    return FORMS.get(refusal.family, detail_form)(refusal)


def router(service: Service) -> APIRouter:
    """The routes `/classify` and `/rerank`."""
    routes = refusing_router(form_of_family, tag="vLLM, SGLang, TEI", told=Told, families=("", *FORMS))
    templated = Templated(service.renderer)

    @routes.post("/classify", response_model=Classified)
    async def classify(body: Annotated[Classify, Body()], profile: ProfileName = None) -> Any:
        if isinstance(body, vllm.ClassifyRequest):
            return await in_form(vllm.classified(service, templated, body, profile), vllm.vllm_form)
        return await in_form(sglang.classified(service, templated, body, profile), sglang.native_form)

    @routes.post("/rerank", response_model=Ranked, response_model_exclude_unset=True)
    async def rerank(body: Annotated[Rerank, Body()], profile: ProfileName = None) -> Any:
        if isinstance(body, vllm.RerankRequest):
            return await in_form(vllm.ranked(service, body, profile), vllm.vllm_form)
        return await in_form(tei.ranked(service, body, profile), tei.tei_form)

    return routes

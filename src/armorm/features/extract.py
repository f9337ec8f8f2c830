"""Conversations → features: one pass of the frozen decoder, every layer and pooling that is wanted.

In: conversations, a backbone, a renderer, the parts wanted.  Out: `Features`: per part [n d], for answers and prompts.
Cost: one forward pass per distinct prompt and answer. Right padding needs no mask (a causal decoder's tokens never see what
follows); shared prompts are padded on the left, and their keys and values serve all their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from armorm.conversation import Conversation, Rendered, Renderer
from armorm.errors import BackboneError, RecipeError
from armorm.features.backbone import Backbone, blocks_of
from armorm.features.packing import Batch, Entry, pack, split_answers
from armorm.features.spec import FINAL, FeatureSpec, Part, Pooling

States = Mapping[str, Float[Tensor, "b t d"]]
Live = Mapping[str, Tensor]
"""`States` that change while they are held: each forward pass replaces them."""


@dataclass(frozen=True)
class Features:
    """Features of n conversations, float32, in the order they came in.

    `response` and `prompt` hold one array [n d] per part ("18:mean"); token counts are those of the rendered segments
    (`response_tokens`: the answer's own). `truncated` marks rows that lost turns or tokens; `computed_tokens` is what the
    decoder ran over, shared prompts counted once.
    """

    response: Mapping[str, Float[np.ndarray, "n d"]]
    prompt: Mapping[str, Float[np.ndarray, "n d"]]
    response_tokens: Int[np.ndarray, " n"]
    prompt_tokens: Int[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]
    computed_tokens: int

    def __len__(self) -> int:
        return len(self.response_tokens)


def join_parts(by_part: Mapping[str, Float[np.ndarray, "n d"]], spec: FeatureSpec) -> Float[np.ndarray, "n w"]:
    """A spec's feature: its parts side by side, w = number of parts · d, in the type they come in."""
    return np.concatenate([by_part[str(p)] for p in spec.parts], axis=1)


@torch.inference_mode()
def extract(
    conversations: Sequence[Conversation],
    backbone: Backbone,
    renderer: Renderer,
    *,
    response: Sequence[Part],
    prompt: Sequence[Part],
    batch_tokens: int = 4096,
    on_tokens: Callable[[int], None] | None = None,
) -> Features:
    """Features of the conversations.

    `batch_tokens` bounds the padded tokens of a batch; the result does not depend on it (nor on order or padding) beyond
    rounding. `on_tokens` is told the tokens of each finished batch. Raises ConversationError for a row that is no
    conversation, BackboneError for a layer that is not there or for features that are not finite, RecipeError for a response
    pooled at `turn`.
    """
    backbone.check([*response, *prompt])
    if wrong := [str(p) for p in response if p.pooling is Pooling.TURN]:
        raise RecipeError(f"{', '.join(wrong)}: only a prompt ends with its turn; pool answers with last, closing or mean")
    rendered = [renderer.render(c) for c in conversations]
    n, d = len(rendered), backbone.width
    answers = {str(p): np.empty((n, d), dtype=np.float32) for p in response}
    prompts = {str(p): np.empty((n, d), dtype=np.float32) for p in prompt}
    total = 0
    header = len(renderer.header_ids) if any(p.pooling is Pooling.TURN for p in prompt) else 1
    with collected(backbone, {p.layer for p in (*response, *prompt)}) as states:
        for batch in pack(rendered, batch_tokens=batch_tokens, share=backbone.shares_prefix):
            run = _run_shared if batch.shared else _run_plain
            run(batch, backbone, states, answers, prompts, header, batch_tokens)
            total += batch.tokens
            if on_tokens:
                on_tokens(batch.tokens)
    _check_finite({**answers, **prompts}, backbone)
    return Features(
        response=answers,
        prompt=prompts,
        response_tokens=np.array([len(r.answer) for r in rendered], dtype=np.int64),
        prompt_tokens=np.array([len(r.prompt) for r in rendered], dtype=np.int64),
        truncated=np.array([r.truncated for r in rendered], dtype=np.bool_),
        computed_tokens=total,
    )


def pool(
    states: States,
    parts: Iterable[Part],
    start: Int[Tensor, " b"],
    answer: Int[Tensor, " b"],
    end: Int[Tensor, " b"],
    *,
    header: int = 1,
) -> dict[str, Float[Tensor, "b d"]]:
    """Pool hidden states over the tokens [start, end) of each row, whose first `answer` tokens are the text itself.

    `mean` averages the text's tokens in float32; `closing` is the token right behind them (the last one where nothing
    follows); `last` is token end − 1; `turn` the first of the `header` tokens that [start, end) ends with (of a prompt).
    """
    pooled = {}
    for part in parts:
        h = states[part.layer]
        rows = torch.arange(h.shape[0], device=h.device)
        if part.pooling is Pooling.MEAN:
            t = torch.arange(h.shape[1], device=h.device)
            inside = (t >= start[:, None]) & (t < (start + answer)[:, None])
            total = torch.einsum("btd,bt->bd", h.float(), inside.float())
            pooled[str(part)] = total / answer[:, None].clamp_min(1)
        elif part.pooling is Pooling.CLOSING:
            pooled[str(part)] = h[rows, torch.minimum(start + answer, end - 1)].float()
        elif part.pooling is Pooling.TURN:
            pooled[str(part)] = h[rows, torch.maximum(start, end - max(header, 1))].float()
        else:
            pooled[str(part)] = h[rows, end - 1].float()
    return pooled


Arrays = dict[str, Float[np.ndarray, "n d"]]


def _run_plain(batch: Batch, backbone: Backbone, states: Live, answers: Arrays, prompts: Arrays, header: int, _: int) -> None:
    entries = [g[0] for g in batch.groups]
    backbone.model(input_ids=_right_padded([e.rendered.ids for e in entries], backbone), use_cache=False)
    lengths = _lengths([e.rendered for e in entries], backbone.device)
    zero = torch.zeros_like(lengths.prompt)
    _keep(prompts, entries, pool(states, _parts(prompts), zero, lengths.prompt, lengths.prompt, header=header))
    _keep(answers, entries, pool(states, _parts(answers), lengths.prompt, lengths.answer, lengths.total))


def _run_shared(
    batch: Batch, backbone: Backbone, states: Live, answers: Arrays, prompts: Arrays, header: int, budget: int
) -> None:
    firsts = [g[0].rendered for g in batch.groups]
    ids, mask = _left_padded([r.prompt for r in firsts], backbone)
    width = ids.shape[1]
    cache = DynamicCache()
    backbone.model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), past_key_values=cache, use_cache=True)
    sizes = mask.sum(dim=1)
    whole = torch.full_like(sizes, width)
    pooled = pool(states, _parts(prompts), whole - sizes, sizes, whole, header=header)
    for i, group in enumerate(batch.groups):
        _keep(prompts, group, {k: v[[i] * len(group)] for k, v in pooled.items()})
    keys_values = [(layer.keys, layer.values) for layer in cache.layers]
    for chunk in split_answers(batch, batch_tokens=budget):
        which = torch.tensor([i for i, _ in chunk], device=ids.device)
        entries = [e for _, e in chunk]
        lengths = _lengths([e.rendered for e in entries], ids.device)
        tails = _right_padded([e.rendered.answer + e.rendered.closing for e in entries], backbone)
        t = torch.arange(tails.shape[1], device=ids.device)
        tail_mask = (t < (lengths.total - lengths.prompt)[:, None]).long()
        whole_mask = torch.cat([mask[which], tail_mask], dim=1)
        backbone.model(
            input_ids=tails,
            attention_mask=whole_mask,
            position_ids=_positions(whole_mask)[:, width:],
            past_key_values=DynamicCache([(k[which], v[which]) for k, v in keys_values]),
            use_cache=True,
        )
        zero = torch.zeros_like(lengths.answer)
        _keep(answers, entries, pool(states, _parts(answers), zero, lengths.answer, lengths.total - lengths.prompt))


@dataclass(frozen=True, slots=True)
class _Lengths:
    prompt: Int[Tensor, " b"]
    answer: Int[Tensor, " b"]
    total: Int[Tensor, " b"]


def _lengths(rendered: Sequence[Rendered], device: torch.device) -> _Lengths:
    def counts(values: Iterable[int]) -> Int[Tensor, " b"]:
        return torch.tensor(list(values), dtype=torch.long, device=device)

    return _Lengths(
        counts(len(r.prompt) for r in rendered),
        counts(len(r.answer) for r in rendered),
        counts(len(r) for r in rendered),
    )


def _right_padded(rows: Sequence[tuple[int, ...]], backbone: Backbone) -> Int[Tensor, "b t"]:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids.to(backbone.device)


def _left_padded(rows: Sequence[tuple[int, ...]], backbone: Backbone) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(backbone.device), mask.to(backbone.device)


def _positions(mask: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    return (mask.cumsum(dim=1) - 1).clamp_min(0)


def _parts(arrays: Mapping[str, Any]) -> list[Part]:
    return [part for text in arrays for part in FeatureSpec.parse(text).parts]


def _keep(into: Arrays, entries: Sequence[Entry], pooled: Mapping[str, Float[Tensor, "b d"]]) -> None:
    for part, values in pooled.items():
        array = values.cpu().numpy()
        for i, entry in enumerate(entries):
            into[part][list(entry.rows)] = array[i]


@contextmanager
def collected(backbone: Backbone, layers: set[str]) -> Any:
    """While open, each forward pass leaves the hidden states of the named layers in the dict it yields."""
    states: dict[str, Tensor] = {}

    def keep(layer: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            states[layer] = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)

        return hook

    blocks = blocks_of(backbone.model)
    handles = [
        (backbone.model if layer == FINAL else blocks[int(layer) - 1]).register_forward_hook(keep(layer)) for layer in layers
    ]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _check_finite(arrays: Arrays, backbone: Backbone) -> None:
    for part, values in arrays.items():
        if bad := int((~np.isfinite(values)).any(axis=1).sum()):
            raise BackboneError(
                f"{backbone.name}: {bad} of {len(values)} features at {part} are not finite; "
                "use `backbone.dtype: bfloat16` or float32 (float16 overflows in some models)"
            )

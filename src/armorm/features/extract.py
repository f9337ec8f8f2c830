"""Conversations → features: one pass of the frozen decoder, every layer and pooling that is wanted.

In: conversations, a backbone, a renderer, the parts wanted.  Out: `Features`: per part [n d], for answers and prompts.
Cost: one pass of the decoder over the distinct tokens, each of which is read behind all that stands before it; no padding.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from armorm.conversation import Conversation
from armorm.errors import BackboneError, RecipeError
from armorm.features.backbone import Backbone
from armorm.features.forward import SharedPrompts, Stretch, prompts_and_answers, reading_of, run_whole
from armorm.features.packed import packs, run_tree
from armorm.features.packing import Batch, Entry, fill, pack, split_answers
from armorm.features.prefixes import Path, part_of, place_of, plant
from armorm.features.spec import Part, Pooling
from armorm.rendering import Rendered, Renderer


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


@dataclass(frozen=True)
class Pooled:
    """Features of the rows that one decoder batch held: `response` and `prompt` [b d] by part, `rows` their b row numbers.

    `tokens` is what the decoder ran over for them, shared prompts counted once.
    """

    rows: tuple[int, ...]
    response: Mapping[str, Float[Tensor, "b d"]]
    prompt: Mapping[str, Float[Tensor, "b d"]]
    tokens: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What every batch of a stream is asked for."""

    response: tuple[Part, ...]
    prompt: tuple[Part, ...]
    header: int
    batch_tokens: int

    @property
    def layers(self) -> set[str]:
        return {p.layer for p in (*self.response, *self.prompt)}


@runtime_checkable
class Streaming(Protocol):
    """A decoder in another engine's hands, which reads whole conversations and pools their states itself."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    def check(self, parts: Iterable[Part]) -> None: ...

    def stream(self, rendered: Sequence[Rendered], wanted: Wanted) -> Iterator[Pooled]: ...


def extract(
    conversations: Sequence[Conversation],
    backbone: Backbone | Streaming,
    renderer: Renderer,
    *,
    response: Sequence[Part],
    prompt: Sequence[Part],
    batch_tokens: int = 4096,
    on_tokens: Callable[[int], None] | None = None,
) -> Features:
    """Features of the conversations.

    `batch_tokens` bounds the tokens of a batch (of decoders that can't be packed, the padded ones); the result does not depend
    on it (nor on order or padding) beyond rounding. `on_tokens` is told the tokens of each finished batch. Raises
    ConversationError for a row that is no conversation, and what `stream_features` raises.
    """
    rendered = [renderer.render(c) for c in conversations]
    n, d = len(rendered), backbone.width
    answers = {str(p): np.empty((n, d), dtype=np.float32) for p in response}
    prompts = {str(p): np.empty((n, d), dtype=np.float32) for p in prompt}
    header = len(renderer.header_ids) if any(p.pooling is Pooling.TURN for p in prompt) else 1
    total = 0
    for pooled in stream_features(rendered, backbone, response=response, prompt=prompt, header=header, batch_tokens=batch_tokens):
        for arrays, found in ((answers, pooled.response), (prompts, pooled.prompt)):
            for part, values in found.items():
                arrays[part][list(pooled.rows)] = values.cpu().numpy()
        total += pooled.tokens
        if on_tokens:
            on_tokens(pooled.tokens)
    return Features(
        response=answers,
        prompt=prompts,
        response_tokens=np.array([len(r.answer) for r in rendered], dtype=np.int64),
        prompt_tokens=np.array([len(r.prompt) for r in rendered], dtype=np.int64),
        truncated=np.array([r.truncated for r in rendered], dtype=np.bool_),
        computed_tokens=total,
    )


@torch.inference_mode()
def stream_features(
    rendered: Sequence[Rendered],
    backbone: Backbone | Streaming,
    *,
    response: Sequence[Part],
    prompt: Sequence[Part],
    header: int = 1,
    batch_tokens: int = 4096,
    share: bool = True,
) -> Iterator[Pooled]:
    """Features batch by batch, each row once, whatever order is best for the decoder. Safe to run in several threads at once.

    `header` is the number of tokens with which the template closes a prompt (`Renderer.header_ids`), for prompts pooled at
    `turn`; `share` lets answers to one prompt share its keys and values, where the decoder can. Raises BackboneError for a layer
    that is not there, for a decoder that is not causal or for features that are not finite, RecipeError for a response pooled at
    `turn`.
    """
    backbone.check([*response, *prompt])
    if wrong := [str(p) for p in response if p.pooling is Pooling.TURN]:
        raise RecipeError(f"{', '.join(wrong)}: only a prompt ends with its turn; pool answers with last, closing or mean")
    wanted = Wanted(tuple(response), tuple(prompt), header, batch_tokens)
    if isinstance(backbone, Streaming):
        for pooled in backbone.stream(rendered, wanted):
            _check_finite(backbone.name, pooled.response, pooled.prompt, [(row,) for row in pooled.rows])
            yield pooled
        return
    yield from (_packed if packs(backbone) else _padded)(rendered, backbone, wanted, share)


def pool(stretch: Stretch, parts: Iterable[Part], *, header: int = 1) -> dict[str, Float[Tensor, "b d"]]:
    """Pool the states of a stretch.

    `mean` averages the text's tokens in float32; `closing` is the token right behind them (the last one where nothing
    follows); `last` is the stretch's last token; `turn` the first of the `header` tokens that it ends with (of a prompt).
    """
    pooled = {}
    for part in parts:
        states = stretch.states[part.layer]
        if part.pooling is Pooling.MEAN:
            pooled[str(part)] = _means(states, stretch)
            continue
        of_rows = zip(stretch.paths, stretch.start, stretch.text, stretch.end, strict=True)
        if part.pooling is Pooling.CLOSING:
            at = [place_of(path, min(start + text, end - 1)) for path, start, text, end in of_rows]
        elif part.pooling is Pooling.TURN:
            at = [place_of(path, max(start, end - max(header, 1))) for path, start, _, end in of_rows]
        else:
            at = [place_of(path, end - 1) for path, _, _, end in of_rows]
        pooled[str(part)] = states[torch.tensor(at, device=states.device)].float()
    return pooled


def _means(states: Float[Tensor, "t d"], stretch: Stretch) -> Float[Tensor, "b d"]:
    texts = [part_of(p, s, s + text) for p, s, text in zip(stretch.paths, stretch.start, stretch.text, strict=True)]
    sums = {pieces: _sum(states, pieces) for pieces in set(texts)}  # a prompt that several answers share is added up once
    found = torch.stack([sums[pieces] for pieces in texts])
    return found / torch.tensor(stretch.text, device=states.device)[:, None].clamp_min(1)


def _sum(states: Float[Tensor, "t d"], pieces: Path) -> Float[Tensor, " d"]:
    total = states.new_zeros(states.shape[1], dtype=torch.float32)
    for piece in pieces:
        total += states[piece.start : piece.stop].sum(dim=0, dtype=torch.float32)
    return total


def _packed(rendered: Sequence[Rendered], backbone: Backbone, wanted: Wanted, share: bool) -> Iterator[Pooled]:
    limits = backbone.limits
    for rows in _grouped(rendered, lambda r: bisect_left(limits, len(r))).values():
        for batch in fill([rendered[i] for i in rows], batch_tokens=wanted.batch_tokens, share=share):
            entries = _numbered(batch, rows)
            tree = plant([e.rendered.ids for e in entries], share=share)
            states = run_tree(tree, backbone, wanted.layers)
            read = prompts_and_answers(states, tree.paths, [e.rendered for e in entries])
            yield _whole(entries, read, backbone, wanted, len(tree.ids))


def _padded(rendered: Sequence[Rendered], backbone: Backbone, wanted: Wanted, share: bool) -> Iterator[Pooled]:
    # A long conversation's prompt may be short by itself; behind a prompt without answer and closing there is nothing to read.
    limits, reading = backbone.limits, reading_of(backbone)
    most = wanted.batch_tokens if reading.together else 1
    groups = _grouped(rendered, lambda r: (bisect_left(limits, len(r)), len(r) > len(r.prompt)))
    for (long, more), rows in groups.items():
        texts = [rendered[i] for i in rows]
        for batch in pack(texts, batch_tokens=most, share=share and reading.shared and more and not long):
            parts = tuple(_numbered(group, rows) for group in batch.groups)
            if batch.shared:
                yield from _shared(replace(batch, groups=parts), backbone, wanted)
                continue
            entries = [group[0] for group in parts]
            read = run_whole([e.rendered for e in entries], backbone, wanted.layers)
            yield _whole(entries, read, backbone, wanted, batch.tokens)


def _grouped(rendered: Sequence[Rendered], key: Callable[[Rendered], Any]) -> dict[Any, list[int]]:
    # The numbers of the rows that may be read together.
    groups: dict[Any, list[int]] = {}
    for row, one in enumerate(rendered):
        groups.setdefault(key(one), []).append(row)
    return groups


def _numbered(entries: Sequence[Entry], rows: Sequence[int]) -> tuple[Entry, ...]:
    # Entries of some rows, by the numbers that these have among all.
    return tuple(replace(entry, rows=tuple(rows[i] for i in entry.rows)) for entry in entries)


def _whole(entries: Sequence[Entry], read: tuple[Stretch, Stretch], backbone: Backbone, wanted: Wanted, tokens: int) -> Pooled:
    prompts, answers = pool(read[0], wanted.prompt, header=wanted.header), pool(read[1], wanted.response)
    return _pooled(entries, answers, prompts, tokens, backbone)


def _shared(batch: Batch, backbone: Backbone, wanted: Wanted) -> Iterator[Pooled]:
    shared = SharedPrompts([group[0].rendered.prompt for group in batch.groups], backbone, wanted.layers)
    prompts = pool(shared.stretch, wanted.prompt, header=wanted.header)
    tokens = sum(len(group[0].rendered.prompt) for group in batch.groups)
    for chunk in split_answers(batch, batch_tokens=wanted.batch_tokens):
        which, entries = [i for i, _ in chunk], [e for _, e in chunk]
        answers = pool(shared.run_answers([e.rendered for e in entries], which), wanted.response)
        tokens += sum(len(e.rendered.answer) + len(e.rendered.closing) for e in entries)
        yield _pooled(entries, answers, {part: values[which] for part, values in prompts.items()}, tokens, backbone)
        tokens = 0


def _pooled(
    entries: Sequence[Entry],
    response: Mapping[str, Float[Tensor, "e d"]],
    prompt: Mapping[str, Float[Tensor, "e d"]],
    tokens: int,
    backbone: Backbone,
) -> Pooled:
    """One row per row that holds an entry."""
    _check_finite(backbone.name, response, prompt, [entry.rows for entry in entries])
    where = [i for i, entry in enumerate(entries) for _ in entry.rows]
    sides = [{part: values[where] for part, values in side.items()} for side in (response, prompt)]
    return Pooled(tuple(row for entry in entries for row in entry.rows), sides[0], sides[1], tokens)


def _check_finite(
    name: str,
    response: Mapping[str, Float[Tensor, "e d"]],
    prompt: Mapping[str, Float[Tensor, "e d"]],
    rows_of: Sequence[Sequence[int]],
) -> None:
    for part, values in (*response.items(), *prompt.items()):
        if bad := (~torch.isfinite(values)).any(dim=1).nonzero().flatten().tolist():
            rows = sorted(row for i in bad for row in rows_of[i])
            raise BackboneError(
                f"{name}: features of rows {rows} (counted from 0) at {part} are not finite; "
                "use `backbone.dtype: bfloat16` or float32 (float16 overflows in some models)"
            )

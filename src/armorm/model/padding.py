"""Which tokens of a padded batch are the rows' own.

In: ids [b t], with an attention mask or without.  Out: each row's tokens, or BackboneError naming the rows that can't be told.
Cost: a comparison per token.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from armorm.conversation import kind_of
from armorm.errors import BackboneError
from armorm.model.config import RewardModelConfig
from armorm.rendering import Ids, Rendered


def check_ids(ids: Any) -> None:
    """Raises BackboneError for anything but integers [b t] of at least one row."""
    wanted = "give a tensor of integers with a row for each conversation, as a tokenizer with return_tensors='pt' makes it"
    if not isinstance(ids, Tensor):
        raise BackboneError(f"input_ids is {kind_of(ids)}: {wanted}")
    if ids.ndim != 2 or not len(ids):
        raise BackboneError(f"input_ids has shape {tuple(ids.shape)}: {wanted}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise BackboneError(f"input_ids holds {ids.dtype}: {wanted}")


class LongRow(UserWarning):
    """Rows of token ids that are longer than what `score` would read of them."""


def check_lengths(rows: Sequence[Rendered], config: RewardModelConfig) -> None:
    """Warns of rows that `score` would have cut. Raises BackboneError for those longer than the decoder has positions."""
    lengths, positions = [len(row) for row in rows], config.backbone_config.get("max_position_embeddings")
    if positions is not None:
        refuse([n > positions for n in lengths], f"pass the decoder's {positions:,} positions: leave out their oldest turns")
    if long := [i for i, n in enumerate(lengths) if n > config.max_tokens]:
        told = f"rows {long} have more than {config.max_tokens:,} tokens: score() would leave out oldest turns, for another score"
        warnings.warn(told, LongRow, stacklevel=3)


def own_tokens(ids: Int[Tensor, "b t"], config: RewardModelConfig, mask: Tensor | None = None) -> list[Ids]:
    """Each row without its padding, which stands at its ends.

    Raises BackboneError for a mask of another shape, with other numbers than 0 and 1, with holes or with nothing in a row; and,
    without a mask, where tokens at a row's end may be padding or text.
    """
    real = _without_mask(ids, config) if mask is None else _checked(mask, ids)
    refuse(~real.any(dim=1), "hold padding alone: leave them out")
    return [tuple(row[own].tolist()) for row, own in zip(ids, real, strict=True)]


def refuse(rows: Bool[Tensor, " b"] | Sequence[bool], what: str) -> None:
    """Raises BackboneError that names the rows, if there are any."""
    if wrong := [i for i, bad in enumerate(rows) if bad]:
        raise BackboneError(f"rows {wrong} {what}")


def ends_of(config: RewardModelConfig) -> frozenset[int]:
    """The tokens with which the decoder ends a text."""
    eos = config.backbone_config.get("eos_token_id")
    return frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])


def ends_with(row: Ids, part: Ids) -> bool:
    """Whether a row ends with these tokens; with none of them, it does not."""
    return bool(part) and row[-len(part) :] == part


def _checked(mask: Tensor, ids: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    if mask.shape != ids.shape:
        raise BackboneError(
            f"attention_mask has shape {tuple(mask.shape)}, input_ids has {tuple(ids.shape)}: give 1 for each token that is read "
            "and 0 for each that is padding"
        )
    real = mask.to(ids.device) != 0
    refuse((real & (mask.to(ids.device) != 1)).any(dim=1), "have numbers other than 0 and 1 in attention_mask")
    starts = real & ~torch.nn.functional.pad(real, (1, 0))[:, :-1]
    refuse(starts.sum(dim=1) > 1, "have holes in attention_mask: padding may stand at a row's ends only")
    return real


def _without_mask(ids: Int[Tensor, "b t"], config: RewardModelConfig) -> Bool[Tensor, "b t"]:
    pad = config.pad_token_id
    if pad is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if pad not in _in_texts(config):
        real = (ids != pad).long()
        return (real.cumsum(dim=1) > 0) & (real.flip(1).cumsum(dim=1).flip(1) > 0)
    refuse(
        [not _is_whole(tuple(row), pad, config) for row in ids.tolist()],
        f"start or end with the token {pad}, which is both padding and a part of texts: give attention_mask",
    )
    return torch.ones_like(ids, dtype=torch.bool)


def _in_texts(config: RewardModelConfig) -> set[int | None]:
    # A padding token that texts hold too (the end of a turn, BOS, EOS) says nothing about where a row ends.
    questions = (token for question in config.question_ids for token in question)
    return {*config.closing_ids, *config.header_ids, *questions, config.backbone_config.get("bos_token_id"), *ends_of(config)}


def _is_whole(row: Ids, pad: int, config: RewardModelConfig) -> bool:
    """Whether the padding tokens at a row's ends are what a text without padding has there: one to begin with, the closing."""
    beginnings = (config.backbone_config.get("bos_token_id"), *(question[0] for question in config.question_ids))
    if _run(row, pad) > (pad in beginnings):
        return False
    closing, tail = tuple(config.closing_ids), _run(row[::-1], pad)
    part = next((closing[:n] for n in range(len(closing), 0, -1) if ends_with(row, closing[:n])), ())
    closed_before = ends_with(row[: len(row) - len(part)], closing)
    return tail == 0 or (tail <= _run(part[::-1], pad) and not closed_before)


def _run(row: Ids, token: int) -> int:
    # How many of them the row starts with.
    return next((i for i, other in enumerate(row) if other != token), len(row))

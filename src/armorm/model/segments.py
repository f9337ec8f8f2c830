"""Where prompt and answer stand in bare token ids, which come padded and without their conversation.

In: ids [b t], a model's config, its tokenizer if there is one.  Out: `Segments`: the rows as `score` renders them, and which of
them have no answer or one whose place can't be told.  Cost: a search for the header's tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from armorm.errors import BackboneError
from armorm.model.config import RewardModelConfig
from armorm.model.marks import Marks
from armorm.model.padding import ends_with, own_tokens, refuse
from armorm.rendering import Ids, Rendered

LENGTHS = "give prompt_lengths, the number of tokens of each prompt"


class UnclearAnswer(UserWarning):
    """Rows whose answer has no certain place in their token ids; their score is NaN."""


@dataclass(frozen=True)
class Segments:
    """Rows of token ids as prompt, answer and closing; the numbers of those that are `empty`, and of those that are `unclear`."""

    rows: Sequence[Rendered]
    empty: Sequence[int]
    unclear: Sequence[int]

    def judged(self, scores: Float[Tensor, " b"], empty_score: float | None) -> Float[Tensor, " b"]:
        """The scores, with `empty_score` (if there is one) for rows without an answer and NaN for those that are unclear."""
        empty = {} if empty_score is None else dict.fromkeys(self.empty, empty_score)
        instead = empty | dict.fromkeys(self.unclear, torch.nan)
        if not instead:
            return scores
        judged = scores.clone()
        judged[list(instead)] = torch.tensor(list(instead.values()), dtype=scores.dtype, device=scores.device)
        return judged


def find_segments(
    ids: Int[Tensor, "b t"],
    config: RewardModelConfig,
    *,
    tokenizer: Any = None,
    mask: Tensor | None = None,
    prompt_lengths: Tensor | None = None,
) -> Segments:
    """Find them: by `prompt_lengths`, and without these by the last answer header.

    Where a header's last tokens have joined the answer's first ones, or special tokens of the chat stand in an answer, the
    answer is read anew from its text, as `score` does; without a tokenizer, joined headers are refused. Given lengths leave all
    tokens as they are. Warns of UnclearAnswer. Raises BackboneError naming rows without a header, with lengths that don't fit, or
    whose padding can't be told.
    """
    rows, marks = own_tokens(ids, config, mask), Marks(config, tokenizer)
    if prompt_lengths is None:
        found, unclear = _searched(rows, marks)
    else:
        found, unclear = _given(rows, prompt_lengths, marks), []
    return Segments(found, [i for i, row in enumerate(found) if marks.says_nothing(row.answer)], unclear)


def _searched(rows: list[Ids], marks: Marks) -> tuple[list[Rendered], list[int]]:
    if not marks.header:
        raise BackboneError(f"the answer's place is not known: {LENGTHS}")
    openings = [marks.openings(row) for row in rows]
    refuse([not found for found in openings], f"hold no answer header: {LENGTHS}")
    if marks.tokenizer is None:
        joined = [not found[-1].whole for found in openings]
        refuse(joined, f"hold an answer whose start has joined its header's last token: {LENGTHS}, or add the tokenizer's files")
    unclear = [i for i, (row, found) in enumerate(zip(rows, openings, strict=True)) if marks.is_unclear(row, found)]
    if unclear:
        warnings.warn(
            f"rows {unclear} imitate the chat in their answer, or hold several answers of which any may be meant: their score is "
            f"NaN; {LENGTHS}",
            UnclearAnswer,
            stacklevel=2,
        )
    return [marks.cut(row, found[-1]) for row, found in zip(rows, openings, strict=True)], unclear


def _given(rows: list[Ids], prompt_lengths: Tensor, marks: Marks) -> list[Rendered]:
    if prompt_lengths.shape != (len(rows),):
        shape = tuple(prompt_lengths.shape)
        raise BackboneError(f"prompt_lengths has shape {shape}: give one number for each of the {len(rows)} rows")
    lengths = [int(n) for n in prompt_lengths.tolist()]
    refuse(
        [not _fits(row, n, marks) for row, n in zip(rows, lengths, strict=True)],
        f"have prompt_lengths that are no part of them: give for each a number from 1 to where its closing starts, got {lengths}",
    )
    found = []
    for row, n in zip(rows, lengths, strict=True):
        size = len(row) - marks.closing_in(row[n:])
        found.append(Rendered(row[:n], row[n:size], row[size:]))
    return found


def _fits(row: Ids, length: int, marks: Marks) -> bool:
    # A prompt ends before the closing; one with nothing behind it ends with its header.
    inside = 1 <= length <= len(row)
    return inside and (length < len(row) - marks.closing_in(row) + 1 or ends_with(row[:length], marks.header))

"""Where prompt and answer stand in bare token ids, which come padded and without their conversation.

In: ids [b t], a model's config.  Out: `Segments`, places [b] counted from a row's start.  Cost: a search for the header's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from armorm.errors import BackboneError
from armorm.model.config import RewardModelConfig


@dataclass(frozen=True, eq=False)
class Segments:
    """A row's tokens stand in [first, end): the prompt up to `opening`, then `answer` tokens of text, then the closing ones."""

    mask: Int[Tensor, "b t"]
    first: Int[Tensor, " b"]
    prompt: Int[Tensor, " b"]
    answer: Int[Tensor, " b"]
    end: Int[Tensor, " b"]

    @property
    def opening(self) -> Int[Tensor, " b"]:
        """Where the answer starts."""
        return self.first + self.prompt


def find_segments(
    ids: Int[Tensor, "b t"],
    config: RewardModelConfig,
    mask: Int[Tensor, "b t"] | None = None,
    prompt_lengths: Int[Tensor, " b"] | None = None,
) -> Segments:
    """Find them. Without a mask, padding tokens at a row's ends are passed over; without prompt lengths, the header's last place
    opens the answer.

    Raises BackboneError naming rows without a header.
    """
    mask = _mask(ids, config) if mask is None else mask
    sizes, first = mask.sum(dim=1), mask.argmax(dim=1)
    prompt = _prompt_lengths(ids, config, first, sizes) if prompt_lengths is None else prompt_lengths.to(sizes)
    closing = _closing_lengths(ids, config, first + sizes)
    return Segments(mask, first, prompt, (sizes - prompt - closing).clamp_min(1), first + sizes)


def _mask(ids: Int[Tensor, "b t"], config: RewardModelConfig) -> Int[Tensor, "b t"]:
    # A padding token that texts hold too (the end of a turn, BOS, EOS) says nothing about where a row ends.
    pad, eos = config.pad_token_id, config.backbone_config.get("eos_token_id")
    ends = eos if isinstance(eos, list) else [eos]
    if pad is None or pad in (*config.closing_ids, *config.header_ids, config.backbone_config.get("bos_token_id"), *ends):
        return torch.ones_like(ids)
    real = (ids != pad).long()
    return ((real.cumsum(dim=1) > 0) & (real.flip(1).cumsum(dim=1).flip(1) > 0)).long()


def _prompt_lengths(
    ids: Int[Tensor, "b t"], config: RewardModelConfig, first: Int[Tensor, " b"], sizes: Int[Tensor, " b"]
) -> Int[Tensor, " b"]:
    header = torch.tensor(config.header_ids, device=ids.device)
    if not len(header) or ids.shape[1] < len(header):
        raise BackboneError("the answer's place is not known: give prompt_lengths, the number of tokens of each prompt")
    found = (ids.unfold(1, len(header), 1) == header).all(dim=-1)
    t = torch.arange(found.shape[1], device=ids.device)
    inside = (t >= first[:, None]) & (t + len(header) < (first + sizes)[:, None])
    last = torch.where(found & inside, t, -1).amax(dim=1)
    if (last < 0).any():
        rows = (last < 0).nonzero().flatten().tolist()
        raise BackboneError(f"rows {rows} hold no answer header: give prompt_lengths, the number of tokens of each prompt")
    return last + len(header) - first


def _closing_lengths(ids: Int[Tensor, "b t"], config: RewardModelConfig, end: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    closing = torch.tensor(config.closing_ids, device=ids.device)
    if not len(closing):
        return torch.zeros_like(end)
    at = (end[:, None] - len(closing) + torch.arange(len(closing), device=ids.device)).clamp_min(0)
    return (ids.gather(1, at) == closing).all(dim=1).long() * len(closing)

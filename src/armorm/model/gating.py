"""The gating network: a prompt's feature → weights of the objectives.

In: prompt features [b d].  Out: weights [b k].  Cost: a small MLP per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GatingNetwork(nn.Module):
    """ReLU MLP with a softmax over the objectives (eq. 4), times `scale`, which is 1 unless the gate came with one.

    `logit_scale` is β, used in training only. `blocks` gates of as many seeds stand beside each other in the layers, and the
    logits are the mean of theirs (`fit.gate.mean_of_gates`).
    """

    def __init__(
        self, width: int, hidden: Sequence[int], k: int, temperature: float, scale: float = 1.0, blocks: int = 1
    ) -> None:
        super().__init__()
        widths = [width, *hidden, k]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.temperature = temperature
        self.scale = scale
        self.blocks = blocks
        self.logit_scale = nn.Parameter(torch.ones(1))

    def forward(self, prompts: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return self._weights(self.layers[-1](self._last_inputs(prompts)))

    def members(self, prompts: Float[Tensor, "b d"]) -> Float[Tensor, "b s k"] | None:
        """The weights of each of the gates that this one is the mean of; None for a gate by itself."""
        if self.blocks == 1:
            return None
        last: Any = self.layers[-1]
        own, weight = (x.unflatten(1, (self.blocks, -1)) for x in (self._last_inputs(prompts), last.weight))
        return self._weights(self.blocks * torch.einsum("bsh,ksh->bsk", own, weight) + last.bias)

    def _last_inputs(self, prompts: Float[Tensor, "b d"]) -> Float[Tensor, "b h"]:
        hidden = prompts
        for layer in list(self.layers)[:-1]:
            hidden = layer(hidden).relu()
        return hidden

    def _weights(self, logits: Float[Tensor, "b ... k"]) -> Float[Tensor, "b ... k"]:
        return torch.softmax(logits / self.temperature, dim=-1) * self.scale  # over k

"""The gating network: a prompt's feature → weights of the objectives.

In: prompt features [b d].  Out: weights [b k].  Cost: a small MLP per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GatingNetwork(nn.Module):
    """ReLU MLP with a softmax over the objectives (eq. 4), times `scale`, which is 1 unless the gate came with one.

    `logit_scale` is β, used in training only.
    """

    def __init__(self, width: int, hidden: Sequence[int], k: int, temperature: float, scale: float = 1.0) -> None:
        super().__init__()
        widths = [width, *hidden, k]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.temperature = temperature
        self.scale = scale
        self.logit_scale = nn.Parameter(torch.ones(1))

    def forward(self, prompts: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        hidden = prompts
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden.relu() if i else hidden)
        return torch.softmax(hidden / self.temperature, dim=-1) * self.scale  # over k

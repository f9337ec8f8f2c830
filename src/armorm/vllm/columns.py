"""What the pooler sends to our own routes for one answer: the heads' outputs side by side, in float32.

In: `Heads` and the feature that standard deviations need.  Out: one row; and the same apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from armorm.model.reward_model import RewardModel
from armorm.scoring.steer import Heads

PROMPT, ANSWER, STYLE, WANTED = "prompt_length", "answer_length", "style", "columns"
"""Keys of `PoolingParams.extra_kwargs`: tokens of the prompt and of the answer, the counts of its style, whether columns are
wanted in place of the score alone."""


@dataclass(frozen=True)
class Columns:
    """How many numbers of each kind a row holds: k rewards, k weights, q terms, k weights of each of s gates, and the feature's w
    where the model knows its uncertainty."""

    k: int
    q: int
    members: int
    feature: int

    @classmethod
    def of(cls, model: RewardModel) -> Columns:
        k = len(model.objectives)
        members = model.gating.blocks if model.gating.blocks > 1 else 0
        feature = 0 if model.uncertainty is None else model.regression_layer.in_features
        return cls(k, k + len(model.config.computed), members, feature)

    @property
    def width(self) -> int:
        return sum(self._sizes)

    def join(self, heads: Heads, feature: Float[Tensor, "b w"]) -> Float[Tensor, "b c"]:
        members = [] if heads.members is None else [heads.members.flatten(1)]
        return torch.cat([heads.rewards, heads.gate, heads.terms, *members, feature[:, : self.feature].float()], dim=1)

    def split(self, rows: Sequence[Tensor], transform: Float[Tensor, "q k"]) -> tuple[Heads, Float[Tensor, "b w"]]:
        """Of rows as the pooler sent them. `transform` is the model's debiasing, with which the gate makes coefficients."""
        rewards, gate, terms, members, feature = torch.stack(list(rows)).float().cpu().split(self._sizes, dim=1)
        by_gate = members.unflatten(1, (self.members, self.k)) if self.members else None
        return Heads(rewards, gate, gate @ transform.T, terms, by_gate), feature

    @property
    def _sizes(self) -> list[int]:
        return [self.k, self.k, self.q, self.k * self.members, self.feature]

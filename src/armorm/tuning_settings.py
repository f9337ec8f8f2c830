"""How a decoder is trained: what a recipe says about it, checked.

In: plain values, as they stand in a recipe.  Out: `TuningRecipe`, and `TuningSettings` for one objective.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from armorm.bounds import Count, Decay, Rate, Rows, Share, Tokens

TrainingObjective = Literal["bradley-terry", "pairwise", "regression"]
"""What a decoder is trained to do: order pairs by one logit, say which of two shown answers is better, or predict ratings
(eq. 1 over the decoder's weights too)."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(_Settings):
    """Low-rank adapters on every linear layer of the decoder, in place of training all its weights."""

    rank: int = Field(default=16, ge=1, le=65536)
    alpha: float = Field(default=32, gt=0, le=1e6)
    dropout: Share = 0.05


class TuningSettings(_Settings):
    """How a decoder is trained. `steps` (of `batch_size` examples each) overrides `epochs`; `lora: null` trains all weights.

    A checkpoint is kept every `save_every` steps, and the loss on `evaluate` held-out examples is taken then. `micro_batch`
    examples are computed at once: it bounds the memory and changes nothing else. `max_tokens` defaults to the backbone's.
    """

    lora: Lora | None = Lora()
    epochs: float = Field(default=1.0, gt=0, le=1e6)
    steps: Rows | None = None
    batch_size: Rows = 16
    micro_batch: Rows = 2
    learning_rate: Rate = 1e-4
    warmup: Share = 0.05
    weight_decay: Decay = 0.0
    max_tokens: Tokens | None = None
    gradient_checkpointing: bool = False
    save_every: Rows = 50
    evaluate: Count = 200

    @model_validator(mode="after")
    def _whole_batches(self) -> TuningSettings:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch {self.micro_batch}")
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError("learning_rate times weight_decay is 1 or more, which turns the weights about: lower one of them")
        return self


class TuningRecipe(TuningSettings):
    """Settings for all objectives, and those that one of them has otherwise."""

    bradley_terry: dict[str, Any] = {}
    pairwise: dict[str, Any] = {}
    regression: dict[str, Any] = {}

    @model_validator(mode="after")
    def _each_is_whole(self) -> TuningRecipe:
        for objective in get_args(TrainingObjective):
            self.of(objective)
        return self

    def of(self, objective: TrainingObjective) -> TuningSettings:
        """The settings of one objective."""
        common = {name: getattr(self, name) for name in TuningSettings.model_fields}
        return TuningSettings.model_validate(common | getattr(self, objective.replace("-", "_")))

"""What a method is to the benchmark: something that gives answers scores.

In: nothing (these are protocols).  Out: `Scorer` (conversations in) and `FeatureScorer` (features in).  Cost: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from armorm.conversation import Conversation


@dataclass(frozen=True)
class AnswerFeatures:
    """Features of n answers, as scorers on frozen features read them.

    `response` [n w] and `prompt` [n v] are in the type they are stored in; `tokens` [n] is the answer's length in tokens.
    """

    response: Float[np.ndarray, "n w"]
    prompt: Float[np.ndarray, "n v"]
    tokens: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.tokens)


@runtime_checkable
class Scorer(Protocol):
    """Scores conversations: [n], higher is better, NaN where there is no verdict."""

    @property
    def name(self) -> str: ...

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]: ...


@runtime_checkable
class FeatureScorer(Protocol):
    """Scores answers from their features: [n], higher is better. `label` is what a table calls it."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]: ...

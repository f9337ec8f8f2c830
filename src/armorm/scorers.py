"""What a method is to the benchmark: something that gives answers scores.

In: nothing (these are protocols).  Out: `Scorer` (conversations in), `FeatureScorer` (features in), `PairScorer` (two answers
in).
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

    def take(self, rows: slice) -> AnswerFeatures:
        """Some of the answers."""
        return AnswerFeatures(self.response[rows], self.prompt[rows], self.tokens[rows])


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


@dataclass(frozen=True)
class Preferences:
    """Verdicts on n pairs (a, b): P(a ≻ b) in [0, 1], NaN where there is none.

    `forward` [n]: with a shown first; `backward` [n]: with b shown first. Without position bias the two are alike.
    """

    forward: Float[np.ndarray, " n"]
    backward: Float[np.ndarray, " n"]

    @property
    def mean(self) -> Float[np.ndarray, " n"]:
        """Both orders averaged: the one that is there where only one is, NaN where neither is."""
        there = ~np.isnan([self.forward, self.backward])
        total = np.nansum([self.forward, self.backward], axis=0)
        return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)


@runtime_checkable
class PairScorer(Protocol):
    """Compares two answers to one prompt, shown in both orders. `fingerprint` names what its verdicts depend on."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def prefer(self, pairs: Sequence[tuple[Conversation, Conversation]]) -> Preferences: ...

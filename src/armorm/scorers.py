"""What a method is to the benchmark: something that gives answers scores.

In: nothing (these are protocols).  Out: `Scorer` (conversations in; a `TellingScorer` says how it read them), `FeatureScorer`
(features in), `PairScorer` (two answers in); `Reading`, how conversations are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.conversation import Conversation


class Reading(TypedDict, total=False):
    """How conversations are read, where it is not to be as usual.

    `batch_tokens`: about how many tokens stand in a batch; `max_tokens`: the longest conversation, in place of the model's own
    bound; `exact`: each by itself, so that its score is the same to the bit whatever stands beside it.
    """

    batch_tokens: int
    max_tokens: int | None
    exact: bool


@dataclass(frozen=True)
class Scored:
    """Scores of n conversations, and how they were read.

    `scores` [n] are NaN where there is none, and `faults` say why; `truncated` [n] marks conversations that did not fit and were
    cut; `notes` name what the chat template left out of each.
    """

    scores: Float[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]
    faults: tuple[str | None, ...]
    notes: tuple[tuple[str, ...], ...]

    @classmethod
    def plain(cls, scores: Float[np.ndarray, " n"]) -> Scored:
        """Of a scorer that says no more."""
        n = len(scores)
        return cls(scores, np.zeros(n, dtype=np.bool_), (None,) * n, ((),) * n)


@dataclass(frozen=True)
class AnswerFeatures:
    """Features of n answers, as scorers on frozen features read them.

    `response` [n w] and `prompt` [n v] are float32, or wider; `tokens` [n] is the answer's length in tokens; `style` [n s] what
    was counted in its text, where a method asks for it.
    """

    response: Float[np.ndarray, "n w"]
    prompt: Float[np.ndarray, "n v"]
    tokens: Float[np.ndarray, " n"]
    style: Int[np.ndarray, "n s"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: slice) -> AnswerFeatures:
        """Some of the answers."""
        style = None if self.style is None else self.style[rows]
        return AnswerFeatures(self.response[rows], self.prompt[rows], self.tokens[rows], style)


@runtime_checkable
class Scorer(Protocol):
    """Scores conversations: [n], higher is better, NaN where there is no verdict."""

    @property
    def name(self) -> str: ...

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]: ...


@runtime_checkable
class TellingScorer(Scorer, Protocol):
    """A scorer that says how it read what it scored. `longest`: the most tokens that a conversation keeps."""

    @property
    def longest(self) -> int: ...

    def scored(self, conversations: Sequence[Conversation]) -> Scored: ...


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

    `forward` [n]: with a shown first; `backward` [n]: with b shown first. Without position bias the two are alike. `truncated`
    [n] marks pairs that were cut, `faults` [n] say why a pair has no verdict; both are empty where a scorer can't say.
    """

    forward: Float[np.ndarray, " n"]
    backward: Float[np.ndarray, " n"]
    truncated: tuple[bool, ...] = ()
    faults: tuple[str | None, ...] = ()

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
